"""How well scores order prompts: Kendall tau-b and pair accuracy, unfiltered first, δ-filtered second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from trainer.pairs import relative_gap

FloatArray = npt.NDArray[np.float64]

_CHUNK = 1024


@dataclass(frozen=True)
class RankMetrics:
    """tau_b: over all prompts, in [-1, 1]. pair_accuracy: share of pairs of different length put in the right order, a tie in the
    scores counting half; filtered_pair_accuracy: the same over pairs with a relative gap of at least `min_gap`. A constant score
    has tau_b 0. Accuracies are NaN-free: 0.5 when there is no pair to judge."""

    prompts: int
    tau_b: float
    pair_accuracy: float
    filtered_pair_accuracy: float
    min_gap: float

    def as_dict(self) -> dict[str, float | int]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def rank_metrics(scores: FloatArray, lengths: FloatArray, *, min_gap: float) -> RankMetrics:
    """scores, lengths: float[n], n >= 2. Arguments are not changed."""
    if scores.shape != lengths.shape or scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"need two equally long lists of at least 2, got shapes {scores.shape} and {lengths.shape}")
    tau = float(kendalltau(scores, lengths, variant="b").statistic)
    right, judged = np.zeros(2), np.zeros(2)
    for start in range(0, len(scores), _CHUNK):
        stop = start + _CHUNK
        longer = lengths[start:stop, None] > lengths[None, :]
        score_gap = scores[start:stop, None] - scores[None, :]
        credit = np.where(score_gap == 0, 0.5, score_gap > 0)
        far = longer & (relative_gap(lengths[start:stop, None], lengths[None, :]) >= min_gap)
        right += credit[longer].sum(), credit[far].sum()
        judged += longer.sum(), far.sum()
    accuracy = np.divide(right, judged, out=np.full(2, 0.5), where=judged > 0)
    return RankMetrics(len(scores), 0.0 if np.isnan(tau) else tau, float(accuracy[0]), float(accuracy[1]), min_gap)


def metrics_by_source(
    scores: FloatArray, lengths: FloatArray, source: Sequence[str], *, min_gap: float
) -> dict[str, dict[str, float | int]]:
    """Metrics over everything under "all", and within each source that has at least two prompts."""
    names = np.asarray(source)
    result = {"all": rank_metrics(scores, lengths, min_gap=min_gap).as_dict()}
    for name in sorted(set(source)):
        rows = np.nonzero(names == name)[0]
        if len(rows) >= 2:
            result[name] = rank_metrics(scores[rows], lengths[rows], min_gap=min_gap).as_dict()
    return result
