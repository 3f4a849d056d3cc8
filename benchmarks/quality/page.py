"""benchmarks/results/quality.json → docs/quality.md and its plots: `python -m benchmarks.quality page`. Nothing else goes in."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.markdown import paragraph, plural, table
from benchmarks.quality.page_comparisons import comparisons, main_sets, wide
from benchmarks.quality.page_parts import across, chat, cost, models, precision, recalibrated
from benchmarks.quality.plots import PLOTS
from benchmarks.quality.results import Figures
from benchmarks.stamp import REPOSITORY
from benchmarks.svg import write_page

PAGE = REPOSITORY / "docs" / "quality.md"
RESULT = REPOSITORY / "benchmarks" / "results" / "quality.json"

_HEAD = """# How well it ranks

<!-- Written by `python -m benchmarks.quality page` from benchmarks/results/quality.json. Do not edit. -->

How well prompts are ordered by the length of their responses: by nothing, by cheap means, by the method as its authors released it, and
by ours; what that costs in training, and what is left of it on other prompts and other models.

- **tau-b**: Kendall's rank correlation of scores and lengths over all pairs of held-out prompts; 1 is the right order, 0 none. In brackets
  the interval that holds 95% of 1,000 resamples of the prompts; with several seeds it holds the luck of the seed as well.
- **Pairs in order**: the share of pairs of different length that are put in the right order, a tie counting half; once over all pairs, once
  over those whose lengths differ by at least δ, as a share of the longer.
- **Length**: tokens of the response. Where several models answered, the typical length over them, each model's own verbosity
  taken out ([decision 4](decisions/0004-one-training-target-per-prompt.md)).
- **Ceiling**: an estimate of what a ranker could reach that knows all that a prompt can tell. Where a prompt was answered several times,
  it is one answer against the others; where several models answered, it follows from how well two halves of the models agree.
- **Encoder forwards**: prompts that went through the encoder in training. **CPU seconds**: of the training steps, evaluations left out.
- A prompt and its near-duplicates are in one part only. Validation prompts choose the checkpoint; test prompts only compare.
"""

_REPRODUCE = """## Measuring it again

    make quality DATA=folder    # every run of benchmarks/quality/experiments that is missing under runs/quality, then this page

The folder holds the files that `benchmarks/quality/datasets.toml` names; where they come from is in [training.md](training.md). Each
run is a process of its own and leaves one JSON file, so that what was interrupted goes on where it was. An experiment promises a range
for every run's tau-b; outside of it the command fails. The figures of this page are in
[quality.json](../benchmarks/results/quality.json) with machine, versions and commits.
"""

_LIMITS = """## What this does not say

- The prompts are those of public collections, mostly English, mostly one question without a conversation around it.
- Lengths are those of the models and output limits of the sources; what a limit cut counts as that long.
- Where the typical length over many models is the target, a single model's responses are ordered less well than the table says.
- One encoder, MiniLM-L6. Another backbone may rank the methods differently.
- CPU seconds are those of one thread on one machine; their ratios carry over better than they do.
"""

Section = Callable[[Figures], list[str]]
_SECTIONS: tuple[Section, ...] = (main_sets, wide, cost, comparisons, recalibrated, across, models, chat, precision)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULT, help="JSON that report wrote")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; its plots go into a folder of the same name")
    flags = parser.parse_args(arguments)
    try:
        document = json.loads(flags.results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"quality: {flags.results}: {error}", file=sys.stderr)
        return 1
    write(document, flags.out)
    return 0


def write(document: Figures, out: Path) -> None:
    """The page and its plots."""
    write_page(out, page(document), {name: plot(document) for name, plot in PLOTS.items()})


def page(document: Figures) -> str:
    """The whole page. A section whose part of the document is empty is left out."""
    sections = ["\n".join(lines) for section in _SECTIONS if (lines := section(document))]
    parts = [_HEAD.rstrip(), "\n".join(_experiments(document)), *sections, _REPRODUCE.rstrip(), _LIMITS.rstrip()]
    return "\n\n".join(parts) + "\n"


def _experiments(document: Figures) -> list[str]:
    """How many prompts of each set, how often, where."""
    described = document["experiments"]
    rows = []
    for each in described:
        subset = each["subset"]
        limits = [_at_most(subset.get(f"{part}_prompts", 0)) for part in ("train", "validation", "test")]
        rows.append([each["name"], *limits, f"{each['runs']} of {each['runs'] + len(each['missing'])}"])
    machines = sorted({machine for each in described for machine in each["machines"]})
    first, last = min(each["first"] for each in described), max(each["last"] for each in described)
    missing = sum(len(each["missing"]) for each in described)
    return [
        "All rows of an experiment learn from the same prompts of a set and are judged on the same prompts:",
        "",
        *table(["experiment", "learned, at most", "validation", "test", "runs made"], rows),
        "",
        *paragraph(
            *(
                [f"{plural(missing, 'run')} missing of those that the experiments ask for; the rows lack them."]
                if missing
                else []
            ),
            f"Machine: {'; '.join(machines)}; one thread a run. Measured from {first[:10]} to {last[:10]}.",
        ),
    ]


def _at_most(prompts: int) -> str:
    return f"{prompts:,}" if prompts else "all"
