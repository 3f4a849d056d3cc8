"""Pure: the worst mistakes of a ranker, as pairs of prompts that a person can look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

LEAST_RATIO = 2.0
"""Only pairs where one response is at least this many times the other: closer ones are mistakes of little weight."""
LEAST_WRONG = 0.1
"""In standard deviations of the score: below it two prompts are rather tied than in the wrong order."""


@dataclass(frozen=True)
class WrongPair:
    """longer, shorter: rows of the prompts with the longer and the shorter response. wrong_by: how much higher the shorter one is
    scored, in standard deviations of all scores."""

    longer: int
    shorter: int
    wrong_by: float


def worst_pairs(scores: FloatArray, lengths: FloatArray, *, count: int = 10) -> list[WrongPair]:
    """The pairs in the wrongest order, the worst first; each prompt in one pair at most, or one outlier would fill the list.

    scores, lengths: float[n]. Fewer than `count`, or none, when fewer pairs are in the wrong order.
    """
    spread = float(scores.std())
    order = np.argsort(lengths, kind="stable")
    pairs: list[WrongPair] = []
    while spread > 0 and len(pairs) < count and len(order):
        ordered = lengths[order]
        # The highest score up to each length, and which row has it.
        highest = np.maximum.accumulate(scores[order])
        is_new = np.concatenate(([True], highest[1:] > highest[:-1]))
        holder = np.maximum.accumulate(np.where(is_new, np.arange(len(order)), 0))
        reach = np.searchsorted(ordered, ordered / LEAST_RATIO, side="right")  # how many rows are short enough, for each row
        wrong_by = np.where(reach > 0, highest[np.maximum(reach - 1, 0)] - scores[order], -np.inf)
        worst = int(wrong_by.argmax())
        if wrong_by[worst] < LEAST_WRONG * spread:
            break
        partner = int(holder[reach[worst] - 1])
        pairs.append(WrongPair(int(order[worst]), int(order[partner]), float(wrong_by[worst]) / spread))
        order = np.delete(order, [worst, partner])
    return pairs
