"""Plots of the docs as SVG text: the same figures give the same bytes, readable on a light and on a dark page."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#7a7a7a"
"""4.3 : 1 on white and 4.2 : 1 on a dark page's #0d1117."""
THEIRS, OURS = "#d1495b", "#2a8fbd"
OTHER_COLOURS = ("#b8860b", "#5b9a4a", "#8a63b5", "#c06a2b", "#4a9a94", "#b05a8a")

_STYLE: dict[Any, Any] = {  # matplotlib types the keys as literals
    "svg.fonttype": "none",  # text stays text: searchable, and checked by a test
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def svg(inches: tuple[float, float], salt: str, draw: Callable[[Figure], None]) -> str:
    """Not through pyplot: no state outside, no display. salt: for the ids in the file; without one every run gives other ids."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure)
        text = io.StringIO()
        # Date and Creator would differ between two runs of the same figures.
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def write_page(out: Path, text: str, plots: Mapping[str, str | None]) -> None:
    """A page, and its plots by name in a folder of the page's name; a plot that has nothing to show is removed."""
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    for name, plot in plots.items():
        path = folder / f"{name}.svg"
        if plot is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(plot, encoding="utf-8")
