"""The GPU benchmark whole, on the CPU: every part for a moment, deadlines, and parts that fail beside parts that do not."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import deadline
from benchmarks.gpu.deadline import run_until
from benchmarks.process_tree import started_ticks

PARENT = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(str(child.pid))
path.with_suffix(".new").rename(path)
time.sleep(600)
"""


def test_all_parts_in_seconds(tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    code = gpu.main(["--bundle", f"fp32={tiny_bundle}", "--out", str(out), "--provider", "cpu", "--smoke"])
    shown, said = capfd.readouterr()
    assert code == 0, shown + said
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["failed"] == {}
    assert set(report["not_on_this_machine"]) == {"cuda_graph", "tensorrt"}
    assert report["parity"]["fp32"]["max_score_difference"] < 1e-5
    assert report["prompts_per_s_in_batches"]["fp32"] > 0
    assert report["rpc_vs_device_floor"]["fp32"]["single_p50"] > 0
    assert report["io_binding_vs_plain"]["fp32"][0] > 0
    assert report["cuda_graph_vs_io_binding"] == {}
    # Nobody sent 1,000 calls a second, so nobody says how quick they were.
    assert report["p99_ms_at_1000_per_s"] == {}
    single = report["parts"]["rpc"]["fp32"]["single"]
    assert single["failures"] == {}
    assert single["answered_calls"] > 0
    assert single["sent_late_p99_ms"] <= single["max_ms"]
    assert report["parts"]["rpc"]["fp32"]["provider"] == "CPUExecutionProvider"
    assert report["stamp"]["command"].endswith("--provider cpu --smoke")
    assert "fp32 io_binding 1 x 8" in shown
    assert "not on this machine: tensorrt" in shown


def test_a_failed_part_keeps_no_other_from_running(
    tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    given = ["--bundle", f"fp32={tiny_bundle}", "--bundle", f"fp16={tmp_path / 'none'}", "--out", str(out)]
    code = gpu.main([*given, "--provider", "cpu", "--smoke", "--parts", "parity", "floor"])
    assert code == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert set(report["failed"]) == {"parity", "floor"}
    assert "BundleError" in report["failed"]["parity"]["parity"]
    # What was measured before it failed is kept.
    assert set(report["parts"]["parity"]) == set(report["parts"]["floor"]) == {"fp32"}
    assert "FAILED floor" in capfd.readouterr().out


def test_without_time_left_a_part_is_not_started(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    given = ["--bundle", f"fp32={tiny_bundle}", "--out", str(out), "--provider", "cpu", "--smoke"]
    assert gpu.main([*given, "--budget-s", "1", "--parts", "floor", "variants"]) == 1
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["failed"] == {name: {name: "no time left for it"} for name in ("floor", "variants")}
    assert [row["met"] for row in report["targets"]] == [None, None]


def test_a_part_out_of_time_is_ended_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    failed = run_until([sys.executable, "-c", PARENT, str(file)], 4.0, os.environ)
    assert failed == "not done after 4 s"
    assert wait_gone(int(file.read_text()))


def test_a_part_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "STOP_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    began_s = time.monotonic()
    assert run_until([sys.executable, "-c", deaf], 1.0, os.environ) == "not done after 1 s"
    assert time.monotonic() - began_s < 60


@pytest.mark.parametrize(
    ("code", "failed"), [("pass", None), ("raise SystemExit(3)", "exit code 3"), ("import os; os.abort()", "killed by SIGABRT")]
)
def test_how_a_part_ended_is_told(code: str, failed: str | None) -> None:
    assert run_until([sys.executable, "-c", code], 30.0, os.environ) == failed


def wait_gone(pid: int) -> bool:
    give_up_s = time.monotonic() + 10.0
    while started_ticks(pid) is not None:
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.05)
    return True
