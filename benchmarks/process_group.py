"""A child process in a group of its own, ended for certain together with everything that it started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

STOP_S = 10.0
"""For an orderly end: a part stops its sidecar and its callers and removes its folder."""


@contextlib.contextmanager
def process_group(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], stdout: int, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run it in this folder, without input. At the end it is told to go, and whatever is left of its group then is killed."""
    # A session of its own: its children have the same process group, and a kill reaches them all.
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # To the child alone, which ends its own children in order: told together with it, they would be gone under its hands.
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_S)
        # Whoever of the group did not listen, or was left behind by a crash.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
