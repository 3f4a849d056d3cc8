"""How the hook tells of its own bugs: where, once a minute at most, and never with the exception's text, which may quote a prompt."""

import logging
import time
import traceback
from collections.abc import Callable

TELL_INTERVAL_S = 60.0


class FaultLog:
    """Tells one logger. A bug that every request meets costs one line a minute."""

    def __init__(self, logger: logging.Logger, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._log = logger
        self._monotonic_s = monotonic_s
        self._told_at_s: float | None = None
        self._untold = 0

    def tell(self, error: Exception) -> None:
        """Log the kind of `error` and the frames it came through, or only count it."""
        now_s = self._monotonic_s()
        if self._told_at_s is not None and now_s - self._told_at_s < TELL_INTERVAL_S:
            self._untold += 1
            return
        frames = "".join(traceback.format_tb(error.__traceback__))
        kind = type(error).__name__
        self._log.error("PARS hook: a bug: %s (%d more since the last such line)\n%s", kind, self._untold, frames)
        self._told_at_s, self._untold = now_s, 0
