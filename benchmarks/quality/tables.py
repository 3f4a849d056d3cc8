"""Rows of quality.json → Markdown tables. Pure; the sentences around them are in page.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.markdown import table
from benchmarks.quality.results import Figures

GROUPS = {
    "arrival": "untrained",
    "max_tokens": "untrained",
    "prompt_length": "untrained",
    "ngram": "cheap",
    "trees": "cheap",
    "checkpoint": "trained before",
    "encoder": "trained",
}
"""Kind of method → what it is called in the tables, in their order."""

MOST_COLUMNS = 4
"""Sets beside each other with intervals; more would not fit."""

Row = Figures
Grid = tuple[list[str], list[str], Mapping[tuple[str, str], float]]


def rows_of_experiment(document: Figures, experiment: str) -> list[Row]:
    return [row for key in ("rows", "depth_and_length") for row in document[key] if row["experiment"] == experiment]


def datasets_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["dataset"] for row in rows))


def methods_of(rows: Sequence[Row]) -> list[str]:
    """Untrained ones first, otherwise in the order of the experiment."""
    order = list(GROUPS)
    kinds = {row["method"]: row["kind"] for row in reversed(rows)}
    names = list(dict.fromkeys(row["method"] for row in rows))
    return sorted(names, key=lambda method: order.index(kinds[method]) if kinds[method] in order else len(order))


def by_cell(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """Rows of one experiment by data set and method."""
    return {(row["dataset"], row["method"]): row for row in rows}


def with_interval(row: Row) -> str:
    return f"{row['tau']:.3f} [{row['tau_low']:.3f}, {row['tau_high']:.3f}]"


def full_table(rows: Sequence[Row]) -> list[str]:
    """Everything about the rows of one data set. The highest tau-b is bold."""
    cells, best = by_cell(rows), max(row["tau"] for row in rows)
    dataset = rows[0]["dataset"]
    lines: list[list[str]] = []
    group_above = ""
    for method in methods_of(rows):
        row = cells[dataset, method]
        group = GROUPS.get(row["kind"], "other")
        lines.append(
            [
                group if group != group_above else "",
                method,
                str(row["seeds"]),
                f"**{with_interval(row)}**" if row["tau"] == best else with_interval(row),
                f"{row['pair_accuracy']:.1%}",
                f"{row['filtered_pair_accuracy']:.1%}",
                _count(row["encoder_forwards"]),
                _count(row["train_cpu_seconds"]),
            ]
        )
        group_above = group
    gap = rows[0]["min_gap"]
    head = ["", "method", "seeds", "tau-b", "pairs in order", f"pairs in order, δ ≥ {gap:g}", "encoder forwards", "CPU seconds"]
    return table(head, lines)


def matrix(rows: Sequence[Row]) -> list[str]:
    """A line per data set, a column per method, tau-b alone; the highest of a line is bold. The ceiling is the last column."""
    methods, cells = methods_of(rows), by_cell(rows)
    lines = []
    for dataset in datasets_of(rows):
        own = {method: cells[dataset, method] for method in methods if (dataset, method) in cells}
        best = max(row["tau"] for row in own.values())
        shown = [
            _bold_if(f"{own[method]['tau']:.3f}", own[method]["tau"] == best) if method in own else "" for method in methods
        ]
        first = next(iter(own.values()))
        ceiling = "" if first["ceiling"] is None else f"{first['ceiling']:.3f}"
        lines.append([dataset, f"{first['train_prompts']:,}", f"{first['test_prompts']:,}", *shown, ceiling])
    return table(["data set", "learned", "judged", *methods, "ceiling"], lines)


def comparison(rows: Sequence[Row]) -> list[str]:
    """Few sets: a line per method with intervals and cost. Many: the matrix."""
    datasets, cells = datasets_of(rows), by_cell(rows)
    if len(datasets) == 1:
        return full_table(rows)
    if len(datasets) > MOST_COLUMNS:
        return matrix(rows)
    best = {name: max(row["tau"] for row in rows if row["dataset"] == name) for name in datasets}
    lines = []
    for method in methods_of(rows):
        own = {name: cells[name, method] for name in datasets if (name, method) in cells}
        shown = [_bold_if(with_interval(own[name]), own[name]["tau"] == best[name]) if name in own else "" for name in datasets]
        seconds = [row["train_cpu_seconds"] for row in own.values() if row["train_cpu_seconds"] is not None]
        lines.append([method, *shown, _count(sum(seconds) / len(seconds)) if seconds else ""])
    return table(["method", *datasets, "CPU seconds, mean"], lines)


def mean_taus(rows: Sequence[Row]) -> dict[str, float]:
    """Mean tau-b of every method that was run on all data sets of these rows."""
    datasets, cells = datasets_of(rows), by_cell(rows)
    return {
        method: sum(cells[name, method]["tau"] for name in datasets) / len(datasets)
        for method in methods_of(rows)
        if all((name, method) in cells for name in datasets)
    }


def learner_labels(transfers: Sequence[Row]) -> list[str]:
    """What tells the rankers of these rows apart: the set they learned from, or the method, or both."""
    methods, sets = ({row[key] for row in transfers} for key in ("method", "trained_on"))
    if len(methods) == 1:
        return [row["trained_on"] for row in transfers]
    return [row["method"] if len(sets) == 1 else f"{row['trained_on']}, {row['method']}" for row in transfers]


ITSELF = "itself"


def transfer_grid(transfers: Sequence[Row]) -> Grid:
    """Rankers, sets judged on, and tau-b by (ranker, set judged on). The first set, ITSELF, is held-out prompts of the ranker's own."""
    labels = learner_labels(transfers)
    tau = {(label, row["tested_on"]): row["tau"] for label, row in zip(labels, transfers, strict=True)}
    tau |= {(label, ITSELF): row["own_tau"] for label, row in zip(labels, transfers, strict=True)}
    return list(dict.fromkeys(labels)), [ITSELF, *dict.fromkeys(row["tested_on"] for row in transfers)], tau


def transfer_table(transfers: Sequence[Row]) -> list[str]:
    rankers, judged, tau = transfer_grid(transfers)
    cells = [[ranker, *(f"{tau[ranker, name]:.3f}" if (ranker, name) in tau else "" for name in judged)] for ranker in rankers]
    return table(["learned from ↓ judged on →", *judged], cells)


def _bold_if(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
