"""What runs left behind: one JSON per run and its scores beside it, held against the experiment that asked for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.datasets import registry
from benchmarks.quality.experiment import UNSEEN_MODELS, Experiment, Run
from benchmarks.quality.made_from import made_from
from trainer.errors import DataError

FloatArray = npt.NDArray[np.float64]
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A finished run. name: for messages. figures: as benchmarks/quality/run.py wrote them. scores_path: not needed for a single seed."""

    name: str
    figures: Figures
    scores_path: Path

    def scores(self) -> tuple[FloatArray, FloatArray]:
        """Scores and lengths of the test prompts, float64[n] each. Raises DataError without the file."""
        try:
            with np.load(self.scores_path) as arrays:
                return arrays["test_scores"], arrays["test_lengths"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{self.scores_path}: no scores to take an interval over seeds from: {error}") from error


def read_results(folder: Path, experiment: Experiment) -> tuple[list[Result], list[str]]:
    """Results of an experiment's runs, in its order, and the names of runs that are missing.

    Raises DataError for a result of other settings than the committed ones: such a figure would stand in the wrong row.
    """
    results, missing = [], []
    for run in experiment.runs:
        path = folder / run.experiment / f"{run.name}.json"
        if not path.is_file():
            missing.append(run.name)
            continue
        figures = json.loads(path.read_text(encoding="utf-8"))
        if changed := _changed(figures, run):
            raise DataError(f"{path}: measured with another {', '.join(changed)} than {experiment.name}.toml says; remove it")
        results.append(Result(f"{run.experiment}/{run.name}", figures, path.with_suffix(".npz")))
    return results, missing


def outside_expectations(results: Iterable[Result], experiment: Experiment) -> list[str]:
    """A sentence for every run whose tau-b lies outside the range that the experiment promises."""
    promised = {f"{run.experiment}/{run.name}": run.expect_tau for run in experiment.runs}
    sentences = []
    for result in results:
        low, high = promised[result.name]
        if not low <= result.figures["tau"] <= high:
            sentences.append(f"{result.name}: tau-b is {result.figures['tau']}, expected {low} to {high}")
    return sentences


def read_part(folder: Path, key: str) -> Figures | None:
    """The one file directly in `folder` that holds the list `key`: what chat.py and precision.py write. None where there is none."""
    found = []
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict) and isinstance(document.get(key), list):
            found.append((path, document))
    if len(found) > 1:
        raise DataError(f"{key} is in several files: {', '.join(str(path) for path, _ in found)}")
    return found[0][1] if found else None


def _changed(figures: Figures, run: Run) -> list[str]:
    """What differs. Only what a run recorded is compared: a setting that came later had no other value then."""
    recorded = {**figures.get("settings", {}), **figures.get("subset", {})}
    asked = json.loads(json.dumps({**asdict(run.config), **asdict(run.subset)}))
    changed = [name for name, value in recorded.items() if name in asked and value != asked[name]]
    named = ("kind", "start", "train_models", "unseen_by")
    changed += [name for name in named if name in figures and figures[name] != getattr(run, name)]
    if "transfer" in figures and set(run.transfer_to) - {run.dataset} != figures["transfer"].keys() - {UNSEEN_MODELS}:
        changed.append("transfer_to")
    if "made_from" in figures and figures["made_from"] != made_from(run, registry()):
        changed.append("recipe or checkpoint")
    return changed
