"""How sure a figure is: percentile bootstrap over prompts (Efron 1979), which is what a new sample of traffic would change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.resampled_tau import draw_counts, resampled_tau

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 1000
COVERAGE = 0.95


@dataclass(frozen=True)
class Interval:
    """low, high: bounds that hold `COVERAGE` of the resamples."""

    low: float
    high: float


def tau_interval(scores: FloatArray, lengths: FloatArray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Interval of Kendall's tau-b. scores, lengths: float[n], n >= 2. A resample without any order counts as 0."""
    return tau_interval_over_seeds([scores], lengths, seed=seed, resamples=resamples)


def tau_interval_over_seeds(
    scores_of_seed: Sequence[FloatArray], lengths: FloatArray, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Interval of the mean tau-b of several runs on the same prompts.

    scores_of_seed: float[n] for each run. Every resample draws prompts, the same for all runs of that draw, and as many runs as there
    are, so the interval holds the luck of the seed as well.
    """
    rng = np.random.default_rng(seed)
    rows = np.empty((resamples, len(lengths)), dtype=np.int64)
    runs = np.empty((resamples, len(scores_of_seed)), dtype=np.int64)
    for index in range(resamples):
        rows[index] = rng.integers(0, len(lengths), size=len(lengths))
        runs[index] = rng.integers(0, len(scores_of_seed), size=len(scores_of_seed))
    counts = draw_counts(rows, len(lengths))
    taus = np.stack([resampled_tau(scores, lengths, counts) for scores in scores_of_seed])  # [runs, resamples]
    return percentile_interval(np.take_along_axis(taus, runs.T, axis=0).mean(axis=0))


def tau_resamples(
    orderings: Sequence[FloatArray], lengths: FloatArray, *, seed: int = 0, resamples: int = RESAMPLES
) -> FloatArray:
    """Tau-b of several orderings of the same prompts, every resample the same prompts for all: float[resamples, orderings].

    orderings: float[n] each; lengths: float[n], n >= 2. The difference of two columns is the paired bootstrap of the difference, which is
    much surer than two intervals side by side: what makes a draw of prompts hard makes it hard for both.
    """
    rows = np.random.default_rng(seed).integers(0, len(lengths), size=(resamples, len(lengths)))
    counts = draw_counts(rows, len(lengths))
    return np.stack([resampled_tau(scores, lengths, counts) for scores in orderings], axis=1)


def percentile_interval(values: FloatArray) -> Interval:
    """The interval that holds `COVERAGE` of the values, as much left out above as below. values: float[resamples]."""
    low, high = np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(float(low), float(high))


def half_width_of_no_order(prompts: int) -> float:
    """Half the 95% interval of tau around 0 for this many prompts, when scores and lengths have nothing to do with each other.

    From the exact variance 2 (2n + 5) / (9 n (n − 1)) of Kendall's tau (Kendall 1938). It says beforehand what a test part can show:
    a tau nearer to 0 than this cannot be told from none. prompts: at least 2.
    """
    return 1.96 * math.sqrt(2 * (2 * prompts + 5) / (9 * prompts * (prompts - 1)))
