"""Fits the cheap scorer: ridge regression of log response tokens on hashed token n-grams. Seconds, not minutes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge

from pars import ngram
from trainer.evaluate import rank_metrics

FloatArray = npt.NDArray[np.float64]
TokenLists = Sequence[npt.NDArray[np.int64]]

ALPHAS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Ridge strengths tried; the values of the hashed features are small (1/sqrt of their number), so these are too."""


def fit_ngram_weights(
    token_ids: TokenLists,
    lengths: FloatArray,
    validation_token_ids: TokenLists,
    validation_lengths: FloatArray,
    bucket_count: int,
) -> ngram.Weights:
    """Weights for `pars.ngram.score`, float32[weight_count]. The ridge strength is the one with the best validation tau-b.

    token_ids: of each training prompt, cut as for the encoder. lengths: float[n], response tokens.
    """
    design = _design(token_ids, bucket_count)
    target = np.log(lengths)
    best: tuple[float, ngram.Weights] | None = None
    for alpha in ALPHAS:
        # The intercept is one of the features, so the weights are the whole model.
        fitted = Ridge(alpha=alpha, fit_intercept=False, solver="sparse_cg", tol=1e-3).fit(design, target)
        weights: ngram.Weights = fitted.coef_.astype(np.float32)
        tau = rank_metrics(score_all(validation_token_ids, weights), validation_lengths, min_gap=0.0).tau_b
        if best is None or tau > best[0]:
            best = (tau, weights)
    assert best is not None
    return best[1]


def score_all(token_ids: TokenLists, weights: ngram.Weights) -> FloatArray:
    """Scores of many prompts, float64[n], by the function that serves."""
    return np.array([ngram.score(ids, weights) for ids in token_ids])


def _design(token_ids: TokenLists, bucket_count: int) -> csr_array:
    features = [ngram.features(ids, bucket_count) for ids in token_ids]
    starts = np.concatenate(([0], np.cumsum([len(indices) for indices, _ in features])))
    indices = np.concatenate([indices for indices, _ in features])
    values = np.concatenate([values for _, values in features])
    # An index may repeat within a row; scipy adds those up, as the serving sum does.
    return csr_array((values.astype(np.float64), indices, starts), shape=(len(token_ids), ngram.weight_count(bucket_count)))
