"""The whole of soak, for a moment on a tiny bundle."""

import json
from pathlib import Path

import pytest

from benchmarks.soak import __main__ as soak


def test_it_soaks_for_a_moment(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "soak.json"
    code = soak.main(["--bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--minutes", "0.2"])
    shown = capsys.readouterr().out
    report = json.loads(out.read_text(encoding="utf-8"))
    assert code == bool(report["broken_promises"]), shown
    assert {sidecar["over"] for sidecar in report["sidecars"]} == {"tcp", "unix"}
    assert report["killed_callers"] >= 1
    reloads = [outcome for sidecar in report["sidecars"] for outcome in sidecar["reloads"]]
    assert {"swapped", "refused"} <= set(reloads)
    for sidecar in report["sidecars"]:
        assert sidecar["exit_code"] == 0, shown
        assert sidecar["reload_faults"] == [], shown
        assert sidecar["callers"]["unanswered"] == 0, shown
        assert sidecar["callers"]["calls"]["score"]["OK"] > 0, shown
        # A reload may fill a window of so short a run.
        assert sidecar["growth"] is None or sidecar["growth"]["rss_mib"][0] > 0
    assert report["stamp"]["command"].endswith("--provider cpu --minutes 0.2")
