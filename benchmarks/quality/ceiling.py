"""How well any ranker that sees only the prompt could do: the noise ceiling, from repeated answers or from many models' answers.

A ceiling is an estimate, and `how` says of what. It must be judged on the prompts that the ranker is judged on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from trainer.intervals import COVERAGE
from trainer.model_effects import fit_model_effects
from trainer.records import Records

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESAMPLES = 200
"""Bootstrap over prompts. Fewer than for a ranker's tau: a resample here costs a tau for every model."""
SPLITS = 20


@dataclass(frozen=True)
class Ceiling:
    """value: tau-b. low, high: bootstrap interval over prompts. how: what was set against what."""

    value: float
    low: float
    high: float
    how: str


def of_single_response(target: FloatArray, repeats: FloatArray, *, seed: int = 0, resamples: int = RESAMPLES) -> Ceiling:
    """Of a row judged against one answer to each prompt: the tau of a ranker that knows what the prompt makes its answers have in common.

    target: float[n]. repeats: float[n, k], k >= 2, further answers to the same prompts, in tokens. With r = sin(π τ / 2) (Greiner 1909),
    the correlation of the target with what it shares with the repeats is its mean r with them over the square root of their mean r with
    each other (correction for attenuation, Spearman 1904). A mean of the repeats in its place would be noisy, and its tau too low.
    """
    pairs = list(combinations(range(repeats.shape[1]), 2))

    def value(rows: IntArray) -> float:
        with_target = np.mean([_greiner(_tau_b(target[rows], repeats[rows, one])) for one in range(repeats.shape[1])])
        among = np.mean([_greiner(_tau_b(repeats[rows, one], repeats[rows, other])) for one, other in pairs])
        if with_target <= 0 or among <= 0:
            return 0.0
        return float(2 / np.pi * np.arcsin(min(with_target / np.sqrt(among), 1.0)))

    how = f"tau of a perfect ranker, from how well the response agrees with {repeats.shape[1]} others to the same prompt"
    return _with_interval(value, len(target), how, seed, resamples)


def between_halves(records: Records, *, splits: int = SPLITS, seed: int = 0, resamples: int = RESAMPLES) -> Ceiling:
    """Split-half reliability of the typical length: random halves of the models, each half's typical length against the other's.

    Mean over `splits` draws of halves. Raises ValueError with fewer than two models, or when no prompt was answered in both halves.
    """
    halves, models = _half_typicals(records, splits, seed)
    how = f"typical length by one half of {models} models against that by the other, mean over {len(halves)} splits"
    return _with_interval(lambda rows: _mean_tau(halves, rows), len(halves[0][0]), how, seed, resamples)


def of_typical(records: Records, *, splits: int = SPLITS, seed: int = 0, resamples: int = RESAMPLES) -> Ceiling:
    """Of a row judged against the typical length over all models: `between_halves`, stepped up to all of them.

    Half of the models are noisier than all. With r = sin(π τ / 2) (Greiner 1909, exact for a Gaussian copula), the reliability of all
    models is 2 r / (1 + r) (Spearman-Brown), the correlation of a perfect ranker with the typical length its square root, and its tau
    2 / π · arcsin of that. A perfect ranker knows what the prompt makes all models do; its tau with one sample of models is below 1.
    """
    halves, models = _half_typicals(records, splits, seed)
    how = f"tau of a perfect ranker, stepped up from the agreement of halves of {models} models, mean over {len(halves)} splits"
    return _with_interval(lambda rows: stepped_up(_mean_tau(halves, rows)), len(halves[0][0]), how, seed, resamples)


def stepped_up(tau_between_halves: float) -> float:
    """The formula of `of_typical`. Halves that do not agree at all leave nothing to be ranked."""
    r = np.sin(np.pi / 2 * max(tau_between_halves, 0.0))
    return float(2 / np.pi * np.arcsin(np.sqrt(2 * r / (1 + r))))


def _greiner(tau: float) -> float:
    return float(np.sin(np.pi / 2 * tau))


def _half_typicals(records: Records, splits: int, seed: int) -> tuple[list[tuple[FloatArray, FloatArray]], int]:
    """For each split, the typical log lengths float[n] by either half, NaN where no model of the half answered; number of models."""
    logs = _log_matrix(records)
    models = logs.shape[1]
    if models < 2:
        raise ValueError("halves need at least two models")
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(splits):
        order = rng.permutation(models)
        halves.append((_typical(logs[:, order[: models // 2]]), _typical(logs[:, order[models // 2 :]])))
    shared = [half for half in halves if (np.isfinite(half[0]) & np.isfinite(half[1])).sum() >= 2]
    if not shared:
        raise ValueError("no two prompts were answered in both halves of the models")
    return shared, models


def _mean_tau(halves: list[tuple[FloatArray, FloatArray]], rows: IntArray) -> float:
    taus = []
    for one, other in halves:
        both = rows[np.isfinite(one[rows]) & np.isfinite(other[rows])]
        taus.append(_tau_b(one[both], other[both]))
    return float(np.mean(taus))


def _log_matrix(records: Records) -> FloatArray:
    """float[prompts, models]: mean log tokens of a model's answers to a prompt, NaN where it gave none."""
    _, prompt_of = np.unique(np.asarray(records.prompt, dtype=object), return_inverse=True)
    _, model_of = np.unique(np.asarray(records.model, dtype=object), return_inverse=True)
    shape = (int(prompt_of.max()) + 1, int(model_of.max()) + 1)
    total, answers = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (prompt_of, model_of), np.log(records.response_tokens))
    np.add.at(answers, (prompt_of, model_of), 1)
    return np.asarray(np.divide(total, answers, out=np.full(shape, np.nan), where=answers > 0))


def _typical(logs: FloatArray) -> FloatArray:
    """Log of the typical length, float[prompts], NaN where no model answered: the two-way model of trainer/model_effects.py."""
    typical = np.full(len(logs), np.nan)
    answered = np.isfinite(logs)
    some = answered.any(axis=1)
    if not some.any():
        return typical
    prompt_of, model_of = np.nonzero(answered[some])
    effects = fit_model_effects(logs[some][answered[some]], prompt_of, model_of)
    typical[some] = np.bincount(prompt_of, logs[some][answered[some]] - effects[model_of]) / np.bincount(prompt_of)
    return typical


def _with_interval(tau: Callable[[IntArray], float], prompts: int, how: str, seed: int, resamples: int) -> Ceiling:
    """tau: of the given rows, which may repeat. Percentile bootstrap over prompts, as in trainer/intervals.py."""
    rng = np.random.default_rng(seed)
    drawn = [tau(rng.integers(0, prompts, size=prompts)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Ceiling(tau(np.arange(prompts)), float(low), float(high), how)


def _tau_b(a: FloatArray, b: FloatArray) -> float:
    """A constant side, or fewer than two rows, has no order: 0."""
    if len(a) < 2:
        return 0.0
    tau = float(kendalltau(a, b, variant="b").statistic)
    return 0.0 if np.isnan(tau) else tau
