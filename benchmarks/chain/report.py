"""Pure: the parts of the chain → one document → tables. What a part knows is replaced whole, never mixed with an older run."""

from collections.abc import Mapping
from typing import Any

from benchmarks.report import FAILED, aligned, plain
from benchmarks.stamp import Stamp

PART_KEYS: Mapping[str, tuple[str, ...]] = {
    "demo": ("demo_seconds", "demo_installed_packages"),
    "test": ("test_seconds", "test_installed_packages", "tests"),
    "tau": ("tau",),
    "parity": ("parity", "bundle_bytes"),
}
"""The parts in the order in which they run, and the top-level keys that are each one's own."""

TAU_COLUMNS = ("ranker", "scorer", "data_set", "zero_shot", "prompts", "tau_b", "pair_accuracy", "filtered_pair_accuracy")
PARITY_COLUMNS = (
    "precision",
    "bundle_bytes",
    "max_score_difference",
    "score_tolerance",
    "kendall_tau_b",
    "max_batch_difference",
)


class PartError(RuntimeError):
    """A part could not be measured. It then has no figures."""


def merged(document: Mapping[str, Any], part: str, outcome: Mapping[str, Any] | PartError, stamp: Stamp) -> dict[str, Any]:
    """The document with this part measured anew. A failed part loses its old figures: they are not of this code."""
    result = {key: value for key, value in document.items() if key not in PART_KEYS[part]}
    failed = {name: why for name, why in result.pop("failed", {}).items() if name != part}
    if isinstance(outcome, PartError):
        failed[part] = str(outcome)
    else:
        assert set(outcome) <= set(PART_KEYS[part]), f"bug in ours: {part} has keys that are not its own"
        result |= plain(outcome)
    result["stamps"] = {**document.get("stamps", {}), part: plain(stamp)}
    if failed:
        result["failed"] = failed
    # Stamps at the end: whoever opens the file looks for figures.
    result["stamps"] = result.pop("stamps")
    return result


def tables(document: Mapping[str, Any]) -> list[str]:
    """Lines for people, of everything that is in the document."""
    lines = []
    for part, seconds in (("demo", "demo_seconds"), ("test", "test_seconds")):
        if seconds in document:
            installed = " (packages installed)" if document[f"{part}_installed_packages"] else ""
            lines.append(f"make {part}: {document[seconds]:.0f} s{installed}")
    if "tests" in document:
        lines.append("tests: " + ", ".join(f"{count} {outcome}" for outcome, count in document["tests"].items()))
    for key, columns in (("tau", TAU_COLUMNS), ("parity", PARITY_COLUMNS)):
        if key in document:
            lines += ["", *aligned(columns, [tuple(_cell(row.get(column)) for column in columns) for row in document[key]])]
    lines += [f"{FAILED} {part}: {why}" for part, why in document.get("failed", {}).items()]
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
