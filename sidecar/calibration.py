"""From a score to tokens and a quantile: piecewise linear maps through the knots the trainer fitted (`pars.v1.Calibration`)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pars.v1 import bundle_pb2

Values = npt.NDArray[np.float32]


class Calibrator:
    """Applies one Calibration message. Raises ValueError, saying which list is wrong, for knots that are not a calibration."""

    def __init__(self, calibration: bundle_pb2.Calibration) -> None:
        self._scores = _knots("scores", calibration.scores)
        self._quantiles = _knots("quantiles", calibration.quantiles)
        self._expected = _knots("expected_tokens", calibration.expected_tokens)
        self._p90 = _knots("expected_tokens_p90", calibration.expected_tokens_p90)
        counts = {len(self._scores), len(self._quantiles), len(self._expected), len(self._p90)}
        if len(counts) > 1:
            raise ValueError(f"the four lists must have one length, got lengths {sorted(counts)}")
        if len(self._scores) < 2:
            raise ValueError(f"at least 2 knots are needed, got {len(self._scores)}")
        if np.any(np.diff(self._scores) <= 0):
            raise ValueError("scores must be strictly increasing")
        for name, values in (
            ("quantiles", self._quantiles),
            ("expected_tokens", self._expected),
            ("expected_tokens_p90", self._p90),
        ):
            if np.any(np.diff(values) < 0):
                raise ValueError(f"{name} must never decrease")
        if self._quantiles[0] < 0 or self._quantiles[-1] > 1:
            raise ValueError("quantiles must lie in [0, 1]")
        if self._expected[0] < 0:
            raise ValueError("expected_tokens must not be negative")
        if np.any(self._p90 < self._expected):
            raise ValueError("expected_tokens_p90 must not be below expected_tokens")

    def apply(self, scores: npt.NDArray[np.floating[Any]]) -> tuple[Values, Values, Values]:
        """Return (quantile, expected_tokens, expected_tokens_p90), each float32[n], for scores float[n].

        Linear between knots; outside, the end value holds. The 90th percentile is never below the median, rounding included.
        """
        quantiles = np.interp(scores, self._scores, self._quantiles).astype(np.float32)
        expected = np.interp(scores, self._scores, self._expected).astype(np.float32)
        p90 = np.interp(scores, self._scores, self._p90).astype(np.float32)
        return quantiles, expected, np.maximum(p90, expected)


def _knots(name: str, values: Sequence[float]) -> npt.NDArray[np.float64]:
    knots = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(knots)):
        raise ValueError(f"{name} must be finite")
    return knots
