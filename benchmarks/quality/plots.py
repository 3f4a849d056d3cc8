"""The plots of docs/quality.md as SVG text: the same figures give the same bytes, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.quality.cost import OURS, REFERENCE
from benchmarks.quality.results import Figures
from benchmarks.quality.tables import methods_of, rows_of_experiment, transfer_grid
from benchmarks.svg import INK, OTHER_COLOURS, THEIRS, svg
from benchmarks.svg import OURS as BLUE

COLOURS = {REFERENCE: THEIRS, OURS: BLUE}
_COLUMNS = 3


def cost_plot(document: Figures) -> str | None:
    """Validation tau-b against CPU seconds of training, a panel per experiment and data set, a line per seed. None without runs."""
    panels: dict[tuple[str, str], list[Figures]] = {}
    for run in document["cost"]:
        panels.setdefault((run["experiment"], run["dataset"]), []).append(run)
    if not panels:
        return None
    colour = _colours([run["method"] for run in document["cost"]])
    across, down = min(len(panels), _COLUMNS), -(-len(panels) // _COLUMNS)

    def draw(figure: Figure) -> None:
        for number, ((experiment, dataset), runs) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(down, across, number)
            shown = set()
            # The reference once per seed, though it stands beside every other method.
            curves = {(REFERENCE, run["seed"]): run["reference_curve"] for run in runs}
            curves |= {(run["method"], run["seed"]): run["curve"] for run in runs}
            for (method, _), curve in curves.items():
                axes.plot(
                    [point[0] for point in curve],
                    [point[2] for point in curve],
                    color=colour[method],
                    marker=".",
                    linewidth=1,
                    label=None if method in shown else method,
                )
                shown.add(method)
            for tau in {run["tau"]: None for run in runs}:
                axes.axhline(tau, color=colour[REFERENCE], linewidth=0.6, linestyle=":")
            axes.set_xscale("log")
            axes.set_title(f"{dataset} ({experiment})", fontsize=9)
            axes.set_xlabel("CPU seconds of training")
            axes.set_ylabel("validation tau-b")
            axes.legend(loc="lower right")

    return _svg((3.4 * across, 2.8 * down), draw)


def wide_plot(document: Figures) -> str | None:
    """Test tau-b of every method on every set of the wide table, with the ceiling as a bar. None without that table."""
    rows = rows_of_experiment(document, "wide")
    if not rows:
        return None
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    colour = _colours(methods_of(rows))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for method in methods_of(rows):
            own = [row for row in rows if row["method"] == method]
            places = [datasets.index(row["dataset"]) for row in own]
            size = 28 if method in COLOURS else 14
            axes.scatter([row["tau"] for row in own], places, color=colour[method], s=size, label=method, zorder=3)
        ceilings = {row["dataset"]: row["ceiling"] for row in rows if row["ceiling"] is not None}
        if ceilings:
            places = [datasets.index(name) for name in ceilings]
            axes.scatter(list(ceilings.values()), places, color=INK, marker="|", s=120, label="ceiling")
        axes.set_yticks(range(len(datasets)), datasets)
        axes.set_ylim(len(datasets) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=0.6)
        axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.5)
        axes.set_xlabel("tau-b on held-out prompts")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return _svg((9.5, 1.2 + 0.27 * len(datasets)), draw)


def across_plot(document: Figures) -> str | None:
    """tau-b by the set learned from (down) and the set judged on (across). None without any."""
    rows = document["across"]
    if not rows:
        return None
    learned, judged, tau = transfer_grid(rows)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        values = [[tau.get((one, other), float("nan")) for other in judged] for one in learned]
        # Not imshow: it would put an image into the file, whose bytes depend on the library that packs it.
        axes.pcolormesh(np.ma.masked_invalid(values), cmap="viridis", vmin=0, vmax=max(tau.values()))
        for down, one in enumerate(learned):
            for across, other in enumerate(judged):
                if (one, other) in tau:
                    dark = tau[one, other] < 0.6 * max(tau.values())
                    colour = "white" if dark else "black"
                    axes.text(
                        across + 0.5, down + 0.5, f"{tau[one, other]:.2f}", ha="center", va="center", color=colour, fontsize=8
                    )
        axes.set_yticks([place + 0.5 for place in range(len(learned))], learned)
        axes.set_xticks([place + 0.5 for place in range(len(judged))], judged, rotation=40, ha="right")
        axes.invert_yaxis()
        axes.set_xlabel("judged on")
        axes.set_ylabel("learned from")

    return _svg((2.6 + 0.75 * len(judged), 2.0 + 0.4 * len(learned)), draw)


PLOTS: Mapping[str, Callable[[Figures], str | None]] = {"cost": cost_plot, "wide": wide_plot, "across": across_plot}
"""Name of the file under docs/quality, without .svg."""


def _colours(methods: Sequence[str]) -> dict[str, str]:
    others = [method for method in dict.fromkeys(methods) if method not in COLOURS]
    return {**COLOURS, **{method: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, method in enumerate(others)}}


def _svg(inches: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    return svg(inches, "quality", draw)
