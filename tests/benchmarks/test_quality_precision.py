"""What each precision loses: figures worked out by hand, and the whole benchmark on a tiny checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
from corpus import make_records

from benchmarks.quality import precision
from benchmarks.quality.precision_figures import rows_of, speed_of
from benchmarks.quality.precision_scores import Scores
from benchmarks.quality.precision_sets import MIXED, OTHERS, SMALLEST_SET, HeldOut, held_out
from pars.v1 import bundle_pb2
from sidecar.calibration import Calibrator
from trainer.model_effects import to_examples
from trainer.recipe import read_recipe
from trainer.records import Records
from trainer.run import split_examples

RECIPE = """
[train]
similarity = 0.0
test_share = 0.4
[[records]]
path = "own.parquet"
[[zero_shot]]
path = "foreign.parquet"
[[zero_shot]]
path = "small.parquet"
[[zero_shot]]
path = "smaller.parquet"
"""


@pytest.fixture
def recipe(tmp_path: Path, records: Records) -> Path:
    """A recipe file beside its data: a source to learn from, and a large and two small ones never learned from."""
    records.save(tmp_path / "own.parquet")
    for seed, (name, count) in enumerate({"foreign": 900, "small": 60, "smaller": 30}.items()):
        make_records(count, seed=seed + 1).save(tmp_path / f"{name}.parquet")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "recipe.toml"


def test_held_out_prompts_are_of_the_test_part(recipe: Path, records: Records) -> None:
    read = read_recipe(recipe, recipe.parent)
    foreign, others, mixed = held_out(read, zero_shot_prompts=1000, own_prompts=30)
    assert (foreign.name, others.name, mixed.name, len(mixed.prompts)) == ("foreign", OTHERS, MIXED, 30)
    assert 10 < len(others.prompts) < SMALLEST_SET <= len(foreign.prompts)
    test = split_examples(to_examples(records), read.config).test
    assert set(mixed.prompts) < set(test.prompt)
    lengths = dict(zip(test.prompt, test.typical_tokens, strict=True))
    assert [lengths[prompt] for prompt in mixed.prompts] == pytest.approx(mixed.typical_tokens)
    fewer = held_out(read, zero_shot_prompts=1000, own_prompts=10)[-1]
    assert fewer.prompts == mixed.prompts[:10], "a smaller run uses some of the same prompts"


def by_hand() -> HeldOut:
    tokens = np.array([10.0, 20.0, 40.0, 80.0])
    return HeldOut("by hand", ["a", "b", "c", "d"], tokens, tokens)


def calibrator() -> Calibrator:
    """Score 0 means 10 tokens expected and 30 at most, score 3 means 40 and 60."""
    return Calibrator(
        bundle_pb2.Calibration(scores=[0, 3], quantiles=[0, 1], expected_tokens=[10, 40], expected_tokens_p90=[30, 60])
    )


def test_figures_are_those_worked_out_by_hand() -> None:
    right = np.array([0.0, 1.0, 2.0, 3.0])
    turned = right[[0, 2, 1, 3]]  # one pair of six the wrong way round
    scores = {"fp32": Scores(right, right), "int8": Scores(turned, right[::-1])}
    fp32, int8 = rows_of(by_hand(), scores, {"fp32": calibrator(), "int8": calibrator()}, resamples=200)
    assert (fp32.tau, fp32.tau_loss, fp32.tau_loss_low, fp32.tau_loss_high) == (1.0, 0.0, 0.0, 0.0)
    assert (fp32.batched_loss, fp32.tau_to_fp32, fp32.alone_to_batched, fp32.max_batch_difference) == (0.0, 1.0, 1.0, 0.0)
    assert int8.tau == int8.tau_to_fp32 == pytest.approx(4 / 6)
    assert int8.tau_loss == pytest.approx(2 / 6)
    assert int8.tau_loss_low <= int8.tau_loss <= int8.tau_loss_high
    assert int8.batched_loss == pytest.approx(2.0)
    assert int8.max_batch_difference == pytest.approx(3.0 / right.std())
    # Expected medians 10, 20, 30, 40 for 10, 20, 40, 80 tokens; percentiles 30, 40, 50, 60.
    assert fp32.under_p90 == 0.75
    assert fp32.median_log_ratio == pytest.approx(np.log(4 / 3) / 2)


def test_speed_is_a_ratio_of_the_same_round() -> None:
    spent = {"fp32": {1: np.array([4.0, 8.0, 8.0])}, "int8": {1: np.array([2.0, 2.0, 4.0])}}
    assert speed_of(spent)["int8"] == {
        "cpu_ms_batch_1": 2.0,
        "times_fp32_batch_1": 2.0,
        "times_fp32_batch_1_low": 2.0,
        "times_fp32_batch_1_high": 4.0,
    }


def test_the_benchmark_runs_whole_and_goes_on_where_it_stood(
    recipe: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1. three precisions, exported and scored 2. again: nothing is made anew 3. again, with a promise that cannot be kept."""
    out, work = tmp_path / "precision.json", tmp_path / "work"
    flags = ["--checkpoint", str(tiny_checkpoint), "--data", str(recipe.parent), "--recipe", str(recipe), "--work", str(work)]
    flags += ["--out", str(out), "--only", "int8,int8_dynamic", "--resamples", "20", "--timed-prompts", "8", "--rounds", "1"]
    assert precision.main([*flags, "--largest-loss", "0.2"]) == 0, capsys.readouterr().err
    document = json.loads(out.read_text(encoding="utf-8"))
    rows = {(row["dataset"], row["precision"]): row for row in document["precision"]}
    names = ("fp32", "int8", "int8_dynamic")
    assert list(rows) == [(data_set, name) for data_set in ("foreign", OTHERS, MIXED) for name in names]
    for data_set in ("foreign", OTHERS, MIXED):
        assert rows[data_set, "fp32"]["tau"] > 0.5
        assert rows[data_set, "fp32"]["tau_loss"] == 0.0
        assert rows[data_set, "int8"]["max_batch_difference"] == 0.0
        assert rows[data_set, "int8"]["alone_to_batched"] == 1.0
        assert rows[data_set, "int8_dynamic"]["max_batch_difference"] > 0.0
        assert 0.7 < rows[data_set, "int8"]["under_p90"] <= 1.0
    bundles = {bundle["precision"]: bundle for bundle in document["bundles"]}
    assert bundles["int8"]["bundle_bytes"] < bundles["fp32"]["bundle_bytes"]
    assert bundles["int8"]["times_fp32_batch_8"] > 0
    made = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    assert any(path.suffix == ".npz" for path in made)
    assert precision.main([*flags, "--largest-loss", "-2"]) == 1
    assert "int8 loses" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == made
    assert json.loads(out.read_text(encoding="utf-8"))["precision"] == document["precision"]
