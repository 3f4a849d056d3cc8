"""A child process with a deadline, ended for certain together with everything that it started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks.stamp import REPOSITORY

STOP_S = 10.0
"""For an orderly end, so that a sidecar can go before it is killed."""


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
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_S)
    # Whoever of the group did not listen.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
