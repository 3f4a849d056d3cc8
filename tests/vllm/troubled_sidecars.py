"""Sidecars that work until trouble befalls them, and what a hook may count from then on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from quantile_ranker import QuantileRanker, RankerProcess

Befall = Callable[[], None]


class Trouble(NamedTuple):
    sidecar: Callable[[str], AbstractContextManager[Befall]]
    """Address → a working sidecar there; what its context gives brings the trouble about."""
    outcomes: frozenset[str]
    """Nothing else may be counted afterwards."""


def _process(befall: Callable[[RankerProcess, Path], None], *outcomes: str) -> Trouble:
    @contextmanager
    def sidecar(address: str) -> Iterator[Befall]:
        process = RankerProcess(address)
        try:
            yield lambda: befall(process, Path(address.removeprefix("unix:")))
        finally:
            process.stop()

    return Trouble(sidecar, frozenset(outcomes))


def _answering(answer: str, *outcomes: str, delay_s: float = 0.0) -> Trouble:
    @contextmanager
    def sidecar(address: str) -> Iterator[Befall]:
        ranker = QuantileRanker(address)

        def befall() -> None:
            ranker.answer, ranker.delay_s = answer, delay_s

        try:
            yield befall
        finally:
            ranker.stop()

    return Trouble(sidecar, frozenset({*outcomes, "breaker_open"}))


def _remove_and_kill(process: RankerProcess, socket: Path) -> None:
    socket.unlink()
    process.stop()


SLOW_S = 40.0
"""Longer than every deadline of the tests."""

TROUBLES = {
    "killed": _process(lambda process, _: process.stop(), "unconnected", "unavailable"),
    # After a few vain questions the hook gives the connection up and looks for another.
    "frozen": _process(lambda process, _: process.freeze(), "deadline", "breaker_open", "unconnected"),
    # Whoever is connected stays so.
    "socket removed": _process(lambda _, socket: socket.unlink(), "scored"),
    "socket removed, then killed": _process(_remove_and_kill, "unconnected", "unavailable"),
    "slow": _answering("sane", "deadline", "unconnected", delay_s=SLOW_S),
    "answering NaN": _answering("nan", "bad_reply"),
    "answering a quantile of -3": _answering("outside", "bad_reply"),
    "answering twice as many scores": _answering("wrong-count", "bad_reply"),
    "answering nothing": _answering("nothing", "bad_reply"),
    "overloaded": _answering("overloaded", "overloaded"),
}
