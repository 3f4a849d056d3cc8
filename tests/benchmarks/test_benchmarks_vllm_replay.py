"""What the benchmarks on a real vLLM replay: records from a file, or requests made up from a seed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from benchmarks.replay import RecordsError, from_records, from_seed, read_workload


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_records_that_cannot_be_replayed_are_left_out(tmp_path: Path) -> None:
    rows = [(f"prompt {n}", n) for n in range(1, 9)]
    rows += [("too long\n" * 1000, 5), ("nothing", 0), ("endless", 5000), (" ", 5), ("prompt 1", 77)]
    named = [{"prompt": prompt, "response_tokens": tokens} for prompt, tokens in rows]
    replay = from_records(jsonl(tmp_path / "some.jsonl", *named, {"prompt": "unknown", "response_tokens": None}), 8, seed=3)
    assert {(each.prompt, each.output_tokens) for each in replay.requests} == {(f"prompt {n}", n) for n in range(1, 9)}
    assert replay.source == "some.jsonl, seed 3"
    assert replay.mean_output_tokens == 4.5


def test_both_kinds_of_files_give_the_same_replay(tmp_path: Path) -> None:
    columns = {"prompt": [f"Grüße {n}" for n in range(20)], "response_tokens": list(range(1, 21))}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "r.parquet")
    rows = [{"prompt": prompt, "response_tokens": tokens} for prompt, tokens in zip(*columns.values(), strict=True)]
    one = from_records(tmp_path / "r.parquet", 10, seed=1)
    assert one.requests == from_records(jsonl(tmp_path / "r.jsonl", *rows), 10, seed=1).requests
    assert one.sha256 == from_records(tmp_path / "r.parquet", 10, seed=1).sha256
    assert one.sha256 != from_records(tmp_path / "r.parquet", 10, seed=2).sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a", "response_tokens": 3}\n', "1 usable records, 2 are wanted"),
        ('{"prompt": "a"}\n', "no records with prompt and response_tokens"),
        ("not json\n", "no records with prompt and response_tokens"),
        (None, "no records with prompt and response_tokens"),
    ],
    ids=["too few", "no lengths", "no JSON", "no file"],
)
def test_unusable_records_are_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "r.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordsError, match=message):
        from_records(path, 2, seed=0)


def test_made_up_requests_are_all_different_and_fit(tmp_path: Path) -> None:
    replay = from_seed(200, seed=4)
    assert len({each.prompt for each in replay.requests}) == 200
    assert all(1 <= each.output_tokens <= 1000 for each in replay.requests)
    assert replay == from_seed(200, seed=4)
    replay.write(tmp_path / "w.jsonl")
    assert tuple(read_workload(tmp_path / "w.jsonl")) == replay.requests
