"""The whole of soak, for a moment on a tiny bundle."""

import json
from pathlib import Path

import pytest

from benchmarks.soak import __main__ as soak
from benchmarks.soak.sidecar import SoakedSidecar


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
        assert sidecar["callers"]["wrong"] == 0, shown
        assert sidecar["unexpected_log_records"] == 0, shown
        assert sidecar["callers"]["calls"]["score"]["OK"] > 0, shown
        # A reload may fill a window of so short a run.
        assert sidecar["growth"] is None or sidecar["growth"]["rss_mib"][0] > 0
    assert report["stamp"]["command"].endswith("--provider cpu --minutes 0.2")


def test_a_sidecar_that_dies_is_a_broken_promise_with_a_report(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. load 2. the first swap kills instead 3. what the callers have counted until then is in the report."""

    def die(sidecar: SoakedSidecar, bundle_ids: dict[Path, str]) -> None:
        sidecar.process.process.kill()
        sidecar.process.process.wait(60)

    monkeypatch.setattr(SoakedSidecar, "swap", die)
    out = tmp_path / "soak.json"
    assert soak.main(["--bundle", str(tiny_bundle), "--out", str(out), "--provider", "cpu", "--minutes", "0.2"]) == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert "the run ended early: the sidecar died with code -9" in report["broken_promises"][0]
    for sidecar in report["sidecars"]:
        assert sidecar["callers"]["calls"]["score"]["OK"] > 0
