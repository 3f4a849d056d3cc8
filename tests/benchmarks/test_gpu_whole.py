"""The GPU benchmark whole, on the CPU: every part for a moment, deadlines, stops, and parts that fail beside parts that do not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import process_group
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.deadline import run_until
from benchmarks.leaving import SIGNALS, signals_leave
from benchmarks.process_tree import started_ticks, tree_of
from benchmarks.stamp import REPOSITORY

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


def test_a_bundle_that_could_not_be_exported_is_in_the_report(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    given = ["--bundle", f"fp32={tiny_bundle}", "--not-exported", "fp16=not exported within 120 s", "--out", str(out)]
    assert gpu.main([*given, "--provider", "cpu", "--smoke", "--parts", "floor"]) == 1
    assert json.loads(out.read_text(encoding="utf-8"))["failed"] == {"export": {"fp16": "not exported within 120 s"}}


@pytest.mark.parametrize(
    ("bundle", "budget_s", "why"),
    [
        ("tiny", "1", "FAILED variants: variants: no time left for it"),
        ("none", "100", "FAILED variants: variants: BundleError"),
    ],
    ids=["no time left", "no figure"],
)
def test_a_run_that_measured_nothing_leaves_the_old_report(
    tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], bundle: str, budget_s: str, why: str
) -> None:
    out = tmp_path / "gpu.json"
    out.write_text("a good report")
    folder = tiny_bundle if bundle == "tiny" else tmp_path / "none"
    given = ["--bundle", f"fp32={folder}", "--out", str(out), "--provider", "cpu", "--smoke"]
    assert gpu.main([*given, "--budget-s", budget_s, "--parts", "variants"]) == 2
    assert out.read_text() == "a good report"
    assert why in capfd.readouterr().out


def test_a_stop_keeps_what_was_measured_and_leaves_nothing_behind(tiny_bundle: Path, tmp_path: Path) -> None:
    """1. the first part ends, and its figures are written 2. the second has a sidecar at work 3. SIGTERM
    4. the report has the first part's figures and says which parts are missing 5. no process and no folder is left."""
    out = tmp_path / "gpu.json"
    given = ["--bundle", f"fp32={tiny_bundle}", "--out", str(out), "--provider", "cpu", "--smoke"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu", *given, "--parts", "parity", "rpc", "floor"],
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    try:
        assert wait_for(lambda: any(tmp_path.glob("pars-gpu-*/fp32.sock")))
        kept = json.loads(out.read_text(encoding="utf-8"))
        assert set(kept["failed"]) == {"rpc", "floor"}
        tree = tree_of(process.pid)
        assert len(tree) > 3, "a part, its sidecar and its callers"
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    finally:
        process.terminate()
        process.wait(timeout=60)
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["parts"]["parity"]["fp32"]["kendall_tau_b"] == pytest.approx(1.0)
    assert report["failed"]["floor"] == {"floor": "stopped before it ended"}
    assert report["failed"]["rpc"]["rpc"] == "stopped before it ended"
    assert [pid for pid in tree if not wait_gone(pid)] == []
    assert list(tmp_path.glob("pars-gpu-*")) == []


@contextlib.contextmanager
def twice(number: signal.Signals) -> Iterator[None]:
    """Again on the way out, while something is being cleaned up."""
    try:
        yield
    finally:
        signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_leaves_and_later_ones_do_not_disturb_it(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as left, signals_leave(), twice(number):
            signal.raise_signal(number)
        assert left.value.code == 128 + number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup does with SIGHUP, for a run that is to outlive its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_leave():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_part_out_of_time_is_ended_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    failed = run_until([sys.executable, "-c", PARENT, str(file)], 4.0, os.environ)
    assert failed == "not done after 4 s"
    assert wait_gone(int(file.read_text()))


def test_a_part_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_group, "STOP_S", 0.2)
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
    return wait_for(lambda: started_ticks(pid) is None, 10.0)


def wait_for(is_so: Callable[[], bool], deadline_s: float = 60.0) -> bool:
    give_up_s = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > give_up_s:
            return False
        time.sleep(0.05)
    return True
