"""Which arms run at which loads, and in which order, so that a gathering that is stopped has something of everything."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.bench_vllm.arms import ARM_NAMES

BURST = "burst"
"""All requests at once. The other loads are arrivals as a share of what the engine can do; at 1.0 and above a queue builds up."""

LASTING = "1.2-lasting"
"""1.2 for minutes. Above what the engine can do the queue grows as long as requests come, so how long they do decides what order brings;
1.2 itself is a rush of less than a minute."""

REQUESTS = 400
"""Of a run, where REQUESTS_AT does not say otherwise."""

REQUESTS_AT: dict[str, int] = {"1.0": 2_000, LASTING: 2_000, BURST: 2_000, "0.3": 200}

STARTS = 3
"""Repetitions: engine starts of each arm at each load."""

_THREE = ("equal", "ours", "oracle")
_FOUR = ("equal", "ours", "ours-shortest", "oracle")
_IN_A_RUSH = tuple(arm for arm in ARM_NAMES if arm != "ours-fixed")
"""A rush is too short for the window to grow: there `ours-fixed` would be `ours` once more."""

PLAN: dict[str, tuple[str, ...]] = {
    "1.0": _THREE,
    "1.2": _IN_A_RUSH,
    LASTING: (*_FOUR, "ours-fixed"),
    "0.3": _THREE,
    BURST: _FOUR,
    "0.7": _THREE,
    "1.5": _THREE,
}
"""load → arms. Loads in the order in which they run: first those that say most. The arms that are no more than a comparison run at one."""

LOADS = tuple(PLAN)


def multiple(load: str) -> float | None:
    """Arrivals as a share of what the engine can do. None: all at once."""
    return None if load == BURST else float(load.partition("-")[0])


def by_rate(load: str) -> tuple[float, str]:
    """A key to sort loads by: the slowest arrivals first, a burst last."""
    its_multiple = multiple(load)
    return float("inf") if its_multiple is None else its_multiple, load


def name_of(load: str) -> str:
    """For people: "1.2x", "1.2x lasting", "burst"."""
    its_multiple = multiple(load)
    return load if its_multiple is None else " ".join([f"{its_multiple:g}x", *load.split("-")[1:]])


class Planned(NamedTuple):
    """One run: one engine start. repetition: from 1; each has requests of its own."""

    arm: str
    load: str
    repetition: int

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.load}-{self.repetition}"


def planned(arms: Sequence[str], loads: Sequence[str], repetition: int) -> Iterator[Planned]:
    """The runs of one repetition, those of `arms` and `loads` alone.

    There and back over the arms, so that a machine that slowly fills up favours nobody.
    """
    for load, its_arms in PLAN.items():
        if load in loads:
            chosen = [arm for arm in its_arms if arm in arms]
            for arm in chosen if repetition % 2 else chosen[::-1]:
                yield Planned(arm, load, repetition)
