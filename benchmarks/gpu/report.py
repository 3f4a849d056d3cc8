"""What the parts have written down so far → the report, and its lines for people."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.figures import headline, table, targets
from benchmarks.report import plain

Outcomes = Mapping[str, Mapping[str, Any]]

EXPORT = "export"
"""Beside the parts in `failed`: bundles that could not be made."""


class Ended(NamedTuple):
    """How a part went. failed: why, None where it did not fail as a whole. seconds: None where nobody saw it end."""

    failed: str | None
    seconds: float | None


NOT_ENDED = Ended("stopped before it ended", None)


def outcomes(files: Mapping[str, Path], ended: Mapping[str, Ended]) -> dict[str, dict[str, Any]]:
    """By part, in the order of `files`: its figures, failures and not_here, see Outcome; and `seconds`.

    What a part wrote down before it was ended is kept. A part that has not ended has failed.
    """
    found = {}
    for name, file in files.items():
        outcome: dict[str, Any] = {"figures": {}, "failures": {}, "not_here": {}}
        failed, seconds = ended.get(name, NOT_ENDED)
        if file.exists():
            outcome = json.loads(file.read_text(encoding="utf-8"))
        elif failed is None:
            failed = "wrote nothing down"
        if failed is not None:
            outcome["failures"][name] = failed
        found[name] = outcome | {"seconds": seconds}
    return found


def has_figures(found: Outcomes) -> bool:
    """Whether anything was measured. An empty list of cells is nothing."""
    return any(each for outcome in found.values() for each in outcome["figures"].values())


def of_parts(found: Outcomes, not_exported: Mapping[str, str]) -> dict[str, Any]:
    """The report but for what it is of. not_exported: reasons by precision."""
    parts = {name: outcome["figures"] for name, outcome in found.items()}
    figures = headline(parts)
    failed = {EXPORT: dict(not_exported)} | {name: outcome["failures"] for name, outcome in found.items()}
    return {
        **figures,
        "targets": targets(figures),
        "failed": {name: reasons for name, reasons in failed.items() if reasons},
        "not_on_this_machine": {what: why for outcome in found.values() for what, why in outcome["not_here"].items()},
        "seconds": {name: outcome["seconds"] for name, outcome in found.items()},
        "parts": parts,
    }


def figure_lines(report: Mapping[str, Any]) -> Iterable[str]:
    """Tables, headline and targets."""
    figures = {name: report[name] for name in headline({})}
    return [*table(report["parts"], plain(figures)), "", *(str(plain(row)) for row in report["targets"])]


def reason_lines(report: Mapping[str, Any]) -> Iterable[str]:
    """What is not in the figures, and why."""
    for what, why in report["not_on_this_machine"].items():
        yield f"not on this machine: {what}: {why}"
    for name, reasons in report["failed"].items():
        for what, why in reasons.items():
            yield f"FAILED {name}: {what}: {why}"
