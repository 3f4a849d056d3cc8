"""Who goes first where cores are short. Linux counts niceness by thread, and a thread begins with that of the one that starts it."""

import contextlib
import os
import sys
import threading

NICENESS = 5
"""Of model threads, on top of the process's. As nice as the event loop, they keep it waiting for a core when all are busy: measured at
three times capacity on two cores, the n-gram tier's answers then took 40 ms instead of 3, and fewer of the encoder's came in time."""


def step_back() -> None:
    """Let the event loop's thread go before this one, and before those that this one starts. Needs no right."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):  # a sandbox may forbid it; scoring goes on as it is
            os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICENESS, 19))
