"""A part of the GPU benchmark with a deadline, see process_group."""

import signal
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks.process_group import process_group
from benchmarks.stamp import REPOSITORY


def run_until(command: Sequence[str], deadline_s: float, environment: Mapping[str, str]) -> str | None:
    """Run it in the repository's root, its standard output on our standard error. Returns None, or how it failed."""
    with process_group(command, REPOSITORY, environment, stdout=2) as process:
        try:
            code = process.wait(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            return f"not done after {deadline_s:.0f} s"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}" if code else None
