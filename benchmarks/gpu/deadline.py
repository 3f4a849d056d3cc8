"""A child process with a deadline, ended for certain together with everything that it started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks.stamp import REPOSITORY

STOP_S = 10.0
"""For an orderly end: a part stops its sidecar and its callers and removes its folder."""


def run_until(command: Sequence[str], deadline_s: float, environment: Mapping[str, str]) -> str | None:
    """Run it in the repository's root, its standard output on our standard error. Returns None, or how it failed."""
    # A session of its own: its children have the same process group, and a kill reaches them all.
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=dict(environment), stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
    )
    try:
        code = process.wait(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        return f"not done after {deadline_s:.0f} s"
    finally:
        _end(process)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else None


def _end(process: subprocess.Popen[bytes]) -> None:
    # To the child alone, which ends its own children in order: told together with it, they would be gone under its hands.
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_S)
    # Whoever of the group did not listen, or was left behind by a crash.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
