"""From a folder of made-up runs to JSON, page and plots, with figures worked out by hand; and the committed page against its JSON."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality import page, report
from benchmarks.quality.cost import best_point, cost_ratios, first_reaching, side_by_side
from benchmarks.quality.page import PAGE, RESULT
from benchmarks.quality.plots import PLOTS
from benchmarks.quality.report import int8_tau_loss
from benchmarks.quality.results import Result
from trainer.intervals import tau_interval_over_seeds

STAMP = {
    "machine": {"cpu_model": "a CPU", "allotted_cores": 2, "gpus": []},
    "commit": "abc",
    "date": "2026-01-02T00:00:00+00:00",
}
CEILING = {"value": 0.8, "low": 0.7, "high": 0.9, "how": "one answer against another"}

MAIN = """
description = "What the main sets show."
[subset]
train_prompts = 100
[[runs]]
method = "prompt length"
kind = "prompt_length"
datasets = ["a", "b"]
[[runs]]
method = "trees"
kind = "trees"
datasets = ["a", "b"]
[[runs]]
method = "reference"
datasets = ["a", "b"]
[[runs]]
method = "ours"
datasets = ["a"]
seeds = [0, 1]
expect_tau = [0.2, 0.9]
[[runs]]
method = "ours"
datasets = ["b"]
"""


def history(*points: tuple[float, int, float]) -> list[dict[str, float]]:
    return [
        {"train_cpu_seconds": second, "encoded_prompts": prompts, "validation_tau_b": tau} for second, prompts, tau in points
    ]


class Runs:
    """A folder of experiments and their results, as run.py leaves it."""

    def __init__(self, folder: Path) -> None:
        self.experiments, self.runs = folder / "experiments", folder / "runs"
        self.out, self.page = folder / "quality.json", folder / "docs" / "quality.md"
        self.page.parent.mkdir()
        self.experiments.mkdir()

    def experiment(self, name: str, text: str) -> None:
        (self.experiments / f"{name}.toml").write_text(text)

    def add(self, dataset: str, method: str, seed: int, tau: float, kind: str = "encoder", **more: Any) -> Path:
        figures = {
            **{"experiment": "main", "dataset": dataset, "method": method, "seed": seed, "kind": kind, "model": "3 models"},
            **{"settings": {}, "subset": {"train_prompts": 100}, "start": "", "stamp": STAMP, "transfer": {}},
            "prompts": {"train": 100, "validation": 20, "test": 30},
            **{"tau": tau, "tau_low": tau - 0.05, "tau_high": tau + 0.05, "min_gap": 0.2},
            **{"pair_accuracy": 0.5 + tau / 2, "filtered_pair_accuracy": 0.55 + tau / 2, "ceiling": CEILING},
            **more,
        }
        if kind == "encoder" and "history" not in more:
            figures |= {
                "history": history((100.0, 1000, tau), (200.0, 2000, tau - 0.01)),
                "train_cpu_seconds": 200.0,
                "encoder_forwards": 2000,
            }
        path = self.runs / figures["experiment"] / f"{dataset}.{method.replace(' ', '_')}.{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures))
        rng = np.random.default_rng(seed)
        lengths = np.arange(1.0, 31.0)
        np.savez(path.with_suffix(".npz"), test_scores=lengths + rng.normal(0, 8, 30), test_lengths=lengths)
        return path

    def report(self) -> int:
        return report.main(["--runs", str(self.runs), "--experiments", str(self.experiments), "--out", str(self.out)])

    def document(self) -> dict[str, Any]:
        assert self.report() == 0
        read: dict[str, Any] = json.loads(self.out.read_text())
        return read

    def text(self) -> str:
        """The page, through the command."""
        self.document()
        assert page.main(["--results", str(self.out), "--out", str(self.page)]) == 0
        return self.page.read_text()


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return made_runs(tmp_path)


def made_runs(folder: Path) -> Runs:
    """Set a: reference 0.55, ours 0.7 and 0.8. Set b: reference 0.4, ours 0.3, and no ceiling."""
    made = Runs(folder)
    made.experiment("main", MAIN)
    for dataset, reference, ours in (("a", 0.55, (0.7, 0.8)), ("b", 0.4, (0.3,))):
        more = {} if dataset == "a" else {"ceiling": None}
        made.add(dataset, "prompt length", 0, 0.1, "prompt_length", **more)
        made.add(dataset, "trees", 0, 0.2, "trees", **more)
        made.add(dataset, "reference", 0, reference, **more)
        for seed, tau in enumerate(ours):
            made.add(dataset, "ours", seed, tau, **more)
    return made


def test_seeds_become_one_row(runs: Runs) -> None:
    rows = {(row["dataset"], row["method"]): row for row in runs.document()["rows"]}
    assert len(rows) == 8
    row = rows["a", "ours"]
    assert (row["seeds"], row["tau"], row["pair_accuracy"]) == (2, pytest.approx(0.75), pytest.approx(0.875))
    assert (row["train_prompts"], row["test_prompts"], row["ceiling"]) == (100, 30, 0.8)
    assert (row["train_cpu_seconds"], row["encoder_forwards"]) == (200.0, 2000)
    assert rows["a", "trees"]["train_cpu_seconds"] is None
    assert rows["b", "ours"]["ceiling"] is None
    # One seed: its own interval. Two: from the scores on disk.
    assert (rows["a", "trees"]["tau_low"], rows["a", "trees"]["tau_high"]) == (pytest.approx(0.15), pytest.approx(0.25))
    scores = [np.load(runs.runs / "main" / f"a.ours.{seed}.npz")["test_scores"] for seed in (0, 1)]
    expected = tau_interval_over_seeds(scores, np.arange(1.0, 31.0))
    assert (row["tau_low"], row["tau_high"]) == (pytest.approx(expected.low, abs=1e-4), pytest.approx(expected.high, abs=1e-4))


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


def test_a_run_of_other_settings_is_refused(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.add("a", "ours", 0, 0.7, settings={"margin": 2.0})
    assert runs.report() == 1
    assert "a.ours.0.json: measured with another margin than main.toml says" in capsys.readouterr().err


def test_a_run_outside_its_range_fails_the_report_but_is_shown(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    runs.add("a", "ours", 0, 0.95)
    assert runs.report() == 1
    assert "main/a.ours.0: tau-b is 0.95, expected 0.2 to 0.9" in capsys.readouterr().err
    assert runs.out.exists()


def test_several_seeds_need_their_scores(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    (runs.runs / "main" / "a.ours.1.npz").unlink()
    assert runs.report() == 1
    assert "no scores to take an interval over seeds from" in capsys.readouterr().err


def test_seeds_judged_on_other_prompts_are_refused(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(runs.runs / "main" / "a.ours.1.npz", test_scores=np.arange(30.0), test_lengths=np.arange(2.0, 32.0))
    assert runs.report() == 1
    assert "judged on different prompts" in capsys.readouterr().err


def result(
    method: str, *points: tuple[float, int, float], dataset: str = "a", experiment: str = "main", seed: int = 0
) -> Result:
    names = {"experiment": experiment, "dataset": dataset, "method": method, "seed": seed}
    return Result(method, {**names, "history": history(*points)}, Path("none.npz"))


REFERENCE = result("reference", (10.0, 100, 0.3), (20.0, 200, 0.5), (30.0, 300, 0.5), (40.0, 400, 0.4))


def test_the_first_of_equal_evaluations_counts() -> None:
    assert best_point(REFERENCE.figures["history"])["train_cpu_seconds"] == 20.0
    reached = first_reaching(REFERENCE.figures["history"], 0.5)
    assert reached is not None
    assert reached["train_cpu_seconds"] == 20.0
    assert first_reaching(REFERENCE.figures["history"], 0.51) is None


def test_time_to_the_references_tau() -> None:
    ours = result("ours", (1.0, 10, 0.49), (3.0, 25, 0.55), (4.0, 50, 0.6))
    (compared,) = side_by_side([REFERENCE, ours])
    assert (compared.tau, compared.reference_cpu_seconds, compared.reference_forwards) == (0.5, 20.0, 200)
    assert (compared.cpu_seconds, compared.forwards, compared.time_ratio) == (3.0, 25, pytest.approx(0.15))
    ratios = cost_ratios([compared])
    assert ratios["time_to_reference_tau"] == pytest.approx(0.15)
    assert ratios["reference_forwards_over_ours"] == pytest.approx(8)


def test_never_is_infinitely_slow() -> None:
    """Three sets: 0.1, 0.4, never: the median is 0.4. Two of three never: there is no median."""
    other = [result("reference", (10.0, 100, 0.5), dataset=name) for name in "abc"]
    reaching = [result("ours", (seconds, 10, 0.5), dataset=name) for name, seconds in (("a", 1.0), ("b", 4.0))]
    never = [result("ours", (9.0, 10, 0.4), dataset=name) for name in "bc"]
    ratios = cost_ratios(side_by_side([*other, *reaching, never[1]]))
    assert ratios["time_to_reference_tau"] == pytest.approx(0.4)
    assert (ratios["time_to_reference_tau_best"], ratios["time_to_reference_tau_worst"]) == (pytest.approx(0.1), None)
    assert (ratios["time_compared_runs"], ratios["time_never_reached"]) == (3, 1)
    ratios = cost_ratios(side_by_side([*other, reaching[0], *never]))
    assert (ratios["time_to_reference_tau"], ratios["reference_forwards_over_ours"]) == (None, None)


def test_the_experiment_about_cost_is_the_one_that_counts() -> None:
    ours = result("ours", (3.0, 25, 0.55))
    in_cost = [
        result("reference", (10.0, 100, 0.5), experiment="cost"),
        result("ours", (5.0, 50, 0.5), experiment="cost"),
        result("another", (2.0, 20, 0.5), experiment="cost"),
    ]
    compared = side_by_side([REFERENCE, ours, *in_cost])
    assert [(each.experiment, each.method) for each in compared] == [("cost", "ours"), ("cost", "another")]
    # The headline is of ours alone.
    assert cost_ratios(compared)["time_to_reference_tau"] == pytest.approx(0.5)
    assert cost_ratios([compared[1]]) == {}


def test_other_seeds_and_sets_are_not_compared() -> None:
    assert side_by_side([REFERENCE, result("ours", (1.0, 1, 0.9), seed=1), result("ours", (1.0, 1, 0.9), dataset="b")]) == []


def test_the_int8_loss_is_the_worst() -> None:
    rows = [
        {"dataset": name, "precision": kind, "tau": tau}
        for name, kind, tau in (
            ("a", "fp32", 0.5),
            ("a", "int8", 0.499),
            ("b", "fp32", 0.4),
            ("b", "int8", 0.38),
            ("b", "fp16", 0.1),
        )
    ]
    assert int8_tau_loss(rows) == pytest.approx(0.02)
    assert int8_tau_loss(rows[:1]) is None


def with_everything(runs: Runs) -> Runs:
    """All sections: a wide table, a comparison on one set, transfer between sets and models, chats, precision."""
    subset = "[subset]\ntrain_prompts = 100\n"
    runs.experiment("wide", MAIN.replace("main sets", "wide table").replace("[0, 1]", "[0]"))
    for dataset in ("a", "b"):
        for method, kind, tau in (
            ("prompt length", "prompt_length", 0.1),
            ("trees", "trees", 0.2),
            ("reference", "encoder", 0.4),
            ("ours", "encoder", 0.6),
        ):
            runs.add(dataset, method, 0, tau, kind, experiment="wide")
    entries = "".join(f'[[runs]]\nmethod = "{name}"\ndatasets = ["a"]\n' for name in ("margin", "regression"))
    runs.experiment("losses", subset + entries)
    runs.add("a", "margin", 0, 0.6, experiment="losses")
    runs.add("a", "regression", 0, 0.4, experiment="losses")
    runs.experiment("depth_and_length", subset + entries.replace("margin", "3 layers").replace("regression", "6 layers"))
    runs.add("a", "3 layers", 0, 0.5, experiment="depth_and_length")
    runs.add("a", "6 layers", 0, 0.55, experiment="depth_and_length")
    runs.experiment("across", subset + '[[runs]]\nmethod = "ours"\ndatasets = ["a", "b"]\ntransfer_to = ["a", "b"]\n')
    figures = {"tau_low": 0.1, "tau_high": 0.3, "pair_accuracy": 0.6, "filtered_pair_accuracy": 0.6, "prompts": 30}
    runs.add("a", "ours", 0, 0.7, experiment="across", transfer={"b": {"tau": 0.2, **figures}})
    runs.add("b", "ours", 0, 0.5, experiment="across", transfer={"a": {"tau": 0.3, **figures}})
    runs.experiment("models", subset + '[[runs]]\nmethod = "ours"\ndatasets = ["a"]\ntrain_models = "seen"\n')
    runs.add("a", "ours", 0, 0.6, experiment="models", transfer={"unseen models": {"tau": 0.55, **figures}})
    runs.experiment("recovery", subset + '[[runs]]\nmethod = "shipped"\nkind = "checkpoint"\ndatasets = ["a"]\n')
    repaired = {"own": {"factor": 2.0, "covered": 0.7, "prompts": 900}, "anew": {"factor": 1.5, "covered": 0.88, "prompts": 20}}
    runs.add("a", "shipped", 0, 0.5, "checkpoint", experiment="recovery", recalibration=repaired)
    changed = {
        "change_low": -0.1,
        "change_high": 0.1,
        "tau": 0.5,
        "tau_low": 0.4,
        "tau_high": 0.6,
        "prompts": 30,
        "unread": 0.25,
    }
    chat = [
        {"question": "around", "dataset": "a", "way": way, "change": change, **changed}
        for way, change in (("alone", 0.0), ("last turn", -0.01), ("everything", -0.2))
    ]
    (runs.runs / "chat.json").write_text(json.dumps({"notes": ["A note."], "chat": chat}))
    precision = [{"precision": kind, "dataset": "a", "tau": tau} for kind, tau in (("fp32", 0.5), ("int8", 0.497))]
    (runs.runs / "precision.json").write_text(json.dumps({"precision": precision}))
    return runs


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With its page written. Do not change it."""
    made = with_everything(made_runs(tmp_path_factory.mktemp("everything")))
    made.text()
    return made


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
    ],
)
def test_every_section_says_what_it_shows(everything: Runs, sentence: str) -> None:
    assert sentence in " ".join(everything.page.read_text().split())


def test_the_json_has_the_parts_that_others_read(everything: Runs) -> None:
    document = json.loads(everything.out.read_text())
    assert {"stamp", "rows", "ratios", "across", "depth_and_length", "chat", "precision"} <= document.keys()
    assert {row["method"] for row in document["depth_and_length"]} == {"3 layers", "6 layers"}
    assert not any(row["experiment"] == "depth_and_length" for row in document["rows"])
    assert document["ratios"]["int8_tau_loss"] == pytest.approx(0.003)
    # Of the four in main and wide, ours never gets there on b in main; elsewhere it is there at its first evaluation, as the reference.
    assert document["ratios"]["time_to_reference_tau"] == 1.0
    assert (document["ratios"]["time_compared_runs"], document["ratios"]["time_never_reached"]) == (4, 1)


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


@pytest.mark.parametrize(
    ("recorded", "what"),
    [
        ({"train_models": "seen"}, "train_models"),
        ({"transfer": {"elsewhere": {}}}, "transfer_to"),
        ({"made_from": {"model.safetensors": "0" * 64}}, "recipe or checkpoint"),
    ],
)
def test_a_result_made_from_something_else_is_refused(
    runs: Runs, recorded: dict[str, Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.experiment(
        "extra", '[subset]\ntrain_prompts = 100\n[[runs]]\nmethod = "ours"\ndatasets = ["a"]\nexpect_tau = [0.0, 1.0]\n'
    )
    runs.add("a", "ours", 0, 0.5, experiment="extra", **recorded)
    assert runs.report() == 1
    assert f"another {what} than extra.toml says" in capsys.readouterr().err
