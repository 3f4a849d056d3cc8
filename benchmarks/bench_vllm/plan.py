"""Which arms run at which loads, and in which order, so that a gathering that is stopped has something of everything."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.bench_vllm.arms import ARM_NAMES

BURST = "burst"
"""All requests at once. The other loads are arrivals as a share of what the engine can do; at 1.0 and above a queue builds up."""

_THREE = ("equal", "ours", "oracle")

PLAN: dict[str, tuple[str, ...]] = {
    "1.0": ARM_NAMES,
    "1.2": ARM_NAMES,
    "0.3": _THREE,
    BURST: ("equal", "ours", "ours-shortest", "oracle"),
    "0.7": _THREE,
    "1.5": _THREE,
}
"""load → arms. Loads in the order in which they run: first those that say most."""

LOADS = tuple(PLAN)


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
