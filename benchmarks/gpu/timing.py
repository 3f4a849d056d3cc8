"""One call, again and again: how long it takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measurement import percentile

WARM_UP_CALLS = 10
"""Kernels are loaded on first use, and a CUDA graph is captured in the third run."""

LEAST_CALLS = 20
"""However long they take, and with a bound: see MOST_OVERRUN."""

MOST_OVERRUN = 10
"""Times the seconds asked for; then LEAST_CALLS is not waited for."""


@dataclass(frozen=True, slots=True)
class Timing:
    """calls: that were timed, after the warm-up."""

    calls: int
    p50_ms: float
    p99_ms: float
    mean_ms: float


def timed(call: Callable[[int], object], seconds: float, *, warm_up_calls: int = WARM_UP_CALLS) -> Timing:
    """Time `call(number)` for `seconds`, one after the other on this thread; number counts up, so that inputs can take turns."""
    for number in range(warm_up_calls):
        call(number)
    took_ms: list[float] = []
    begin_s = ended_s = time.perf_counter()
    while (spent_s := ended_s - begin_s) < seconds or (len(took_ms) < LEAST_CALLS and spent_s < MOST_OVERRUN * seconds):
        began_s = time.perf_counter()
        call(len(took_ms))
        ended_s = time.perf_counter()
        took_ms.append((ended_s - began_s) * 1e3)
    p50_ms, p99_ms = percentile(took_ms, 50), percentile(took_ms, 99)
    assert p50_ms is not None, "bug in ours: nothing was timed"
    assert p99_ms is not None
    return Timing(len(took_ms), p50_ms, p99_ms, sum(took_ms) / len(took_ms))
