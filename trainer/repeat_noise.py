"""How far two responses to the same prompt differ in length, from prompts that were answered more than once by the same model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

BINS = 10
LEAST_GROUPS = 20
"""Groups of repeats in one bin: fewer say little about a spread."""


@dataclass(frozen=True)
class NoiseCurve:
    """Standard deviation of log tokens between repeats, by length. log_tokens, spread: float[knots]; no knots: nothing is known."""

    log_tokens: FloatArray
    spread: FloatArray

    def at(self, lengths: FloatArray) -> FloatArray:
        """Spread at each length, float[n]; 0 where nothing is known. lengths: float[n], tokens."""
        if not len(self.log_tokens):
            return np.zeros(len(lengths))
        return np.interp(np.log(lengths), self.log_tokens, self.spread)


def fit_noise_curve(log_tokens: FloatArray, group_of: npt.NDArray[np.int64]) -> NoiseCurve:
    """Pool the variance within groups over ten bins of equally many groups, ordered by their mean.

    log_tokens: float[rows]. group_of: int64[rows]; rows of a group are responses of one model to one prompt. The variance of
    a group of k rows has k − 1 degrees of freedom, so a bin's variance is its summed squares over its summed degrees of freedom.
    """
    _, group_of, count = np.unique(group_of, return_inverse=True, return_counts=True)
    mean = np.bincount(group_of, log_tokens) / count
    squares = np.bincount(group_of, (log_tokens - mean[group_of]) ** 2)
    repeated = np.nonzero(count > 1)[0]
    bins = min(BINS, len(repeated) // LEAST_GROUPS)
    if not bins:
        return NoiseCurve(np.empty(0), np.empty(0))
    parts = np.array_split(repeated[np.argsort(mean[repeated], kind="stable")], bins)
    return NoiseCurve(
        log_tokens=np.array([mean[part].mean() for part in parts]),
        spread=np.array([np.sqrt(squares[part].sum() / (count[part] - 1).sum()) for part in parts]),
    )
