"""Which prompts train, which choose the checkpoint, which are opened once at the end. By hash, near-duplicates together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from datasketch import MinHash, MinHashLSH
from tqdm import tqdm

Rows = npt.NDArray[np.int64]
Item = TypeVar("Item")

SHINGLE_WORDS = 3
PERMUTATIONS = 128
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[\u2e80-\ua4cf\uac00-\ud7af]|[^\s\u2e80-\ua4cf\uac00-\ud7af]+")
"""What stands between spaces; in scripts written without them, every character."""


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
    """Group number of every prompt, int64[n], not to be written to: prompts are together when a chain of near-duplicates connects them."""
    return _groups(tuple(prompts), similarity)


@lru_cache(maxsize=1)  # the audit and the split of one run ask for the same groups, which take seconds
def _groups(prompts: tuple[str, ...], similarity: float) -> Rows:
    index, sketches = _index(), [_sketch(prompt) for prompt in _watched(prompts, "sketching prompts")]
    group_of = list(range(len(prompts)))

    def root(row: int) -> int:
        while group_of[row] != row:
            group_of[row] = row = group_of[group_of[row]]
        return row

    for row, sketch in enumerate(_watched(sketches, "grouping near-duplicates")):
        for other in index.query(sketch):
            # Looked up before it is measured: in a cluster of templates nearly all are together already.
            if root(other) != root(row) and sketch.jaccard(sketches[other]) >= similarity:
                group_of[root(row)] = root(other)
        index.insert(row, sketch)
    _, groups = np.unique([root(row) for row in range(len(prompts))], return_inverse=True)
    groups = groups.astype(np.int64)
    groups.flags.writeable = False
    return groups


def seen_before(prompts: Sequence[str], known: Sequence[str], similarity: float) -> npt.NDArray[np.bool_]:
    """Which prompts are among `known`, or near-duplicates of one of them. Returns bool[n]."""
    exact = set(known)
    if not similarity:
        return np.array([prompt in exact for prompt in prompts], dtype=np.bool_)
    index, sketches = _index(), [_sketch(prompt) for prompt in _watched(known, "indexing known prompts")]
    for row, sketch in enumerate(sketches):
        index.insert(row, sketch)

    def is_near(prompt: str) -> bool:
        sketch = _sketch(prompt)
        return any(sketch.jaccard(sketches[row]) >= similarity for row in index.query(sketch))

    return np.array([prompt in exact or is_near(prompt) for prompt in prompts], dtype=np.bool_)


def _index() -> MinHashLSH:
    # 18 bands of 7: finds 98.5% of the pairs of similarity 0.8 and 99.9% of those of 0.87. The default bands of this library find
    # a third at 0.8. What is found by mistake is measured and dropped.
    return MinHashLSH(params=(18, 7), num_perm=PERMUTATIONS)


def _watched(items: Sequence[Item], what: str) -> Iterable[Item]:
    return tqdm(items, desc=what, unit=" prompts", disable=len(items) < 5000)


def _sketch(prompt: str) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS)
    sketch.update_batch(_shingles(prompt))
    return sketch


def _shingles(prompt: str) -> list[bytes]:
    words = _WORD.findall(_NUMBER.sub("#", prompt.lower()))
    return [
        " ".join(words[start : start + SHINGLE_WORDS]).encode("utf-8", "surrogatepass")
        for start in range(max(len(words) - SHINGLE_WORDS + 1, 1))
    ]


def _unit_hash(text: str) -> float:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
