"""The sets of prompts that experiments learn from and are judged on, each split the same way for every row of a table."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import trainer
from trainer.config import TrainConfig
from trainer.errors import ConfigError
from trainer.local import LocalSource
from trainer.model_effects import Examples, to_examples
from trainer.recipe import read_recipe
from trainer.records import Records
from trainer.repeat_noise import fit_noise_curve
from trainer.run import Parts, split_examples
from trainer.split import seen_before

FloatArray = npt.NDArray[np.float64]
Sets = dict[str, dict[str, Any]]
"""Name of every set to how its files are read."""

REGISTRY = Path(__file__).with_name("datasets.toml")
RECIPES = Path(trainer.__file__).with_name("recipes")
SUBSET_SEED = 0
"""Which prompts a stated subset keeps. Not the seed of a run: all rows of a table learn from the same prompts."""


@dataclass(frozen=True)
class Subset:
    """How a set is split and how much of each part is used. A limit of 0 keeps all. transfer_prompts: held-out prompts of
    each further set that a run is judged on."""

    validation_share: float = 0.1
    test_share: float = 0.3
    train_prompts: int = 2000
    validation_prompts: int = 400
    test_prompts: int = 2000
    transfer_prompts: int = 500
    similarity: float = 0.8


@dataclass(frozen=True)
class Dataset:
    """One set, split. models: who answered, for the table.

    records: of all rows. repeats: float[test prompts, answers], where one model answered every prompt several times, else None.
    """

    name: str
    models: str
    parts: Parts
    records: Records
    repeats: FloatArray | None = None


def registry(path: Path = REGISTRY) -> Sets:
    """The sets that datasets.toml lists."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def load_records(name: str, folder: Path, sets: Sets) -> Records:
    """All rows of a set. Raises ConfigError for a name that the registry lacks."""
    if "recipe" in sets.get(name, {}):
        return read_recipe(RECIPES / f"{sets[name]['recipe']}.toml", folder).records()
    return _source(name, folder, sets).load()


def load_dataset(name: str, folder: Path, subset: Subset, sets: Sets, *, models: str = "all") -> Dataset:
    """Load and split a set. models: "all", or "seen" or "unseen" for the two halves of a multi-model set's models."""
    records = load_records(name, folder, sets)
    if models != "all":
        seen = _seen_half(records)
        records = records.take([row for row, model in enumerate(records.model) if (model in seen) == (models == "seen")])
    examples = to_examples(records)
    repeats = _repeats(name, folder, sets, examples.prompt)
    if repeats is not None:
        curve = fit_noise_curve(np.log(repeats).reshape(-1), np.repeat(np.arange(len(repeats)), repeats.shape[1]))
        examples = replace(examples, noise=curve.at(examples.typical_tokens))
    whole = split_examples(
        examples,
        TrainConfig(validation_share=subset.validation_share, test_share=subset.test_share, similarity=subset.similarity),
    )
    parts = Parts(
        _some(whole.train, subset.train_prompts),
        _some(whole.validation, subset.validation_prompts),
        _some(whole.test, subset.test_prompts),
    )
    row_of = {prompt: row for row, prompt in enumerate(examples.prompt)}
    answered_by = sorted(set(records.model))
    return Dataset(
        name=name,
        models=answered_by[0] if len(answered_by) == 1 else f"{len(answered_by)} models",
        parts=parts,
        records=records,
        repeats=None if repeats is None else repeats[[row_of[prompt] for prompt in parts.test.prompt]],
    )


def without_seen(dataset: Dataset, known: list[str], similarity: float) -> Dataset:
    """The set less the test prompts that are among `known`, or near-duplicates of one of them."""
    test = dataset.parts.test
    rows = np.nonzero(~seen_before(test.prompt, known, similarity))[0]
    return replace(
        dataset,
        parts=replace(dataset.parts, test=test.take(rows)),
        repeats=None if dataset.repeats is None else dataset.repeats[rows],
    )


def _source(name: str, folder: Path, sets: Sets, **changes: Any) -> LocalSource:
    if name not in sets:
        raise ConfigError(f"unknown set {name!r}; known: {', '.join(sets)}")
    entry = {key: value for key, value in sets[name].items() if key != "repeat_columns"} | changes
    paths = {key: folder / value if key in ("path", "prompts_path") else value for key, value in entry.items()}
    return LocalSource(**paths, name=name)


def _repeats(name: str, folder: Path, sets: Sets, prompts: list[str]) -> FloatArray | None:
    """Every answer's length, float[prompts, answers]."""
    columns = sets[name].get("repeat_columns")
    if columns is None:
        return None
    tables = [_source(name, folder, sets, tokens_column=column).load() for column in columns]
    lengths = [dict(zip(table.prompt, table.response_tokens.tolist(), strict=True)) for table in tables]
    return np.array([[length[prompt] for length in lengths] for prompt in prompts])


def _seen_half(records: Records) -> set[str]:
    ranked = sorted(set(records.model), key=lambda model: hashlib.sha256(model.encode()).digest())
    return set(ranked[: (len(ranked) + 1) // 2])


def _some(examples: Examples, at_most: int) -> Examples:
    if not at_most or len(examples) <= at_most:
        return examples
    return examples.take(np.sort(np.random.default_rng(SUBSET_SEED).permutation(len(examples))[:at_most]))
