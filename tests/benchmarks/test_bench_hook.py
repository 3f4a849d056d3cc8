"""The hook's own cost: rows from rounds by hand, and the whole benchmark for a moment."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench_hook import __main__ as bench_hook
from benchmarks.bench_hook.__main__ import CASES, FROZEN, Case, case_row
from vllm_client.hook.decision import Outcome


def answer(*wall_us: int, outcomes: dict[str, int] | None = None) -> dict[str, Any]:
    walls = [1000 * each for each in wall_us]
    return {"wall_ns": walls, "wall_s": sum(walls) / 1e9, "cpu_s": sum(walls) / 1e9, "outcomes": outcomes or {}}


def test_what_the_hook_adds_is_taken_within_rounds() -> None:
    case = Case("gated", "gated", {})
    row = case_row(
        case, [answer(40, 60, outcomes={"gated": 2}), answer(90, 90, outcomes={"gated": 2})], [answer(10), answer(20)]
    )
    assert row["wall_p50_us"] == (70, 50, 90)
    assert row["added_wall_p50_us"] == (55, 40, 70)
    assert row["added_cpu_us"] == pytest.approx((55, 40, 70))
    assert (row["requests"], row["unexpected"], row["outcomes"]) == (4, 0, {"gated": 4})


def test_a_case_that_measured_something_else_is_marked() -> None:
    row = case_row(Case("scored", "scored", {}), [answer(40, 60, outcomes={"scored": 1, "deadline": 1})], [answer(10)])
    assert row["unexpected"] == 1


def test_the_hook_benchmark_runs_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hook.json"
    code = bench_hook.main(["--out", str(out), "--smoke"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    report = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in report["rows"]}
    assert rows.keys() == {case.name for case in (*CASES, FROZEN)}
    assert rows["scored"]["outcomes"] == {"scored": bench_hook.SMOKE_REQUESTS}
    assert rows["scored_64kb"]["added_cpu_us"][0] > 0
    assert rows["frozen"]["outcomes"].keys() <= {
        each.value for each in (Outcome.DEADLINE, Outcome.BREAKER_OPEN, Outcome.UNCONNECTED)
    }
    assert report["stamp"]["command"].endswith("--smoke")


def test_no_round_is_no_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench_hook.main(["--out", str(tmp_path / "hook.json"), "--rounds", "0"])
    assert "--rounds: 0 is not at least 1" in capsys.readouterr().err
