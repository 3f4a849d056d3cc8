"""A recipe: one TOML file that says which data, which settings, and which figures a run must reach."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import TrainConfig
from trainer.errors import ConfigError, ExpectationError
from trainer.lengths import length_counter
from trainer.local import LocalSource
from trainer.records import Records


@dataclass(frozen=True)
class RecordSource:
    """A file of the recipe. `licence` is what the source states; `max_prompts` keeps that many prompts, chosen by hash (0: all).

    watched: true for a zero-shot set that settings were chosen by, which the card then says.
    """

    source: LocalSource
    licence: str = ""
    max_prompts: int = 0
    watched: bool = False
    length_unit: str = "tokens"
    length_tokenizer: str | None = None

    @property
    def name(self) -> str:
        return self.source.name or self.source.path.stem

    def load(self) -> Records:
        counter = length_counter(self.length_unit, self.length_tokenizer) if self.source.response_column else None
        records = self.source.load(counter)
        if not self.max_prompts:
            return records
        ranked = sorted(
            set(records.prompt), key=lambda prompt: hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
        )
        chosen = set(ranked[: self.max_prompts])
        return records.take([row for row, prompt in enumerate(records.prompt) if prompt in chosen])


@dataclass(frozen=True)
class Recipe:
    """train: files to learn from. zero_shot: files the ranker never learns from, judged at the end on the prompts that a run
    trained on them would hold out. expect: metric name → (low, high), such as "test.all.tau_b"."""

    name: str
    config: TrainConfig
    train: tuple[RecordSource, ...]
    zero_shot: tuple[RecordSource, ...] = ()
    licence: str = ""
    data_statement: str = ""
    length_tokenizer: str = ""
    """What the files' lengths were counted with, where they do not say themselves."""
    expect: tuple[tuple[str, float, float], ...] = ()

    def records(self) -> Records:
        return Records.concatenate([source.load() for source in self.train])


def read_recipe(path: Path, data_folder: Path) -> Recipe:
    """Parse strictly: unknown keys are errors. Paths in the recipe are relative to `data_folder`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    known = {"name", "licence", "data_statement", "length_tokenizer", "train", "records", "zero_shot", "expect"}
    if unknown := raw.keys() - known:
        raise ConfigError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    if not raw.get("records"):
        raise ConfigError(f"{path}: no [[records]] to train on")
    settings, expect = raw.get("train", {}), raw.get("expect", {})
    if not isinstance(settings, dict) or not isinstance(raw["records"], list) or not isinstance(raw.get("zero_shot", []), list):
        raise ConfigError(f"{path}: expected a table [train] and lists [[records]] and [[zero_shot]]")
    return Recipe(
        name=str(raw.get("name", path.stem)),
        config=TrainConfig.from_mapping(settings),
        train=tuple(_record_source(entry, data_folder, path) for entry in raw["records"]),
        zero_shot=tuple(_record_source(entry, data_folder, path) for entry in raw.get("zero_shot", [])),
        licence=str(raw.get("licence", "")),
        data_statement=" ".join(str(raw.get("data_statement", "")).split()),
        length_tokenizer=str(raw.get("length_tokenizer", "")),
        expect=tuple(_expectation(name, bounds, path) for name, bounds in expect.items()),
    )


def _expectation(name: str, bounds: Any, recipe: Path) -> tuple[str, float, float]:
    match bounds:
        case [int() | float() as low, int() | float() as high] if low <= high:
            return name, float(low), float(high)
    raise ConfigError(f"{recipe}: expect {name!r} must be [lowest, highest], got {bounds!r}")


def check_expectations(recipe: Recipe, metrics: dict[str, Any]) -> None:
    """Raise ExpectationError when a figure lies outside the range the recipe promises."""
    for name, low, high in recipe.expect:
        value: Any = metrics
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, float | int) or not low <= float(value) <= high or not np.isfinite(value):
            raise ExpectationError(f"recipe {recipe.name}: {name} is {value}, expected {low} to {high}")


def _record_source(entry: Any, data_folder: Path, recipe: Path) -> RecordSource:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise ConfigError(f"{recipe}: an entry of records or zero_shot lacks a path")
    types = {
        field.name: str(field.type) for kind in (LocalSource, RecordSource) for field in fields(kind) if field.name != "source"
    }
    if unknown := entry.keys() - types.keys():
        raise ConfigError(f"{recipe}: unknown keys {', '.join(sorted(unknown))} in an entry of records or zero_shot")
    for key, value in entry.items():
        if type(value) is not {"int": int, "bool": bool}.get(types[key], str):
            raise ConfigError(f"{recipe}: {key} = {value!r} in an entry of records or zero_shot is of the wrong type")
    own = {field.name for field in fields(RecordSource)}
    local = {
        key: data_folder / value if key in ("path", "prompts_path") else value for key, value in entry.items() if key not in own
    }
    return RecordSource(LocalSource(**local), **{key: value for key, value in entry.items() if key in own})
