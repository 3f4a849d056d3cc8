"""Which prompts train, which choose the checkpoint, which are opened once at the end. By hash, near-duplicates together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

Rows = npt.NDArray[np.int64]

SHINGLE_WORDS = 3
PERMUTATIONS = 64
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Split:
    """Row numbers of the three parts, each in rising order. Every row is in exactly one."""

    train: Rows
    validation: Rows
    test: Rows


def split_by_hash(prompts: Sequence[str], *, validation_share: float, test_share: float, similarity: float) -> Split:
    """Split prompts so that neither a prompt nor a near-duplicate of it is on two sides.

    similarity: Jaccard similarity of word triples, numbers masked, from which two prompts belong together; 0 switches it off.
    A group falls where the smallest hash of its prompts falls, so adding other prompts does not move it.
    """
    groups = near_duplicates(prompts, similarity) if similarity else np.arange(len(prompts))
    draw = np.array([_unit_hash(prompt) for prompt in prompts])
    group_draw = np.full(int(groups.max()) + 1, np.inf)
    np.minimum.at(group_draw, groups, draw)
    # The smallest of k uniform draws is not uniform; hash it once more, or large groups would all land at the low end.
    place = np.array([_unit_hash(repr(value)) for value in group_draw])[groups]
    rows = np.arange(len(prompts))
    is_test = place < test_share
    is_validation = ~is_test & (place < test_share + validation_share)
    return Split(train=rows[~is_test & ~is_validation], validation=rows[is_validation], test=rows[is_test])


def near_duplicates(prompts: Sequence[str], similarity: float) -> Rows:
    """Group number of every prompt: connected components of MinHash neighbours. Returns int64[n]."""
    index = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
    left: list[int] = []
    right: list[int] = []
    for row, prompt in enumerate(tqdm(prompts, desc="grouping near-duplicates", unit=" prompts", disable=len(prompts) < 5000)):
        sketch = _sketch(prompt)
        for other in index.query(sketch):
            left.append(row)
            right.append(other)
        index.insert(row, sketch)
    edges = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(prompts), len(prompts)))
    groups: Rows = connected_components(edges, directed=False)[1].astype(np.int64)
    return groups


def seen_before(prompts: Sequence[str], known: Sequence[str], similarity: float) -> npt.NDArray[np.bool_]:
    """Which prompts are among `known`, or near-duplicates of one of them. Returns bool[n]."""
    exact = set(known)
    seen: npt.NDArray[np.bool_] = np.array([prompt in exact for prompt in prompts])
    if not similarity:
        return seen
    index = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)
    for row, prompt in enumerate(tqdm(known, desc="indexing known prompts", unit=" prompts", disable=len(known) < 5000)):
        index.insert(row, _sketch(prompt))
    near: npt.NDArray[np.bool_] = np.array([bool(index.query(_sketch(prompt))) for prompt in prompts])
    return seen | near


def _sketch(prompt: str) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS)
    sketch.update_batch(_shingles(prompt))
    return sketch


def _shingles(prompt: str) -> list[bytes]:
    words = _NUMBER.sub("#", prompt.lower()).split()
    return [" ".join(words[start : start + SHINGLE_WORDS]).encode() for start in range(max(len(words) - SHINGLE_WORDS + 1, 1))]


def _unit_hash(text: str) -> float:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
