"""All finished runs → benchmarks/results/quality.json: `python -m benchmarks.quality report`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.cost import cost_json, cost_ratios, side_by_side
from benchmarks.quality.experiment import UNSEEN_MODELS, Experiment, read_experiment
from benchmarks.quality.results import Figures, Result, outside_expectations, read_part, read_results
from benchmarks.quality.rows import rows_of, transfers_of
from benchmarks.report import write_json
from benchmarks.stamp import REPOSITORY, Stamp, make_stamp
from trainer.errors import DataError, TrainerError

EXPERIMENTS = Path(__file__).with_name("experiments")
RESULT = REPOSITORY / "benchmarks" / "results" / "quality.json"
DEPTH_AND_LENGTH = "depth_and_length"
"""The experiment whose rows stand under that key instead of under `rows`."""

ON_CPUS = ("int8", "bf16")
"""Precisions that are faster than fp32 on a CPU. What they lose stands among the ratios."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality report", description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="folder of results, as for run")
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS, help="folder of the committed experiments")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON")
    parser.add_argument(
        "--parts-only",
        action="store_true",
        help="take chat and precision, where they are in the folder, and the rest from --out",
    )
    flags = parser.parse_args(arguments)
    stamp = make_stamp("benchmarks.quality", ["report", *(arguments or [])])
    try:
        parts = {key: part for key in ("chat", "precision") if (part := read_part(flags.runs, key)) is not None}
        if flags.parts_only:
            write_json(flags.out, with_parts(json.loads(flags.out.read_text(encoding="utf-8")), parts))
            return 0
        experiments = [read_experiment(path) for path in sorted(flags.experiments.glob("*.toml"))]
        gathered = [(experiment, *read_results(flags.runs, experiment)) for experiment in experiments]
        write_json(flags.out, document(gathered, parts, stamp))
    except (TrainerError, OSError) as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    missed = [sentence for experiment, results, _ in gathered for sentence in outside_expectations(results, experiment)]
    for sentence in missed:
        print(f"quality: {sentence}", file=sys.stderr)
    return 1 if missed else 0


def document(
    gathered: Sequence[tuple[Experiment, Sequence[Result], Sequence[str]]], parts: Mapping[str, Figures], stamp: Stamp
) -> dict[str, Any]:
    """Everything that docs/quality.md says, and nothing else. gathered: each experiment, its results, the names of missing runs."""
    results = [result for _, of_one, _ in gathered for result in of_one]
    if not results:
        raise DataError("no finished run of any experiment")
    rows, transfers, compared = rows_of(results), transfers_of(results), side_by_side(results)
    whole = {
        "stamp": stamp,
        "experiments": [_described(*each) for each in gathered if each[1]],
        "rows": [row for row in rows if row["experiment"] != DEPTH_AND_LENGTH],
        "ratios": cost_ratios(compared),
        "cost": cost_json(compared),
        "across": [row for row in transfers if row["tested_on"] != UNSEEN_MODELS],
        "models": [row for row in transfers if row["tested_on"] == UNSEEN_MODELS],
        DEPTH_AND_LENGTH: [row for row in rows if row["experiment"] == DEPTH_AND_LENGTH],
        "chat": [],
        "chat_notes": [],
        "precision": [],
    }
    return with_parts(whole, parts)


def with_parts(whole: Figures, parts: Mapping[str, Figures]) -> dict[str, Any]:
    """A report with these parts in the place of its own: what chat.py and precision.py wrote, which need none of the runs."""
    report = dict(whole)
    if chat := parts.get("chat"):
        report |= {"chat": chat["chat"], "chat_notes": chat["notes"]}
    if precision := parts.get("precision"):
        report |= {name: precision[name] for name in ("precision", "bundles")}
        report["precision_stamp"] = precision["stamp"]
        losses = {f"{name}_tau_loss": tau_loss(precision["precision"], name) for name in ON_CPUS}
        report["ratios"] = report["ratios"] | {name: loss for name, loss in losses.items() if loss is not None}
    return report


def tau_loss(rows: Sequence[Figures], precision: str) -> float | None:
    """The largest loss of tau-b from fp32 to this precision over data sets; below zero where it is better on each. None without such
    a pair."""
    tau = {(row["dataset"], row["precision"]): row["tau"] for row in rows}
    losses = [tau[name, "fp32"] - tau[name, precision] for name, kind in tau if kind == precision and (name, "fp32") in tau]
    return max(losses, default=None)


def _described(experiment: Experiment, results: Sequence[Result], missing: Sequence[str]) -> dict[str, Any]:
    """What the page says of an experiment as a whole: how many prompts, on what machine, of which commits, how much is missing."""
    stamps = [result.figures["stamp"] for result in results]
    return {
        "name": experiment.name,
        "description": experiment.description,
        "subset": results[0].figures.get("subset", {}),
        "settings": _common([result.figures.get("settings") or {} for result in results]),
        "runs": len(results),
        "missing": list(missing),
        "machines": sorted({_machine(stamp) for stamp in stamps}),
        "commits": sorted({stamp["commit"] for stamp in stamps}),
        "first": min(stamp["date"] for stamp in stamps),
        "last": max(stamp["date"] for stamp in stamps),
    }


def _machine(stamp: Figures) -> str:
    machine = stamp["machine"]
    return " + ".join([f"{machine['cpu_model']}, {machine['allotted_cores']} cores", *machine["gpus"]])


def _common(settings: Sequence[Figures]) -> dict[str, Any]:
    """Settings that are the same in all trained runs; the rest is what the experiment varies."""
    trained = [each for each in settings if each]
    if not trained:
        return {}
    return {name: value for name, value in trained[0].items() if all(each.get(name) == value for each in trained)}


if __name__ == "__main__":
    sys.exit(main())
