"""A value made from files that others replace while we run, such as certificates and tokens.

It is made again when its files change. A change that cannot be used leaves the value as it was: a key that is half written must
not close a server that was open.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from sidecar.errors import CredentialsError

Value = TypeVar("Value")
Signature = tuple[tuple[int, int, int, int] | None, ...]

UNSETTLED_NS = 100_000_000
"""A file changed less than this ago may change again without looking different: file times move in steps of some milliseconds."""

_log = logging.getLogger(__name__)


class Reread(Generic[Value]):
    """Safe to share between threads. Costs a stat per file at each look, and the reading only after a change."""

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        read: Callable[[], Value],
        *,
        interval_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` makes the value; its CredentialsError is raised here, and later only logged. interval_s: between two looks."""
        self._what = what
        self._paths = tuple(paths)
        self._read = read
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = self._settled(_signature(self._paths))
        self._value = read()
        self._problem = ""
        self._next_look_s = clock() + interval_s

    def current(self) -> Value:
        """The value of the files as they are now, or as they last were when they could be used."""
        now_s = self._clock()
        if now_s < self._next_look_s:
            return self._value
        with self._lock:
            self._next_look_s = now_s + self._interval_s
            self._look()
            return self._value

    def _look(self) -> None:
        signature = _signature(self._paths)
        if signature == self._seen:
            return
        value, problem = self._value, ""
        try:
            value = self._read()
        except CredentialsError as error:
            problem = str(error)
        if _signature(self._paths) != signature:
            return  # Somebody is writing. The next look sees more.
        self._seen = self._settled(signature)
        if problem and problem != self._problem:
            _log.error("%s: what was read before stays in use: %s", self._what, problem)
        elif value != self._value or (self._problem and not problem):
            _log.info("%s: read again", self._what)
        self._value, self._problem = value, problem

    def _settled(self, signature: Signature) -> Signature | None:
        """The signature, or None, which equals no other, while the files may still change unseen."""
        newest_ns = max((about[0] for about in signature if about), default=0)
        return signature if newest_ns + UNSETTLED_NS < time.time_ns() else None


def _signature(paths: Sequence[Path]) -> Signature:
    return tuple(_about(path) for path in paths)


def _about(path: Path) -> tuple[int, int, int, int] | None:
    # The time of change first: unlike the time of modification nobody can set it back, and it moves with permissions too.
    try:
        found = os.stat(path)  # noqa: PTH116 - half the cost of Path.stat
    except OSError:
        return None
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino
