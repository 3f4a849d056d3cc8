"""The sections of docs/quality.md that set methods side by side on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.markdown import paragraph, plural
from benchmarks.quality.cost import OURS, REFERENCE
from benchmarks.quality.results import Figures
from benchmarks.quality.tables import (
    GROUPS,
    Row,
    by_cell,
    comparison,
    datasets_of,
    full_table,
    matrix,
    mean_taus,
    rows_of_experiment,
)

MAIN, WIDE = "main", "wide"
TITLES = {
    "cost": "The reference and ours, step for step",
    "losses": "What to minimise, and which pairs to learn from",
    "depth_and_length": "Depth of the encoder, and how much of a prompt it reads",
    "mixture": "How to learn from many sets at once",
    "recovery": "What a thousand prompts of the target bring back",
    "models": "Rankers of half the models",
}
"""Experiment → heading; another experiment is called by its name."""


def main_sets(document: Figures) -> list[str]:
    """Every method on the sets that were run with several seeds."""
    rows = rows_of_experiment(document, MAIN)
    if not rows:
        return []
    lines = ["## The main sets", "", *_introduced(document, MAIN, *_against_reference(rows), *_against_ceiling(rows))]
    for name in datasets_of(rows):
        own = [row for row in rows if row["dataset"] == name]
        lines += ["", f"### {name}", "", *_about(own[0]), "", *full_table(own)]
    return lines


def wide(document: Figures) -> list[str]:
    """Every set, tau-b alone."""
    rows = rows_of_experiment(document, WIDE)
    if not rows:
        return []
    return [
        "## Every set",
        "",
        *_introduced(document, WIDE, *_against_reference(rows), *_against_ceiling(rows)),
        "",
        *matrix(rows),
        "",
        "![tau-b of every method on every set, and the ceiling](quality/wide.svg)",
    ]


def comparisons(document: Figures) -> list[str]:
    """A section for each of the other experiments that has rows to compare."""
    sections = []
    for each in document["experiments"]:
        rows = rows_of_experiment(document, each["name"])
        if each["name"] in (MAIN, WIDE) or len({row["method"] for row in rows}) < 2:
            continue
        title = TITLES.get(each["name"], each["name"].replace("_", " ").capitalize())
        sections.append(
            [f"## {title}", "", *_introduced(document, each["name"], *_best_and_worst(rows)), "", *comparison(rows)]
        )
    return "\n\n".join("\n".join(section) for section in sections).split("\n") if sections else []


def _introduced(document: Figures, experiment: str, *sentences: str) -> list[str]:
    """What the experiment says of itself, then the sentences about its figures."""
    described = [each["description"] for each in document["experiments"] if each["name"] == experiment and each["description"]]
    return [*paragraph(*described), *([""] if described and sentences else []), *paragraph(*sentences)]


def _about(row: Row) -> list[str]:
    ceiling = ""
    if row["ceiling"] is not None:
        interval = f"[{row['ceiling_low']:.3f}, {row['ceiling_high']:.3f}]"
        ceiling = f"Ceiling {row['ceiling']:.3f} {interval}: {row['ceiling_how']}."
    return paragraph(
        f"Responses of {row['model']}. {row['train_prompts']:,} prompts to learn from, {row['validation_prompts']:,} for validation, "
        f"{row['test_prompts']:,} to judge.",
        ceiling,
    )


def _against_reference(rows: Sequence[Row]) -> list[str]:
    """On how many sets ours is better than the reference, and on how many the intervals do not overlap."""
    cells = by_cell(rows)
    both = [
        (cells[name, OURS], cells[name, REFERENCE])
        for name in datasets_of(rows)
        if {(name, OURS), (name, REFERENCE)} <= cells.keys()
    ]
    if not both:
        return []
    better = sum(ours["tau"] > reference["tau"] for ours, reference in both)
    clearly = sum(ours["tau_low"] > reference["tau_high"] for ours, reference in both)
    worse = sum(ours["tau_high"] < reference["tau_low"] for ours, reference in both)
    gain = sum(ours["tau"] - reference["tau"] for ours, reference in both) / len(both)
    return [
        f"`{OURS}` has a higher tau-b than `{REFERENCE}` on {better} of {plural(len(both), 'set')}, by {gain:+.3f} in the mean of all; "
        f"on {clearly} its interval lies wholly above that of `{REFERENCE}`, on {worse} wholly below."
    ]


def _against_ceiling(rows: Sequence[Row]) -> list[str]:
    """How near the best trained method comes to what can be had, and what the best untrained or cheap one does."""
    reached = []
    for name in datasets_of(rows):
        own = [row for row in rows if row["dataset"] == name and row["ceiling"]]
        trained = [row["tau"] / row["ceiling"] for row in own if GROUPS.get(row["kind"], "").startswith("trained")]
        rest = [row["tau"] / row["ceiling"] for row in own if not GROUPS.get(row["kind"], "").startswith("trained")]
        if trained and rest:
            reached.append((max(trained), max(rest)))
    if not reached:
        return []
    best, cheap = (sum(shares) / len(reached) for shares in zip(*reached, strict=True))
    return [
        f"Where the ceiling is known ({plural(len(reached), 'set')}), the best trained ranker reaches {best:.0%} of it in the mean, the "
        f"best of those without an encoder {cheap:.0%}."
    ]


def _best_and_worst(rows: Sequence[Row]) -> list[str]:
    """Which method is best and which is worst, and whether the intervals can tell them apart."""
    means = mean_taus(rows)
    if len(means) < 2:
        return []
    best, worst = max(means, key=lambda method: means[method]), min(means, key=lambda method: means[method])
    cells, names = by_cell(rows), datasets_of(rows)
    apart = sum(cells[name, best]["tau_low"] > cells[name, worst]["tau_high"] for name in names)
    over = "" if len(names) == 1 else f" over {len(names)} sets"
    verdict = "their intervals overlap" if not apart else "their intervals do not overlap"
    if len(names) > 1:
        verdict = f"on {apart} of them their intervals do not overlap"
    mean = "tau-b" if len(names) == 1 else "mean tau-b"
    return [f"Highest {mean}{over}: **{best}**, {means[best]:.3f}; lowest: {worst}, {means[worst]:.3f}; {verdict}."]
