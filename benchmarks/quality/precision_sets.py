"""The prompts that precisions are compared on: held out from the ranker, the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.model_effects import Examples, to_examples
from trainer.recipe import Recipe, RecordSource
from trainer.run import split_examples

FloatArray = npt.NDArray[np.float64]

MIXED = "mixed"
"""Name of the set that holds some of each source the ranker learned from: short tasks, mathematics, multiple choice, chats."""

OTHERS, SMALLEST_SET = "other_zero_shot", 300
"""Zero-shot sets with fewer held-out prompts than this count as one: on a few dozen, chance moves tau by more than is looked for."""


@dataclass(frozen=True)
class HeldOut:
    """One set. typical_tokens, sampled_tokens: float[prompts], as in Examples."""

    name: str
    prompts: list[str]
    typical_tokens: FloatArray
    sampled_tokens: FloatArray


def held_out(recipe: Recipe, *, zero_shot_prompts: int, own_prompts: int) -> list[HeldOut]:
    """A set for each source that the recipe never learns from, small ones together, and one of all that it does learn from.

    zero_shot_prompts, own_prompts: at most so many of each source's test part, chosen by hash. Sources are split one by one, which is
    faster than all at once and differs only where near-duplicates connect two of them.
    """
    unseen = {source.name: _some(source, recipe, zero_shot_prompts) for source in recipe.zero_shot}
    small = [examples for examples in unseen.values() if len(examples) < SMALLEST_SET]
    return [
        *(_as_set(name, [examples]) for name, examples in unseen.items() if len(examples) >= SMALLEST_SET),
        *([_as_set(OTHERS, small)] if small else []),
        _as_set(MIXED, [_some(source, recipe, own_prompts) for source in recipe.train]),
    ]


def _some(source: RecordSource, recipe: Recipe, at_most: int) -> Examples:
    test = split_examples(to_examples(source.load(), seed=recipe.config.seed), recipe.config).test
    order = sorted(range(len(test)), key=lambda row: hashlib.sha256(test.prompt[row].encode("utf-8", "surrogatepass")).digest())
    return test.take(np.array(order[:at_most], dtype=np.int64))


def _as_set(name: str, parts: Sequence[Examples]) -> HeldOut:
    return HeldOut(
        name=name,
        prompts=[prompt for part in parts for prompt in part.prompt],
        typical_tokens=np.concatenate([part.typical_tokens for part in parts]),
        sampled_tokens=np.concatenate([part.sampled_tokens for part in parts]),
    )
