"""The reliability plot: expected against observed tokens, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from trainer.reliability import Reliability


def plot_reliability(judged: Reliability, path: Path) -> None:
    """Write the SVG. Both axes are logarithmic, as lengths are; a bar goes from the 10th to the 90th percentile of the responses."""
    expected = [one.expected for one in judged.bins]
    observed = [one.observed for one in judged.bins]
    # A Figure of its own: pyplot keeps global state and looks for a display.
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = [min(expected), max(expected)]
    axes.plot(ends, ends, color="grey", linewidth=1, label="as expected")
    axes.plot(
        expected, [one.expected_p90 for one in judged.bins], color="grey", linestyle=":", label="expected 90th percentile"
    )
    below = [one.observed - one.observed_p10 for one in judged.bins]
    above = [one.observed_p90 - one.observed for one in judged.bins]
    axes.errorbar(expected, observed, [below, above], fmt="o", capsize=3, label="observed median, 10th to 90th percentile")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(LogFormatter())
    axes.set_xlabel("expected tokens (median of the bin's prompts)")
    axes.set_ylabel("tokens of the responses")
    axes.legend(fontsize="small")
    # The same figures make the same file: no date, no random ids. Text stays text.
    with matplotlib.rc_context({"svg.hashsalt": "pars", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
