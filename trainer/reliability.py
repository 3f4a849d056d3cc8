"""Pure: do expected tokens mean what they say? Bins of held-out prompts by expectation, and what their responses really had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from trainer.calibrate import CalibrationTable
from trainer.intervals import COVERAGE, Interval

FloatArray = npt.NDArray[np.float64]

BINS = 10
LEAST_PROMPTS_IN_BIN = 10
"""Fewer have no 90th percentile to speak of; a small test part gets fewer bins instead."""
PROMISED_SHARE = 0.9
"""Of the responses at most as long as the expected 90th percentile."""


@dataclass(frozen=True)
class Bin:
    """Prompts of similar expectation. All in tokens: medians, and the 10th and 90th percentile of the responses."""

    prompts: int
    expected: float
    observed: float
    expected_p90: float
    observed_p10: float
    observed_p90: float


@dataclass(frozen=True)
class Reliability:
    """bins: in rising order of expectation. covered: share of responses up to their expected 90th percentile, with the Wilson
    interval of that share."""

    bins: list[Bin]
    covered: float
    covered_interval: Interval

    @property
    def verdict(self) -> str:
        """What the share says about the expected 90th percentile."""
        if self.covered_interval.high < PROMISED_SHARE:
            return "The expected 90th percentile is too low: more responses exceed it than should."
        if self.covered_interval.low > PROMISED_SHARE:
            return "The expected 90th percentile is too high: fewer responses exceed it than should."
        return f"That agrees with the {PROMISED_SHARE:.0%} it promises, as far as this many prompts can tell."


def reliability(scores: FloatArray, tokens: FloatArray, table: CalibrationTable) -> Reliability:
    """Judge a calibration on prompts it was not made from. scores, tokens: float[n]; one real response's tokens for each prompt.

    Expectations are interpolated as the sidecar does (sidecar/calibration.py).
    """
    expected = np.interp(scores, table.scores, table.expected_tokens)
    expected_p90 = np.interp(scores, table.scores, table.expected_tokens_p90)
    # By score, which orders as the expectation does but for its flat stretches.
    bins = min(max(len(scores) // LEAST_PROMPTS_IN_BIN, 1), BINS)
    parts = np.array_split(np.argsort(scores, kind="stable"), bins)
    within = int((tokens <= expected_p90).sum())
    proportion = binomtest(within, len(tokens)).proportion_ci(confidence_level=COVERAGE, method="wilson")
    return Reliability(
        bins=[_bin(expected[part], expected_p90[part], tokens[part]) for part in parts],
        covered=within / len(tokens),
        covered_interval=Interval(float(proportion.low), float(proportion.high)),
    )


def _bin(expected: FloatArray, expected_p90: FloatArray, tokens: FloatArray) -> Bin:
    p10, median, p90 = (float(value) for value in np.quantile(tokens, [0.1, 0.5, 0.9]))
    return Bin(len(tokens), float(np.median(expected)), median, float(np.median(expected_p90)), p10, p90)
