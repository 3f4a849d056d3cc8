"""The one owner of signals while the server serves: SIGTERM and SIGINT stop it, a second one cuts that short, SIGHUP reloads."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_log = logging.getLogger(__name__)


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
