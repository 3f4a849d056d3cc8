"""Experiments from a TOML file to one JSON per run, on a small corpus: what is run, what is kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import make_records

from benchmarks.quality import datasets
from benchmarks.quality import run as quality_run
from benchmarks.quality.datasets import Subset, load_dataset
from benchmarks.quality.experiment import read_experiment
from trainer.errors import ConfigError, DataError
from trainer.records import Records

SETS: datasets.Sets = {
    "one": {"path": "one.parquet", "model_column": "model", "repeat_columns": ["response_tokens", "weight", "weight"]},
    "many": {"path": "many.parquet", "model_column": "model"},
}

EXPERIMENT = """
description = "Small."

[subset]
train_prompts = 150
test_prompts = 100
similarity = 0.0

[settings]
batch_prompts = 16
epochs = 1
learning_rate = 1e-3
max_tokens = 32
ngram_buckets = 1024
evaluations_per_epoch = 1

[[runs]]
method = "prompt length"
kind = "prompt_length"
datasets = ["one", "many"]

[[runs]]
method = "margin"
datasets = ["many"]
seeds = [0, 1]
train_models = "seen"
transfer_to = ["one"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one set of a single model and one of four."""
    data = tmp_path / "data"
    base = make_records(400)
    lengths = base.response_tokens
    # The weight column stands in for two further answers.
    Records.build(base.prompt, lengths, model=["solo"] * len(base), weight=(lengths + 1).tolist()).save(data / "one.parquet")
    models = [f"model-{number}" for number in range(4)]
    Records.build(
        [prompt + " please" for prompt in base.prompt for _ in models],
        [length * (1 + number / 4) for length in lengths.tolist() for number in range(4)],
        model=models * len(base),
    ).save(data / "many.parquet")
    (tmp_path / "small.toml").write_text(EXPERIMENT)
    monkeypatch.setattr(quality_run, "registry", lambda: SETS)
    return tmp_path


def words(folder: Path, backbone: Path, *more: str) -> list[str]:
    return [
        str(folder / "small.toml"), "--data", str(folder / "data"), "--runs", str(folder / "runs"), "--backbone", str(backbone), *more
    ]  # fmt: skip


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / "small" / f"{name}.json").read_text())
    return found


def test_a_trained_run_says_what_it_cost_and_how_far_it_carries(folder: Path, tiny_backbone: Path) -> None:
    assert quality_run.main(words(folder, tiny_backbone, "--only", "many.margin.1")) == 0
    run = result(folder, "many.margin.1")
    assert run["model"] == "2 models"
    assert run["prompts"]["train"] == 150
    assert run["prompts"]["test"] <= 100
    assert run["tau_low"] <= run["tau"] <= run["tau_high"]
    assert run["encoder_forwards"] == run["history"][-1]["encoded_prompts"] == 150 // 16 * 16 + 150 % 16
    assert run["train_cpu_seconds"] > 0
    assert run["settings"]["seed"] == 1
    assert set(run["transfer"]) == {"one", "unseen models"}
    # Lengths of the unseen models are multiples of the seen ones', so the order and the figures are the same.
    assert run["transfer"]["unseen models"]["tau"] == pytest.approx(run["tau"], abs=1e-6)
    saved = np.load(folder / "runs" / "small" / "many.margin.1.npz")
    assert len(saved["test_scores"]) == len(saved["test_lengths"]) == run["prompts"]["test"]
    assert not list((folder / "runs" / "small").glob("*.state"))


def test_an_untrained_run_has_a_ceiling_from_repeated_answers(folder: Path, tiny_backbone: Path) -> None:
    assert quality_run.main(words(folder, tiny_backbone, "--only", "one.prompt_length.0")) == 0
    run = result(folder, "one.prompt_length.0")
    assert run["ceiling"]["value"] > 0.95  # the other answers are one token longer than the first
    assert run["settings"] == {}
    assert "encoder_forwards" not in run


def test_only_missing_runs_are_run(folder: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def note(runs: Any, flags: Any) -> int:
        asked.append([run.name for run in runs])
        return 0

    monkeypatch.setattr(quality_run, "_in_a_process", note)
    done = folder / "runs" / "small" / "one.prompt_length.0.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert quality_run.main(words(folder, tiny_backbone)) == 0
    assert asked == [["many.prompt_length.0"], ["many.margin.0"], ["many.margin.1"]]


def test_cheap_methods_share_the_reading_of_their_set(folder: Path, tiny_backbone: Path) -> None:
    path = folder / "small.toml"
    more = '\n[[runs]]\nmethod = "n-gram"\nkind = "ngram"\ndatasets = ["one"]\nexpect_tau = [0.999, 1.0]\n'
    path.write_text(EXPERIMENT + more)
    runs = [run for run in read_experiment(path).runs if run.dataset == "one"]
    assert [[run.name for run in group] for group in quality_run._grouped(runs)] == [["one.prompt_length.0", "one.n_gram.0"]]
    # The one that misses its range does not keep the other from being run.
    assert quality_run.main(words(folder, tiny_backbone, "--only", "one.n_gram.0", "one.prompt_length.0")) == 1
    assert result(folder, "one.n_gram.0")["tau"] < 0.999
    assert result(folder, "one.prompt_length.0")["kind"] == "prompt_length"


def test_a_run_that_misses_its_range_fails_and_keeps_its_figures(
    folder: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "small.toml"
    path.write_text(path.read_text().replace('kind = "prompt_length"', 'kind = "prompt_length"\nexpect_tau = [0.999, 1.0]'))
    assert quality_run.main(words(folder, tiny_backbone, "--only", "one.prompt_length.0")) == 1
    assert "expected 0.999 to 1.0" in capsys.readouterr().err
    assert result(folder, "one.prompt_length.0")["tau"] < 0.999


def test_every_row_of_a_table_has_the_same_prompts(folder: Path) -> None:
    subset = Subset(train_prompts=50, test_prompts=50, similarity=0.0)
    first = load_dataset("one", folder / "data", subset, SETS)
    again = load_dataset("one", folder / "data", subset, SETS)
    assert first.parts.train.prompt == again.parts.train.prompt
    assert len(first.parts.train) == 50
    assert not set(first.parts.train.prompt) & set(first.parts.test.prompt)
    assert first.repeats is not None
    assert np.array_equal(first.repeats[:, 0], first.parts.test.typical_tokens.round())
    assert first.parts.train.noise.all()


def test_the_halves_of_the_models_share_no_model_and_split_alike(folder: Path) -> None:
    seen = load_dataset("many", folder / "data", Subset(similarity=0.0), SETS, models="seen")
    unseen = load_dataset("many", folder / "data", Subset(similarity=0.0), SETS, models="unseen")
    assert not set(seen.records.model) & set(unseen.records.model)
    assert seen.parts.test.prompt == unseen.parts.test.prompt


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[subset]", "[subsets]", "unknown keys subsets"),
        ("train_prompts", "training", "unknown keys training"),
        ("epochs = 1", "epoch = 1", "unknown setting 'epoch'"),
        ('kind = "prompt_length"', 'kind = "length"', "kind must be one of"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "runs named alike: many.margin.0"),
        ('train_models = "seen"', "expect_tau = [1, 0]", "expect_tau must be"),
        ("[[runs]]", "[[ran]]", "unknown keys ran"),
    ],
)
def test_an_experiment_with_a_mistake_is_refused(
    folder: Path, tiny_backbone: Path, before: str, after: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "small.toml"
    path.write_text(EXPERIMENT.replace(before, after))
    with pytest.raises(ConfigError, match=message):
        read_experiment(path)
    assert quality_run.main(words(folder, tiny_backbone)) == 1
    assert message in capsys.readouterr().err


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none\.parquet: no such file"):
        load_dataset("gone", folder / "data", Subset(similarity=0.0), {"gone": {"path": "none.parquet"}})


def test_the_committed_experiments_are_well_formed() -> None:
    known = datasets.registry()
    files = sorted((Path(datasets.__file__).parent / "experiments").glob("*.toml"))
    assert files
    for path in files:
        experiment = read_experiment(path)
        assert experiment.description, path
        for run in experiment.runs:
            assert {run.dataset, *run.transfer_to} <= known.keys(), run.name
            assert run.kind in ("arrival", "max_tokens") or run.expect_tau != (-1.0, 1.0), (
                f"{path.stem}/{run.name} expects nothing"
            )


def test_a_few_prompts_of_a_set_repair_expected_tokens_and_not_the_order(
    folder: Path, tiny_backbone: Path, tiny_checkpoint: Path
) -> None:
    path = folder / "small.toml"
    (folder / "data" / "one.parquet").unlink()
    base = make_records(400)
    # The same prompts, answered five times as long as the checkpoint learned.
    Records.build(base.prompt, base.response_tokens * 5, weight=base.response_tokens.tolist()).save(
        folder / "data" / "one.parquet"
    )
    path.write_text(EXPERIMENT.replace('kind = "prompt_length"', f'kind = "checkpoint"\nstart = "{tiny_checkpoint}"'))
    assert quality_run.main(words(folder, tiny_backbone, "--only", "one.prompt_length.0")) == 0
    before, after = (result(folder, "one.prompt_length.0")["recalibration"][key] for key in ("own", "anew"))
    assert before["factor"] == pytest.approx(5, rel=0.2)
    assert before["covered"] < 0.3
    assert after["factor"] < 2
    assert after["covered"] > 0.7


def test_a_run_learns_with_the_settings_of_its_pairs(folder: Path, tiny_backbone: Path) -> None:
    """Two sources in one set: when pairs across them count nothing, another ranker comes out."""
    path = folder / "small.toml"
    base = make_records(400)
    sources = ["first" if row % 2 else "second" for row in range(len(base))]
    Records.build(base.prompt, base.response_tokens, source=sources).save(folder / "data" / "many.parquet")
    sets = {"many": {"path": "many.parquet", "source_column": "source"}}
    within = '\n[[runs]]\nmethod = "within"\ndatasets = ["many"]\nsettings = { cross_source_weight = 0.0 }\n'
    path.write_text(EXPERIMENT.replace('train_models = "seen"\ntransfer_to = ["one"]\n', "") + within)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality_run, "registry", lambda: sets)
        for name in ("many.margin.0", "many.within.0"):
            assert quality_run.main(words(folder, tiny_backbone, "--only", name)) == 0
    across, inside = (
        np.load(folder / "runs" / "small" / f"{name}.npz")["test_scores"] for name in ("many.margin.0", "many.within.0")
    )
    assert not np.allclose(across, inside)
