"""From the JSON of made-up runs to page and plots; and the committed page against its JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import MAIN, Runs

from benchmarks.quality import page
from benchmarks.quality.page import PAGE, RESULT
from benchmarks.quality.plots import PLOTS


def test_the_page_names_the_figures(runs: Runs) -> None:
    text = " ".join(runs.text().split())
    assert "What the main sets show." in text
    # +0.2 on a and −0.1 on b.
    assert "`ours` has a higher tau-b than `reference` on 1 of 2 sets, by +0.050 in the mean of all; on " in text
    # On a alone: 0.75 of 0.8 by ours, 0.2 of 0.8 by the trees.
    assert "Where the ceiling is known (1 set), the best trained ranker reaches 94% of it in the mean" in text
    assert "the best of those without an encoder 25%" in text
    assert "Ceiling 0.800 [0.700, 0.900]: one answer against another." in text
    assert "| untrained | prompt length | 1 | 0.100 [0.050, 0.150] | 55.0% | 60.0% | | |" in text
    assert re.search(r"\| trained \| reference \| 1 \| 0\.550 \[", text)
    assert re.search(r"\| \| ours \| 2 \| \*\*0\.750 \[0\.\d{3}, 0\.\d{3}\]\*\* \| 87\.5% \| 92\.5% \| 2,000 \| 200 \|", text)
    assert "| main | 100 | 400 | 2,000 | 9 of 9 |" not in text  # the made-up runs state a limit for training alone
    assert "| main | 100 | all | all | 9 of 9 |" in text
    assert "Machine: a CPU, 2 cores; one thread a run. Measured from 2026-01-02 to 2026-01-02." in text


@pytest.mark.parametrize(
    "heading",
    ["## Every set", "## From one set to another", "## From some models to others", "## Chats", "## Precision after export"],
)
def test_what_was_not_measured_has_no_section(runs: Runs, heading: str) -> None:
    text = runs.text()
    assert "## The main sets" in text
    assert heading not in text


def test_without_anything_there_is_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs(tmp_path)
    runs.experiment("main", MAIN)
    assert runs.report() == 1
    assert "no finished run of any experiment" in capsys.readouterr().err
    assert page.main(["--results", str(runs.out), "--out", str(runs.page)]) == 1
    assert not runs.page.exists()


def test_missing_runs_are_said(runs: Runs) -> None:
    (runs.runs / "main" / "b.ours.0.json").unlink()
    text = runs.text()
    assert "1 run missing of those that the experiments ask for; the rows lack them." in text
    assert "| 8 of 9 |" in text


@pytest.mark.parametrize(
    "sentence",
    [
        "## Every set",
        "| a | 100 | 30 | 0.100 | 0.200 | 0.400 | **0.600** | 0.800 |",
        "## What to minimise, and which pairs to learn from",
        "Highest tau-b: **margin**, 0.600; lowest: regression, 0.400; their intervals do not overlap.",
        "Highest tau-b: **6 layers**, 0.550; lowest: 3 layers, 0.500; their intervals overlap.",
        "## What training costs",
        "the factor goes from 2.00 to 1.50 in the mean and the share from 70% to 88%.",
        "| a | shipped | 2.00 | 1.50 | 70.0% | 88.0% | 20 |",
        "`ours`: tau-b 0.600 in the mean on the set learned from, 0.250 on the others. Best elsewhere: b, 0.300.",
        "| a | 0.700 | 0.200 |",
        "with 0.050 less tau-b than that of their own half",
        "- A note.",
        "Against alone, last turn comes out highest (-0.010 tau-b) and everything lowest (-0.200).",
        "| a | everything | 30 | 0.500 [0.400, 0.600] | -0.200 [-0.100, +0.100] | 25% |",
        "int8 loses at most 0.0030 tau-b against fp32 on any set.",
        "| int8 | a | 0.497 |",
        "in CPU time for a prompt on a CPU, alone and in batches of 8",
        "| int8 | 25.0 | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) |",
    ],
)
def test_every_section_says_what_it_shows(everything: Runs, sentence: str) -> None:
    assert sentence in " ".join(everything.page.read_text().split())


def svg_text(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_plots_show_the_figures_and_come_out_the_same(everything: Runs, tmp_path: Path) -> None:
    text = everything.page.read_text()
    first = {path.name: path.read_bytes() for path in everything.page.with_suffix("").iterdir()}
    assert first.keys() == {f"{name}.svg" for name in PLOTS}
    assert set(re.findall(r"\]\(quality/(\w+\.svg)\)", text)) == first.keys()
    page.write(json.loads(everything.out.read_text()), tmp_path / "quality.md")
    assert (tmp_path / "quality.md").read_text() == text
    assert {path.name: path.read_bytes() for path in (tmp_path / "quality").iterdir()} == first
    assert {"0.70", "0.20", "0.30", "0.50", "a", "b"} <= set(svg_text(first["across.svg"].decode()))
    assert {"ours", "reference", "trees", "prompt length", "ceiling"} <= set(svg_text(first["wide.svg"].decode()))
    assert "a (main)" in svg_text(first["cost.svg"].decode())


def test_a_plot_without_figures_goes_away(runs: Runs) -> None:
    stale = runs.page.with_suffix("") / "wide.svg"
    stale.parent.mkdir()
    stale.write_text("old")
    assert "wide.svg" not in runs.text()
    assert not stale.exists()


@pytest.mark.parametrize("plot", PLOTS.values(), ids=list(PLOTS))
def test_a_plot_needs_figures(plot: Callable[[dict[str, Any]], str | None]) -> None:
    assert plot({"cost": [], "rows": [], "across": [], "depth_and_length": []}) is None


def test_the_committed_page_is_what_its_figures_give() -> None:
    """Both are there or neither; the plots by their text, since their bytes are also the plotting library's."""
    assert PAGE.exists() == RESULT.exists()
    if PAGE.exists():
        document = json.loads(RESULT.read_text(encoding="utf-8"))
        assert page.page(document) == PAGE.read_text(encoding="utf-8"), "run python -m benchmarks.quality page"
        drawn = {f"{name}.svg": svg_text(text) for name, plot in PLOTS.items() if (text := plot(document)) is not None}
        folder = PAGE.with_suffix("")
        assert {path.name: svg_text(path.read_text(encoding="utf-8")) for path in folder.iterdir()} == drawn
