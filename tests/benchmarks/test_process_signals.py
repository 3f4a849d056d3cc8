"""A benchmark that is stopped from outside takes its children with it: real signals, real processes."""

import signal
import subprocess
import sys
import time

import pytest

from benchmarks.process_tree import started_ticks
from benchmarks.stamp import REPOSITORY

PROGRAM = """
import signal, sys
from benchmarks.leaving import signals_leave
from benchmarks.process import LineProcess
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)  # whatever the tests run under
command = [sys.executable, "-c", "print('here', flush=True); input()"]
with signals_leave(), LineProcess(command, merge_stderr=True) as child:
    child.line(60)
    print(child.process.pid, flush=True)
    child.line(60)
"""


def start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """The program, and its child's number once both are there."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_its_children_end_with_it(number: signal.Signals) -> None:
    process, child = start()
    with process:
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert started_ticks(child) is None


def test_under_nohup_it_goes_on() -> None:
    """1. SIGHUP, which is ignored 2. SIGTERM, which is what it ends of."""
    process, child = start("nohup")
    with process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert started_ticks(child) is not None
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
