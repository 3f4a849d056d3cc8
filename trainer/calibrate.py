"""From scores to tokens: monotone maps to the median and the 90th percentile of the response length, and score quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from trainer.errors import DataError

FloatArray = npt.NDArray[np.float64]

KNOTS = 64
MIN_NEIGHBOURS, MAX_NEIGHBOURS = 10, 100
"""Prompts around a knot that its percentiles are taken over, a tenth of all within these bounds: enough for a 90th percentile, few
enough to follow a curve."""


@dataclass(frozen=True)
class CalibrationTable:
    """Knots of pars.v1.Calibration: strictly increasing scores, and what they mean."""

    scores: list[float]
    quantiles: list[float]
    expected_tokens: list[float]
    expected_tokens_p90: list[float]
    prompt_count: int


def calibrate(scores: FloatArray, tokens: FloatArray) -> CalibrationTable:
    """Fit the table on held-out prompts. scores, tokens: float[n], n >= 2, with at least two different scores.

    Knots stand at evenly spaced quantiles of the score. At each, the percentiles of `tokens` over its nearest neighbours in score;
    isotonic regression in log tokens then removes what noise turned round.
    """
    order = np.argsort(scores, kind="stable")
    ordered, ordered_tokens = scores[order], tokens[order]
    # float32, as the manifest keeps them: knots that would collapse there collapse here.
    knots = np.unique(np.quantile(ordered, np.linspace(0, 1, min(KNOTS, len(ordered)))).astype(np.float32)).astype(np.float64)
    if len(knots) < 2:
        raise DataError("cannot calibrate: all validation prompts have the same score")
    below = np.searchsorted(ordered, knots, side="left")
    through = np.searchsorted(ordered, knots, side="right")
    # Mid-ranks, so that a constant stretch maps to its middle; the ends are 0 and 1 by definition.
    quantiles = (below + through) / (2 * len(ordered))
    quantiles[0], quantiles[-1] = 0.0, 1.0
    window = min(max(MIN_NEIGHBOURS, min(MAX_NEIGHBOURS, len(ordered) // 10)), len(ordered))
    start = np.clip((below + through) // 2 - window // 2, 0, len(ordered) - window)
    around = np.log(np.stack([ordered_tokens[first : first + window] for first in start]))
    median = _increasing(np.quantile(around, 0.5, axis=1))
    # The estimate that nine tenths of new values lie below on average, however few there are; the usual one lies too low.
    p90 = np.maximum(_increasing(np.quantile(around, 0.9, axis=1, method="weibull")), median)
    return CalibrationTable(
        scores=knots.tolist(),
        quantiles=quantiles.tolist(),
        expected_tokens=np.exp(median).tolist(),
        expected_tokens_p90=np.exp(p90).tolist(),
        prompt_count=len(ordered),
    )


def _increasing(values: FloatArray) -> FloatArray:
    # Over the knots' positions: only their order matters, and scores may be too close to divide by their difference.
    fitted: FloatArray = IsotonicRegression(increasing=True).fit_transform(np.arange(len(values)), values)
    return fitted
