"""A finished run is kept, an interrupted one is not."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.kept_runs import KeptRuns
from benchmarks.process import ProcessError
from benchmarks.vllm_arms import ARMS


def test_a_finished_run_is_kept_until_something_it_depends_on_changes(tmp_path: Path) -> None:
    kept, measured = KeptRuns(tmp_path / "runs"), []

    def measure() -> dict[str, Any]:
        measured.append(1)
        return {"value": 1 / 3, "number": len(measured)}

    first = kept.get("a-1", {"rate": 1.0, "arm": ARMS[0]}, measure)
    assert first == {"value": 0.33333, "number": 1}
    assert kept.get("a-1", {"rate": 1.0, "arm": ARMS[0]}, measure) == first
    assert kept.get("a-1", {"rate": 2.0, "arm": ARMS[0]}, measure)["number"] == 2
    assert kept.get("a-2", {"rate": 2.0, "arm": ARMS[0]}, measure)["number"] == 3


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> dict[str, Any]:
        raise ProcessError("the engine ended early")

    kept = KeptRuns(tmp_path)
    with pytest.raises(ProcessError):
        kept.get("a-1", {}, interrupted)
    assert kept.get("a-1", {}, lambda: {"value": 1}) == {"value": 1}
