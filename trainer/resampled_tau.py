"""Pure: Kendall's tau-b of many resamples of the same prompts at once, which is what a bootstrap needs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Counts = npt.NDArray[np.float32]

_CHUNK = 1024
"""Prompts whose pairs with all others are held at once."""


def draw_counts(rows: npt.NDArray[np.int64], prompt_count: int) -> Counts:
    """How often each resample holds each prompt, [resamples, prompts]. rows: int64[resamples, drawn], which prompts it drew."""
    offsets = np.arange(len(rows))[:, None] * prompt_count
    counts = np.bincount((rows + offsets).ravel(), minlength=len(rows) * prompt_count)
    return counts.reshape(len(rows), prompt_count).astype(np.float32)


def resampled_tau(scores: FloatArray, lengths: FloatArray, counts: Counts) -> FloatArray:
    """Tau-b in each resample, float64[resamples]; 0 where there is no order. scores, lengths: float[n].

    A pair of prompts occurs in a resample as often as the product of their counts, and its sign is always the same. So all resamples
    share the signs of n² pairs, and a matrix product does the rest; one call of scipy's kendalltau for each resample is 1.7 s per thousand
    even for 40 prompts. The sums are of whole numbers and exact, in 32 bits as well.
    """
    balance = np.zeros(len(counts))
    for start in range(0, len(scores), _CHUNK):
        part = slice(start, start + _CHUNK)
        # The signs are the same both ways round: once within the chunk, twice against everything after it.
        for others, times in ((part, 1), (slice(start + _CHUNK, None), 2)):
            signs = np.sign(scores[part, None] - scores[None, others]) * np.sign(lengths[part, None] - lengths[None, others])
            products = counts[:, others] @ signs.astype(np.float32).T * counts[:, part]
            balance += times * products.sum(axis=1, dtype=np.float64)
    compared = np.sqrt(_untied(scores, counts) * _untied(lengths, counts))
    return np.divide(balance, compared, out=np.zeros(len(counts)), where=compared > 0)


def _untied(values: FloatArray, counts: Counts) -> FloatArray:
    """Twice the number of pairs with different values in each resample: all pairs less those within a group of equal ones."""
    order = np.argsort(values, kind="stable")
    starts = np.nonzero(np.concatenate(([True], np.diff(values[order]) > 0)))[0]
    in_group = np.add.reduceat(counts[:, order].astype(np.float64), starts, axis=1)
    untied: FloatArray = in_group.sum(axis=1) ** 2 - (in_group**2).sum(axis=1)
    return untied
