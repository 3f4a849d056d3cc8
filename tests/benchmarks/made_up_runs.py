"""A folder of made-up experiments and their results, and what the report and the page make of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import page, report

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
    times = {f"times_fp32_batch_{size}{end}": 2.0 for size in (1, 8) for end in ("", "_low", "_high")}
    bundles = [{"precision": "int8", "bundle_bytes": 25_000_000} | times, {"precision": "fp32", "bundle_bytes": 92_000_000}]
    stamp = {"commit": "abc", "machine": {"cpu_model": "a CPU"}}
    (runs.runs / "precision.json").write_text(json.dumps({"stamp": stamp, "precision": precision, "bundles": bundles}))
    return runs
