"""Pure: the batches of one epoch. A function of data, seed and epoch alone, so that a killed run can take up where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.pairs import FloatArray, Rows, all_pairs, clear_of_noise

PADDING_WORTH_SPLITTING = 1.5
"""Padded tokens over real ones from which a batch is encoded in parts."""
PART_PROMPTS = 32


@dataclass(frozen=True)
class Batch:
    """Prompts to encode and the pairs among them.

    rows: int64[batch], rows of the training examples. longer, shorter: int64[pairs], indices into `rows`.
    """

    rows: Rows
    longer: Rows
    shorter: Rows


def in_batch_pairs(
    lengths: FloatArray,
    token_counts: npt.NDArray[np.int64],
    *,
    batch_prompts: int,
    bucket_batches: int,
    min_gap: float,
    seed: int,
    epoch: int,
    noise: FloatArray | None = None,
    noise_gap: float = 0.0,
) -> list[Batch]:
    """Every admissible pair inside each batch of prompts of similar size.

    lengths: float[n], response tokens. token_counts: int64[n], prompt tokens, only used to keep padding small.
    noise: float[n], standard deviation of log tokens between repeats; pairs less than `noise_gap` such deviations apart are left out.
    Prompts are shuffled, cut into buckets of `bucket_batches` batches, sorted by size within a bucket, and the batches shuffled
    again. Batches without any admissible pair are left out.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    bucket = batch_prompts * bucket_batches
    batches: list[Batch] = []
    for start in range(0, len(order), bucket):
        members = order[start : start + bucket]
        members = members[np.argsort(token_counts[members], kind="stable")]
        for first in range(0, len(members), batch_prompts):
            rows = members[first : first + batch_prompts]
            longer, shorter = all_pairs(lengths[rows], min_gap)
            if noise is not None and noise_gap:
                clear = clear_of_noise(lengths[rows], noise[rows], longer, shorter, noise_gap)
                longer, shorter = longer[clear], shorter[clear]
            if len(longer):
                batches.append(Batch(rows, longer, shorter))
    return [batches[index] for index in rng.permutation(len(batches))]


def file_pairs(pairs: Sequence[tuple[int, int]], *, batch_pairs: int, seed: int, epoch: int) -> list[Batch]:
    """Sampled pairs in random order, `batch_pairs` at a time, both sides encoded. pairs: rows, the longer first."""
    order = np.random.default_rng((seed, epoch)).permutation(len(pairs))
    table = np.asarray(pairs, dtype=np.int64)[order]
    batches: list[Batch] = []
    for start in range(0, len(table), batch_pairs):
        part = table[start : start + batch_pairs]
        count = len(part)
        batches.append(Batch(part.T.reshape(-1), np.arange(count), np.arange(count, 2 * count)))
    return batches


def parts_of_similar_size(token_counts: Sequence[int]) -> list[Rows]:
    """Rows of a batch to be encoded together: all of them, or the batch sorted and cut where padding would cost more than it saves.

    token_counts: prompt tokens of each row. The gradient is the same, since nothing in an encoder looks across a batch. Sampled pairs come
    in no order, and padded to the longest of 256 prompts they cost several times their tokens.
    """
    counts = np.asarray(token_counts, dtype=np.int64)
    rows = np.arange(len(counts))
    if counts.max() * len(counts) <= PADDING_WORTH_SPLITTING * counts.sum():
        return [rows]
    return np.array_split(np.argsort(counts, kind="stable"), -(-len(rows) // PART_PROMPTS))
