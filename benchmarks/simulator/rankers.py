"""Who estimates response lengths: an oracle, or a ranker that is right to a given degree and honest about the rest."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri

from benchmarks.bench_vllm.oracle_ranker import quantiles_of
from benchmarks.simulator.remaining import Z90
from benchmarks.simulator.request import Estimate


def oracle(lengths: Sequence[int]) -> list[Estimate]:
    """It knows every length."""
    return [Estimate(quantile, length, length) for quantile, length in zip(quantiles_of(lengths), lengths, strict=True)]


def ranker_of_tau(lengths: Sequence[int], tau: float, seed: int) -> list[Estimate]:
    """A ranker with a Kendall tau-b of about `tau`, 0 to below 1, against the lengths, whose expected tokens are calibrated.

    Lengths and scores are a Gaussian copula: its tau is 2/π × asin of the correlation. Ties among the lengths are why the tau-b that is
    reached may differ by a hundredth.
    """
    correlation = math.sin(math.pi / 2 * tau)
    rest = math.sqrt(1 - correlation**2)
    noise = np.random.default_rng(seed).standard_normal(len(lengths))
    scores = correlation * ndtri(np.asarray(quantiles_of(lengths))) + rest * noise
    ascending = np.sort(np.asarray(lengths))
    # Of a length given its score: normal around correlation × score, with what noise leaves open as its spread.
    median = _lengths_at(ascending, correlation * scores)
    p90 = _lengths_at(ascending, correlation * scores + rest * Z90)
    return [Estimate(*row) for row in zip(ndtr(scores).tolist(), median, p90, strict=True)]


def _lengths_at(ascending: np.ndarray, z: np.ndarray) -> list[float]:
    places = (ndtr(z) * len(ascending)).astype(int)
    found: list[float] = ascending[np.minimum(places, len(ascending) - 1)].astype(float).tolist()
    return found
