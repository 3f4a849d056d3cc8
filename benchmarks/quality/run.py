"""Runs what is missing of an experiment, one process and one JSON file per run, so that hours of runs can be gathered in pieces."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.quality import ceiling
from benchmarks.quality.datasets import Dataset, Sets, load_dataset, load_records, registry, without_seen
from benchmarks.quality.experiment import UNSEEN_MODELS, Run, read_experiment
from benchmarks.quality.made_from import made_from
from benchmarks.quality.recalibration import recalibration
from benchmarks.quality.scorers import Fitted, fit
from benchmarks.stamp import make_stamp
from trainer.checkpoint import read_checkpoint
from trainer.errors import ExpectationError, TrainerError
from trainer.evaluate import rank_metrics
from trainer.intervals import tau_interval
from trainer.split import seen_before

FloatArray = npt.NDArray[np.float64]


RUN_LIMIT_S = 4 * 3600
"""Longest time for one run; the longest of the committed experiments takes half an hour on one core."""

JUDGED_GAP = 0.2
"""The δ of filtered pair accuracy, whatever δ a run learned with."""

TIMED_OUT = 124
"""Exit code that `timeout` gives to a command that ran too long."""

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    flags = _parser().parse_args(arguments)
    try:
        experiment = read_experiment(flags.experiment)
        if flags.only:
            _these([run for run in experiment.runs if run.name in flags.only], flags)
            return 0
        missing = [run for run in experiment.runs if not result_path(flags.runs, run).is_file()]
        _log.info("%s: %d of %d runs missing", experiment.name, len(missing), len(experiment.runs))
        with ThreadPoolExecutor(flags.jobs) as pool:
            failed = [
                run.name
                for runs, code in pool.map(lambda runs: (runs, _in_a_process(runs, flags)), _grouped(missing))
                if code
                for run in runs
            ]
    except TrainerError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"quality: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def result_path(runs: Path, run: Run) -> Path:
    """Where a run's figures are written; its scores lie beside them as .npz."""
    return runs / run.experiment / f"{run.name}.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality run", description=__doc__)
    parser.add_argument("experiment", type=Path, help="a file of benchmarks/quality/experiments")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with the sets that benchmarks/quality/datasets.toml names"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="folder of results")
    parser.add_argument("--backbone", type=Path, default=Path("runs/all-MiniLM-L6-v2"), help="folder of the encoder")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    return parser


def _grouped(runs: list[Run]) -> list[list[Run]]:
    """What goes into one process: an encoder alone, and all cheap methods on a set together, since reading the set costs more."""
    cheap: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.kind != "encoder":
            cheap.setdefault((run.dataset, run.train_models), []).append(run)
    return [*cheap.values(), *([run] for run in runs if run.kind == "encoder")]


def _in_a_process(runs: list[Run], flags: argparse.Namespace) -> int:
    """Runs on one thread in a process of their own: memory and thread pools of the last are not the next one's matter."""
    names = [run.name for run in runs]
    words = [
        sys.executable, "-m", "benchmarks.quality.run", flags.experiment, "--only", *names,
        "--data", flags.data, "--runs", flags.runs, "--backbone", flags.backbone,
    ]  # fmt: skip
    log = result_path(flags.runs, runs[0]).with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        try:
            code = subprocess.run(
                [str(word) for word in words],
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=RUN_LIMIT_S,
                check=False,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).returncode
        except subprocess.TimeoutExpired:
            code = TIMED_OUT
    _log.info("%s %s", ", ".join(names), "done" if code == 0 else f"failed with code {code}, see {log}")
    return code


def _these(runs: list[Run], flags: argparse.Namespace) -> None:
    """Run after run on the same set. All are run; the first that misses its range fails the process in the end."""
    torch.set_num_threads(1)
    sets = registry()
    first = runs[0]
    dataset = load_dataset(first.dataset, flags.data, first.subset, sets, models=first.train_models)
    if first.unseen_by:
        dataset = without_seen(dataset, load_records(first.unseen_by, flags.data, sets).prompt, first.subset.similarity)
    missed: list[ExpectationError] = []
    for run in runs:
        with _alone(result_path(flags.runs, run)) as missing:
            try:
                if missing:
                    _one(run, dataset, flags, sets)
            except ExpectationError as error:
                missed.append(error)
    if missed:
        raise missed[0]


@contextlib.contextmanager
def _alone(result: Path) -> Iterator[bool]:
    """Hold the run of `result` against other processes; waits while one is at it. Yields whether the result is still missing."""
    result.parent.mkdir(parents=True, exist_ok=True)
    with result.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # given back by the system, however this process ends
        yield not result.is_file()


def _one(run: Run, dataset: Dataset, flags: argparse.Namespace, sets: Sets) -> None:
    stamp = asdict(make_stamp("benchmarks.quality", ["run", str(flags.experiment), "--only", run.name]))
    path = result_path(flags.runs, run)
    state = path.with_suffix(".state")
    fitted = fit(run, dataset.parts, flags.backbone, state)
    test = dataset.parts.test
    scores = fitted.score(test.prompt)
    figures = _figures(scores, test.typical_tokens)
    result: dict[str, Any] = {
        "experiment": run.experiment,
        "dataset": run.dataset,
        "method": run.method,
        "seed": run.seed,
        "kind": run.kind,
        "model": dataset.models,
        "settings": asdict(run.config) if run.kind == "encoder" else {},
        "start": run.start,
        "train_models": run.train_models,
        "unseen_by": run.unseen_by,
        "made_from": made_from(run, sets),
        "subset": asdict(run.subset),
        "prompts": {"train": len(dataset.parts.train), "validation": len(dataset.parts.validation), "test": len(test)},
        **figures,
        "ceiling": _ceiling(dataset),
        **fitted.training,
        **_recalibration(run, dataset, fitted, scores),
        "transfer": _transfer(run, dataset, fitted, flags, sets),
        "stamp": stamp,
    }
    np.savez(path.with_suffix(".npz"), test_scores=scores, test_lengths=test.typical_tokens)
    coming = path.with_suffix(".coming")
    coming.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    coming.rename(path)
    shutil.rmtree(state, ignore_errors=True)
    low, high = run.expect_tau
    if not low <= result["tau"] <= high:
        raise ExpectationError(f"{run.experiment}/{run.name}: tau-b is {result['tau']}, expected {low} to {high}")


def _figures(scores: FloatArray, lengths: FloatArray) -> dict[str, float | int]:
    metrics = rank_metrics(scores, lengths, min_gap=JUDGED_GAP)
    interval = tau_interval(scores, lengths)
    return {
        "tau": round(metrics.tau_b, 4),
        "tau_low": round(interval.low, 4),
        "tau_high": round(interval.high, 4),
        "pair_accuracy": round(metrics.pair_accuracy, 4),
        "filtered_pair_accuracy": round(metrics.filtered_pair_accuracy, 4),
        "min_gap": JUDGED_GAP,
    }


def _ceiling(dataset: Dataset) -> dict[str, Any] | None:
    """The highest tau-b that a scorer of prompts could reach on the test part, None where the set cannot tell."""
    test = dataset.parts.test
    if dataset.repeats is not None:
        return asdict(ceiling.of_single_response(test.typical_tokens, dataset.repeats[:, 1:]))
    if len(set(dataset.records.model)) < 2 or len(set(dataset.records.source)) > 1:
        return None
    kept = set(test.prompt)
    rows = [row for row, prompt in enumerate(dataset.records.prompt) if prompt in kept]
    return asdict(ceiling.of_typical(dataset.records.take(rows)))


def _recalibration(run: Run, dataset: Dataset, fitted: Fitted, test_scores: FloatArray) -> dict[str, Any]:
    """For a finished checkpoint, what its expected tokens are worth on this set."""
    table = read_checkpoint(Path(run.start)).card.calibration if run.kind == "checkpoint" else None
    if table is None:
        return {}
    validation = dataset.parts.validation
    scores = fitted.score(validation.prompt)
    return {"recalibration": recalibration(table, scores, validation, test_scores, dataset.parts.test)}


def _transfer(run: Run, dataset: Dataset, fitted: Fitted, flags: argparse.Namespace, sets: Sets) -> dict[str, Any]:
    """Figures on test prompts of other sets, and on the models that a run did not learn from."""
    subset = replace(run.subset, test_prompts=run.subset.transfer_prompts)
    judged = {name: load_dataset(name, flags.data, subset, sets) for name in run.transfer_to if name != run.dataset}
    if run.train_models == "seen":
        judged[UNSEEN_MODELS] = load_dataset(run.dataset, flags.data, run.subset, sets, models="unseen")
    learned = dataset.parts.train.prompt + dataset.parts.validation.prompt
    figures = {}
    for name, other in judged.items():
        test = other.parts.test
        test = test.take(np.nonzero(~seen_before(test.prompt, learned, run.subset.similarity))[0])
        figures[name] = {**_figures(fitted.score(test.prompt), test.typical_tokens), "prompts": len(test)}
        if name == UNSEEN_MODELS:
            # Not every model answered every prompt: the models learned from are judged on these prompts as well.
            row_of = {prompt: row for row, prompt in enumerate(dataset.parts.test.prompt)}
            own = [row_of[prompt] for prompt in test.prompt if prompt in row_of]
            scores = fitted.score([dataset.parts.test.prompt[row] for row in own])
            figures[name]["own_tau"] = _figures(scores, dataset.parts.test.typical_tokens[np.array(own)])["tau"]
    return figures


if __name__ == "__main__":
    sys.exit(main())
