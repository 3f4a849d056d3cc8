"""The one owner of signals: SIGTERM and SIGINT stop the server, a second one cuts that short, SIGHUP reloads.

A process that is the first of its container gets no signal it has no handler for, so there is one from the beginning.
"""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)


ENDED_BY_SIGTERM = 128 + signal.SIGTERM
"""Exit code of a process that was stopped before it served, as shells report it."""


def handle_from_the_start() -> None:
    """Until handled_signals: SIGTERM ends the process, and SIGHUP, which asks for bundles that are being read anyway, does nothing."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(ENDED_BY_SIGTERM))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class StopRequests:
    """first: the first SIGTERM or SIGINT has come. again: the second."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    again: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.contextmanager
def handled_signals(on_reload: Callable[[], None]) -> Iterator[StopRequests]:
    """Turn SIGTERM and SIGINT into events and SIGHUP into calls of on_reload while inside.

    From the second stop signal on the handlers are gone: a third kills. A SIGHUP after the first does nothing.
    """
    loop = asyncio.get_running_loop()
    requests = StopRequests()
    stopping = (signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        for number in stopping:
            loop.remove_signal_handler(number)

    def on_stop(number: signal.Signals) -> None:
        if requests.first.is_set():
            _log.warning("%s again: stopping at once", number.name)
            requests.again.set()
            restore()
        else:
            _log.info("%s: stopping", number.name)
            requests.first.set()

    def on_hangup() -> None:
        if not requests.first.is_set():
            _log.info("SIGHUP: reading the bundles again")
            on_reload()

    for number in stopping:
        loop.add_signal_handler(number, on_stop, number)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield requests
    finally:
        restore()
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload that comes too late must not look like a crash
