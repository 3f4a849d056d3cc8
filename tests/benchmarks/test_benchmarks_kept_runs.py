"""Finished runs and all their tries are kept, and never under another's name."""

import json
from pathlib import Path

from benchmarks.bench_vllm.arms import ARMS
from benchmarks.bench_vllm.kept_runs import REPLACED, KeptRuns, key_of

RUN = {"rate": 1.0, "arm": ARMS[0], "sources": "abc"}
OTHER = {**RUN, "sources": "def"}


def test_a_run_is_kept_with_all_its_tries(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path / "runs")
    assert kept.tries("a-1", RUN) == []
    assert kept.add("a-1", RUN, {"value": 1 / 3}) == {"value": 0.333333333}
    kept.add("a-1", RUN, {"value": 2})
    assert KeptRuns(tmp_path / "runs").tries("a-1", dict(reversed(RUN.items()))) == [{"value": 0.333333333}, {"value": 2}]
    assert kept.tries("a-2", RUN) == []


def test_a_run_that_depended_on_something_else_is_another_one(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    kept.add("a-1", RUN, {"value": 1})
    assert kept.tries("a-1", OTHER) == []
    assert kept.differs("a-1", OTHER) == ["sources"]
    assert kept.differs("a-1", RUN) == []
    assert kept.differs("a-2", RUN) == []


def test_going_back_finds_the_runs_again(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    kept.add("a-1", RUN, {"value": 1})
    kept.add("a-1", OTHER, {"value": 2})
    assert kept.tries("a-1", RUN) == [{"value": 1}]
    assert kept.tries("a-1", OTHER) == [{"value": 2}]
    kept.add("a-1", RUN, {"value": 3})
    assert kept.tries("a-1", RUN) == [{"value": 1}, {"value": 3}]
    assert kept.tries("a-1", OTHER) == [{"value": 2}]
    assert (tmp_path / REPLACED / f"a-1.{key_of(OTHER)[:12]}.json").exists()


def test_a_run_from_before_there_were_tries_is_none(tmp_path: Path) -> None:
    (tmp_path / "a-1.json").write_text(json.dumps({"key": key_of(RUN), "result": {}}))
    kept = KeptRuns(tmp_path)
    assert kept.tries("a-1", RUN) == []
    assert kept.add("a-1", RUN, {"value": 1}) == {"value": 1}
