"""Rows of quality.json → Markdown tables. Pure; the sentences around them are in page.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


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
    lines, group_above = [], ""
    for method in methods_of(rows):
        row = cells[dataset, method]
        group = GROUPS.get(row["kind"], row["kind"])
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


def transfer_grid(transfers: Sequence[Row]) -> Grid | None:
    """Sets learned from, sets judged on, and tau-b by (learned, judged), of the first method that has any. None of none."""
    if not transfers:
        return None
    first = transfers[0]
    rows = [row for row in transfers if (row["experiment"], row["method"]) == (first["experiment"], first["method"])]
    learned = list(dict.fromkeys(row["trained_on"] for row in rows))
    tau = {(row["trained_on"], row["tested_on"]): row["tau"] for row in rows}
    tau |= {(row["trained_on"], row["trained_on"]): row["own_tau"] for row in rows}
    judged = [*learned, *dict.fromkeys(row["tested_on"] for row in rows if row["tested_on"] not in learned)]
    return learned, judged, tau


def _bold_if(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
