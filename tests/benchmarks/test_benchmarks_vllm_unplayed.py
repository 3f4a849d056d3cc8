"""What a ranker of the replayed traffic's own may learn from."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_vllm import __main__ as bench_vllm
from benchmarks.bench_vllm.plan import LOADS, STARTS
from benchmarks.bench_vllm.site import Bench, site_of
from benchmarks.bench_vllm.unplayed import main, replayed_prompts, unplayed
from benchmarks.process import ProcessError
from trainer.local import LocalSource
from trainer.records import Records


def write_records(path: Path, prompts: list[str]) -> Path:
    rows = ({"prompt": prompt, "response_tokens": number % 300 + 1} for number, prompt in enumerate(prompts))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_all_that_the_plan_replays_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. ask the benchmark itself what it would replay with its own settings 2. it is that to the prompt."""
    records = write_records(tmp_path / "records.jsonl", [f"prompt {number}" for number in range(8_000)])
    asked: list[Bench] = []

    def no_site(bench: Bench, *_: object) -> None:
        asked.append(bench)
        raise ProcessError("nothing is to run")

    monkeypatch.setattr(bench_vllm, site_of.__name__, no_site)
    assert bench_vllm.main(["--out", str(tmp_path / "vllm.json"), "--records", str(records)]) == 1
    [bench] = asked
    replays = [bench.replay(load, repetition) for load in LOADS for repetition in range(1, STARTS + 1)]
    played = {request.prompt for replay in (*replays, bench.common_replay()) for request in replay.requests}
    assert set(replayed_prompts(records)) == played


def test_near_duplicates_are_left_out_too() -> None:
    played = ["Write a poem about the quiet sea in winter, in 4 lines"]
    others = ["Write a poem about the quiet sea in winter, in 12 lines", "Name three rivers in Europe that flow to the north"]
    rest = unplayed(Records.build([*played, *others], [1, 2, 3]), played)
    assert (rest.prompt, rest.response_tokens.tolist()) == (others[1:], [3])


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """1. more records than are replayed, all different in words: the rest is written, to train on 2. too few for the plan: an error, and
    nothing is written."""
    letters = "abcdefghijklmnopqrst"
    prompts = [" ".join(3 * letters[number // 20**place % 20] for place in range(4)) + f" x{number}" for number in range(8_000)]
    records, out = write_records(tmp_path / "records.jsonl", prompts), tmp_path / "rest" / "records.parquet"
    assert main(["--records", str(records), "--out", str(out)]) == 0
    rest = LocalSource.of_records(out).load()
    replayed = set(replayed_prompts(records))
    assert 0 < len(rest) <= 8_000 - len(replayed)
    assert replayed.isdisjoint(rest.prompt)
    assert f"{len(rest):,} of 8,000 records" in capsys.readouterr().out
    few = write_records(tmp_path / "few.jsonl", prompts[:100])
    assert main(["--records", str(few), "--out", str(tmp_path / "none.parquet")]) == 1
    assert "100 usable records" in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()
