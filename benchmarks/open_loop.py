"""What all open-loop callers share: independent callers send when they want to, whether earlier calls are answered or not."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any


def due_times_s(calls_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """When calls are due, since the beginning: Poisson arrivals, the same ones for the same seed."""
    rng, due_s = random.Random(seed), 0.0
    while (due_s := due_s + rng.expovariate(calls_per_s)) < seconds:
        yield due_s


async def start_on_time(
    begin_s: float, calls_per_s: float, seconds: float, seed: int, call: Callable[[float], Coroutine[Any, Any, None]]
) -> set[asyncio.Task[None]]:
    """Start a task for each call when it is due, late ones at once; all tasks, done or not.

    begin_s: on the monotonic clock. call: told when it was due, since begin_s.
    """
    tasks = set()
    for due_s in due_times_s(calls_per_s, seconds, seed):
        wait_s = begin_s + due_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        tasks.add(asyncio.create_task(call(due_s)))
    return tasks
