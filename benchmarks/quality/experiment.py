"""An experiment: a TOML file of runs with the figures that each must reach. Parsed strictly."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.quality.datasets import Subset, registry
from trainer.config import TrainConfig
from trainer.errors import ConfigError

EVERY = "every"
"""In place of a list of sets: all that datasets.toml reads from a file of their own."""

KINDS = ("arrival", "max_tokens", "prompt_length", "ngram", "trees", "encoder", "checkpoint")


UNSEEN_MODELS = "unseen models"
"""What a run that learned from half of a set's models calls the other half, where it says how far it carries."""


@dataclass(frozen=True)
class Run:
    """One cell of a table: a method on a set with a seed.

    kind: what scores. start: checkpoint that an encoder is fine-tuned from, or that is scored as it is; "" is the backbone.
    train_models: "all", or "seen" to learn from half of a set's models and be judged on the others as well.
    transfer_to: sets whose test prompts are scored too. unseen_by: mixture whose prompts, and near-duplicates of them, are left out of the
    test part, since the start has learned from them. expect_tau: lowest and highest tau-b that the run may have.
    """

    experiment: str
    dataset: str
    method: str
    seed: int
    kind: str
    subset: Subset
    config: TrainConfig
    start: str = ""
    train_models: str = "all"
    transfer_to: tuple[str, ...] = ()
    unseen_by: str = ""
    expect_tau: tuple[float, float] = (-1.0, 1.0)

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.dataset}.{re.sub(r'[^A-Za-z0-9]+', '_', self.method)}.{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """name: also that of its folder of results. description: one sentence for the page."""

    name: str
    description: str
    runs: tuple[Run, ...] = field(default=())


_RUN_KEYS = {
    "method", "kind", "datasets", "seeds", "settings", "start", "train_models", "transfer_to", "expect_tau"
}  # fmt: skip


def read_experiment(path: Path) -> Experiment:
    """Every combination of set and seed of every entry, in order. Raises ConfigError, naming the file, on anything unknown."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    _only(raw, {"description", "subset", "settings", "unseen_by", "runs"}, path)
    if not raw.get("runs"):
        raise ConfigError(f"{path}: no [[runs]]")
    _only(raw.get("subset", {}), {known.name for known in fields(Subset)}, path)
    runs = [run for entry in raw["runs"] for run in _runs(entry, raw, path)]
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: runs named alike: {', '.join(twice)}")
    return Experiment(path.stem, " ".join(str(raw.get("description", "")).split()), tuple(runs))


def _runs(entry: dict[str, Any], raw: dict[str, Any], path: Path) -> list[Run]:
    _only(entry, _RUN_KEYS, path)
    for key in ("method", "datasets"):
        if key not in entry:
            raise ConfigError(f"{path}: a run lacks {key}")
    kind = entry.get("kind", "encoder")
    if kind not in KINDS:
        raise ConfigError(f"{path}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    match entry.get("expect_tau", [-1.0, 1.0]):
        case [int() | float() as low, int() | float() as high] if low <= high:
            expected = (float(low), float(high))
        case wrong:
            raise ConfigError(f"{path}: expect_tau must be [lowest, highest], got {wrong!r}")
    return [
        Run(
            experiment=path.stem,
            dataset=dataset,
            method=entry["method"],
            seed=seed,
            kind=kind,
            subset=Subset(**raw.get("subset", {})),
            config=TrainConfig.from_mapping({**raw.get("settings", {}), **entry.get("settings", {}), "seed": seed}),
            start=entry.get("start", ""),
            train_models=entry.get("train_models", "all"),
            transfer_to=tuple(entry.get("transfer_to", ())),
            unseen_by=raw.get("unseen_by", ""),
            expect_tau=expected,
        )
        for dataset in (_every_set() if entry["datasets"] == EVERY else entry["datasets"])
        for seed in entry.get("seeds", [0])
    ]


def _every_set() -> list[str]:
    return [name for name, entry in registry().items() if "path" in entry]


def _only(table: dict[str, Any], known: set[str], path: Path) -> None:
    if unknown := table.keys() - known:
        raise ConfigError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
