"""Where work on a call's text happens: short work on the event loop, where a hop would cost more, long work on one thread beside it.

The loop is then never held for more than a millisecond or two by one call, and the thread's backlog is bounded.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sidecar.errors import DeadlineError, NotServingError, OverloadedError

INLINE_CHARS = 4_096
"""Work up to this size stays on the loop: at about 0.3 µs a character, 1.2 ms. A thread hop costs 0.1 to 0.2 ms."""

MAX_BACKLOG_CHARS = 16 * 1024 * 1024
"""Characters that may wait for the thread: about 5 s of work. No caller of a scheduler waits longer than that."""

T = TypeVar("T")


class Lane:
    """Runs one call's text work. To be used on the event loop's thread."""

    def __init__(self, name: str, inline_chars: int = INLINE_CHARS, max_backlog_chars: int = MAX_BACKLOG_CHARS) -> None:
        self._inline_chars = inline_chars
        self._max_backlog_chars = max_backlog_chars
        self._backlog_chars = 0
        self._closed = False
        # One thread: the cores belong to the model, and long prompts may wait for each other.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    @property
    def backlog_chars(self) -> int:
        """Size of all work handed to the thread and not finished."""
        return self._backlog_chars

    async def run(self, work: Callable[[], T], chars: int, timeout_s: float) -> T:
        """Run `work`, which costs about as much as tokenizing `chars` characters, and return its result.

        Raises OverloadedError when too much text waits already, DeadlineError when the work is not done in time, NotServingError
        when the lane is closed before it has begun, and whatever `work` raises. Work whose caller has gone is dropped if it has
        not begun.
        """
        if self._closed:
            raise NotServingError("the server is stopping")
        if chars <= self._inline_chars:
            return work()
        if self._backlog_chars + chars > self._max_backlog_chars:
            raise OverloadedError("too much text is waiting to be tokenized; use the neutral priority")
        self._backlog_chars += chars
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the text could be read") from error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not the caller was cancelled but its work, by close().
            raise NotServingError("the server is stopping") from None
        finally:
            self._backlog_chars -= chars

    def close(self) -> None:
        """Take nothing more and drop what has not begun. Does not wait: one call's text is at most a few seconds of work, and nobody
        needs it."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
