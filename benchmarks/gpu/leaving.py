"""How a run is ended from outside: once, and in order."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_leave() -> Iterator[None]:
    """These signals raise SystemExit, 128 and their number, so that whatever is cleaned up on the way out is.

    Only the first does: to end a child takes its time, and a terminal that goes tends to say so more than once. One that was ignored
    from the start stays so: nohup ignores SIGHUP.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled = [number for number, handler in before.items() if handler is not signal.SIG_IGN]

    def leave(number: int, _: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for number in handled:
            signal.signal(number, leave)
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
