"""What a server with children uses, and that it leaves none behind: real processes."""

import os
import signal
import sys
import time

import pytest

from benchmarks import process
from benchmarks.process import LineProcess, ProcessError
from benchmarks.process_tree import memory_of, started_ticks, tree_of

# Starts one like itself, which works, and holds memory; says its child's number; stays until it is told to go.
PARENT = """
import subprocess, sys, signal
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""
BUSY_CHILD = """
import signal, time
held = b"x" * 50_000_000
while time.process_time() < 0.3:
    pass
print("done", flush=True)
signal.pause()
"""
STUBBORN_CHILD = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    signal.pause()
"""


def parent_of(child: str) -> LineProcess:
    return LineProcess([sys.executable, "-c", PARENT, child], merge_stderr=True)


def test_children_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.5)  # the child goes on until it is killed
    with parent_of(BUSY_CHILD) as parent:
        child = int(parent.line(60))
        assert set(tree_of(parent.process.pid)) == {parent.process.pid, child}
        assert parent.cpu_s() >= 0.3
        memory = parent.memory()
        assert memory.rss_mib > memory_of([parent.process.pid]).rss_mib + 40
        assert 40 < memory.pss_mib <= memory.rss_mib


def test_a_child_that_has_ended_stays_counted() -> None:
    """Servers restart their workers; what those took was taken."""
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]]); print('ended', flush=True); sys.stdin.read()"
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    with LineProcess([sys.executable, "-c", program, busy], merge_stderr=True) as parent:
        parent.line_like("ended", 60)
        assert tree_of(parent.process.pid) == [parent.process.pid]
        assert parent.cpu_s() >= 0.3


def test_no_child_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = parent_of(STUBBORN_CHILD)
    monkeypatch.setattr(process, "STOP_S", 0.5)
    child = int(parent.line(60))
    began = started_ticks(child)
    assert began is not None
    parent.close()
    give_up_s = time.monotonic() + 30  # SIGKILL is sent, not yet carried out
    while started_ticks(child) == began and time.monotonic() < give_up_s:
        time.sleep(0.01)
    assert started_ticks(child) != began


def test_an_ended_process_is_told_from_a_running_one() -> None:
    with LineProcess(
        [sys.executable, "-c", "print('why', flush=True); import sys; sys.stdin.read()"], merge_stderr=True
    ) as child:
        child.line(60)
        child.check_running()
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait(60)
        with pytest.raises(ProcessError, match=r"ended early; it said:\n  . why"):
            child.check_running()
        assert started_ticks(child.process.pid) is None
