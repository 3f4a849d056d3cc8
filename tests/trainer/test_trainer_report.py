"""What a run claims to have learned: figures by hand, verdicts that can fail, and no claim where there was nothing to learn."""

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from corpus import make_records, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from trainer.__main__ import main
from trainer.calibrate import CalibrationTable
from trainer.checkpoint import read_checkpoint
from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.intervals import Interval, percentile_interval, tau_interval, tau_resamples
from trainer.local import LocalSource
from trainer.recipe import Recipe, RecordSource
from trainer.records import Records
from trainer.reliability import reliability
from trainer.report_claims import Ordering, judge_orderings, prompt_length_ordering, verdicts
from trainer.report_pairs import worst_pairs
from trainer.report_plot import plot_reliability
from trainer.report_text import PROMPT_CHARACTERS, shown
from trainer.resampled_tau import draw_counts, resampled_tau
from trainer.start import start_from

ROOT = Path(__file__).parents[2]


# Tau and verdicts


@pytest.mark.parametrize("count", [2, 30, 1500])
def test_tau_of_resamples_is_scipys(rng: np.random.Generator, count: int) -> None:
    """Ties in scores and in lengths, and those that drawing a prompt twice makes; 1,500 prompts are more than one chunk."""
    lengths = np.round(np.exp(rng.normal(2, 1, size=count)))
    scores = np.round(np.log(lengths + 1) + rng.normal(size=count), 1)
    rows = rng.integers(0, count, size=(5, count))
    expected = np.nan_to_num([kendalltau(scores[drawn], lengths[drawn]).statistic for drawn in rows])
    assert resampled_tau(scores, lengths, draw_counts(rows, count)) == pytest.approx(expected, abs=1e-12)


def test_intervals_of_a_perfect_a_reversed_and_a_constant_order() -> None:
    lengths = np.arange(1.0, 31.0)
    taus = tau_resamples([lengths, -lengths, np.ones(30)], lengths, resamples=50)
    assert taus.shape == (50, 3)
    assert taus[:, 0] == pytest.approx(np.ones(50))
    assert taus[:, 1] == pytest.approx(-np.ones(50))
    assert taus[:, 2].tolist() == [0.0] * 50


def test_percentile_interval_leaves_as_much_out_on_both_sides() -> None:
    interval = percentile_interval(np.arange(1001.0))
    assert (interval.low, interval.high) == pytest.approx((25.0, 975.0))


def test_the_paired_interval_is_narrower_than_two_beside_each_other(rng: np.random.Generator) -> None:
    lengths = rng.random(200)
    ours = lengths + rng.normal(0, 0.3, size=200)
    nearly_ours = ours + rng.normal(0, 0.02, size=200)
    _, rival = judge_orderings(ours, {"rival": nearly_ours}, lengths, resamples=200)
    assert rival.gain_interval is not None
    alone = tau_interval(ours, lengths, resamples=200)
    assert rival.gain_interval.high - rival.gain_interval.low < (alone.high - alone.low) / 3


def test_what_is_better_worse_and_neither(rng: np.random.Generator) -> None:
    lengths = rng.random(300)
    ours = lengths + rng.normal(0, 0.2, size=300)
    rivals = {"noise": rng.random(300), "the oracle": lengths, "its twin": ours.copy()}
    orderings = judge_orderings(ours, rivals, lengths, resamples=200)
    assert [ordering.name for ordering in orderings] == ["this ranker", "noise", "the oracle", "its twin"]
    assert orderings[2].gain == pytest.approx(orderings[0].tau_b - 1)
    assert verdicts(orderings) == [
        "It has learned something: on prompts it never saw, the interval of its tau lies above 0.",
        "Better than noise.",
        "WORSE than the oracle: use that instead.",
        "Not shown to be better than its twin: the interval of the difference holds 0.",
    ]


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(0.01, 0.2), "It has learned something"),
        (Interval(0.0, 0.2), "NOT shown to have learned anything"),
        (Interval(-0.1, 0.2), "NOT shown to have learned anything"),
        (Interval(-0.2, -0.01), "It orders prompts the WRONG WAY ROUND"),
    ],
)
def test_against_chance(interval: Interval, verdict: str) -> None:
    assert verdicts([Ordering("this ranker", 0.1, interval)])[0].startswith(verdict)


def test_prompt_length_competes_in_the_direction_that_fits() -> None:
    prompts = ["a", "bb", "ccc"]
    name, scores = prompt_length_ordering(prompts, ["dd", "eeee", "ffffff"], np.array([30.0, 20.0, 10.0]))
    assert (name, scores.tolist()) == ("prompt length, longest prompt first", [-1.0, -2.0, -3.0])
    name, scores = prompt_length_ordering(prompts, ["dd", "eeee", "ffffff"], np.array([10.0, 20.0, 30.0]))
    assert (name, scores.tolist()) == ("prompt length", [1.0, 2.0, 3.0])


# Expected tokens


def a_table() -> CalibrationTable:
    """Score 0 means 10 tokens and at most 20, score 1 means 110 and at most 220; linear between."""
    return CalibrationTable([0.0, 1.0], [0.0, 1.0], [10.0, 110.0], [20.0, 220.0], 100)


def test_reliability_by_hand() -> None:
    """Ten prompts expect 10 tokens and ten expect 60; of the first, nine stay within 20, of the second, all within 120."""
    scores = np.repeat([0.5, 0.0], 10)
    tokens = np.concatenate([np.full(5, 50.0), np.full(5, 70.0), np.arange(1.0, 10.0), [500.0]])
    judged = reliability(scores, tokens, a_table())
    low, high = judged.bins
    assert (low.prompts, low.expected, low.expected_p90, low.observed) == (10, 10.0, 20.0, 5.5)
    assert (high.prompts, high.expected, high.expected_p90, high.observed) == (10, 60.0, 120.0, 60.0)
    assert (high.observed_p10, high.observed_p90) == (50.0, 70.0)
    assert judged.covered == pytest.approx(19 / 20)
    # Wilson, 19 of 20, z = 1.96: (0.95 + 1.9208 / 20 ± 1.96 · sqrt(0.95 · 0.05 / 20 + 0.9604 / 400)) / (1 + 3.8416 / 20).
    assert (judged.covered_interval.low, judged.covered_interval.high) == pytest.approx((0.7639, 0.9911), abs=1e-3)
    assert judged.verdict.startswith("That agrees with the 90%")


@pytest.mark.parametrize(("within", "verdict"), [(800, "too low"), (900, "agrees"), (990, "too high")])
def test_a_90th_percentile_that_does_not_hold_is_said(within: int, verdict: str) -> None:
    tokens = np.concatenate([np.full(within, 5.0), np.full(1000 - within, 900.0)])
    assert verdict in reliability(np.zeros(1000), tokens, a_table()).verdict


def test_a_small_test_part_has_fewer_bins() -> None:
    assert len(reliability(np.linspace(0, 1, 9), np.full(9, 50.0), a_table()).bins) == 1
    assert len(reliability(np.linspace(0, 1, 400), np.full(400, 50.0), a_table()).bins) == 10


def test_the_plot_is_an_svg_and_the_same_each_time(tmp_path: Path) -> None:
    judged = reliability(np.linspace(0, 1, 200), np.linspace(5, 200, 200), a_table())
    for name in ("a.svg", "b.svg"):
        plot_reliability(judged, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "observed median" in "".join(ElementTree.parse(tmp_path / "a.svg").getroot().itertext())


# The worst pairs


def test_worst_pairs_by_hand() -> None:
    """Row 3 is longest and scored lowest. Of the rows at most half as long, row 2 is scored highest: wrong by 3. Row 1 is too close to
    row 0 to matter, so nothing else is wrong."""
    lengths, scores = np.array([10.0, 15.0, 40.0, 100.0]), np.array([1.0, 0.0, 3.0, 0.0])
    (pair,) = worst_pairs(scores, lengths)
    assert (pair.longer, pair.shorter) == (3, 2)
    assert pair.wrong_by == pytest.approx(3 / scores.std())


def test_a_right_order_and_a_constant_score_have_no_worst_pair() -> None:
    lengths = np.array([1.0, 4.0, 16.0])
    assert worst_pairs(lengths, lengths) == []
    assert worst_pairs(np.ones(3), lengths) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), min_size=2, max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_first_pair_is_the_worst_of_all_and_no_prompt_comes_twice(drawn: list[tuple[int, int]]) -> None:
    scores, lengths = np.array(drawn, dtype=np.float64).T
    wrong = [
        scores[short] - scores[long]
        for long, short in itertools.permutations(range(len(drawn)), 2)
        if lengths[long] >= 2 * lengths[short] and scores[short] > scores[long]
    ]
    pairs = worst_pairs(scores, lengths)
    assert bool(pairs) == bool(wrong)
    if wrong:
        assert pairs[0].wrong_by * scores.std() == pytest.approx(max(wrong))
    rows = [row for pair in pairs for row in (pair.longer, pair.shorter)]
    assert len(rows) == len(set(rows)) <= 20
    assert all(lengths[pair.longer] >= 2 * lengths[pair.shorter] for pair in pairs)


def test_a_prompt_is_shown_on_one_line_without_control_characters() -> None:
    assert shown("two\n\n lines") == "two lines"
    assert shown("\x1b[31mred") == "\ufffd[31mred"
    assert shown("x" * 200) == "x" * (PROMPT_CHARACTERS - 1) + "…"
    assert shown("x" * PROMPT_CHARACTERS) == "x" * PROMPT_CHARACTERS


# Through the command line


def train(folder: Path, records: Records, backbone: Path, *extra: str) -> int:
    records.save(folder / "mine.parquet")
    words = ["train", "--records", str(folder / "mine.parquet"), "--out", str(folder / "run"), "--similarity", "0"]
    words += ["--backbone", str(backbone), "--max-tokens", "32", "--ngram-buckets", "1024", "--learning-rate", "3e-3"]
    return main([*words, "--precision", "fp32", "--test-share", "0.25", *extra])


def test_a_run_says_what_it_learned(
    tmp_path: Path, tiny_backbone: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, records, tiny_backbone, "--epochs", "4", "--batch-prompts", "16", "--name", "mine") == 0
    said = capsys.readouterr().out
    report = (tmp_path / "run" / "report.md").read_text()
    card = read_checkpoint(tmp_path / "run" / "checkpoint").card
    assert said.startswith(report)
    assert report.startswith("# What mine learned")
    assert "It has learned something" in report
    for ordering, part in (("this ranker", "test"), ("the cheap scorer", "test_ngram")):
        (tau_b,) = re.findall(rf"^\| {ordering} +\| ([-.\d]+) \|", report, re.MULTILINE)
        # Both are rounded, the card's to four digits.
        assert float(tau_b) == pytest.approx(card.metrics[part]["all"]["tau_b"], abs=6e-4)
    assert "- warning: the training part has" in report
    assert ElementTree.parse(tmp_path / "run" / "reliability.svg").getroot().tag.endswith("svg")


def test_no_prompt_of_the_report_goes_into_the_checkpoint(tiny_run: Path, records: Records) -> None:
    report = (tiny_run / "report.md").read_text()
    quoted = re.findall(r"expected +[\d,]+: (.*)", report)
    assert quoted
    assert set(quoted) <= {shown(prompt) for prompt in records.prompt}
    for name in ("README.md", "ranker.json"):
        text = (tiny_run / "checkpoint" / name).read_text()
        assert not [prompt for prompt in quoted if prompt in text]
    assert not (tiny_run / "checkpoint" / "report.md").exists()


def test_shuffled_lengths_are_not_claimed_as_learned(
    tmp_path: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same prompts and the same lengths, but no length belongs to its prompt."""
    real = make_records(600)
    shuffled = np.random.default_rng(5).permutation(real.response_tokens)
    assert train(tmp_path, Records.build(real.prompt, shuffled), tiny_backbone, "--epochs", "2") == 0
    said = capsys.readouterr().out
    assert "NOT shown to have learned anything" in said
    assert "It has learned" not in said
    assert "- Better than" not in said


def test_data_that_supports_nothing_is_refused_and_nothing_is_lost(
    tmp_path: Path, tiny_run: Path, tiny_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    flat = Records.build(make_records(400).prompt, np.full(400, 50.0))
    assert train(tmp_path, flat, tiny_backbone) == 1
    captured = capsys.readouterr()
    assert "nothing was trained" in captured.err
    assert "refused: 0.0% of the pairs" in captured.err
    assert captured.out == ""
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


# Going on from a checkpoint


def test_going_on_from_a_checkpoint_is_compared_with_it(
    tmp_path: Path, tiny_checkpoint: Path, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    records.save(tmp_path / "mine.parquet")
    words = [
        "train",
        "--records",
        str(tmp_path / "mine.parquet"),
        "--out",
        str(tmp_path / "run"),
        "--start",
        str(tiny_checkpoint),
    ]
    assert main([*words, "--similarity", "0", "--ngram-buckets", "1024", "--epochs", "1"]) == 0
    said = capsys.readouterr().out
    # It had learned from these very prompts, so a little more of them cannot be shown to make it better.
    assert "| checkpoint before training |" in said
    assert "Not shown to be better than checkpoint before training" in said
    card = read_checkpoint(tmp_path / "run" / "checkpoint").card
    assert card.max_tokens == 32, "as many as the checkpoint reads"
    assert "went on from the checkpoint tiny" in card.data_statement
    assert card.config["batch_prompts"] == TrainConfig.for_own_data().batch_prompts
    # The same folder from somewhere else is another run.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tiny_checkpoint, elsewhere)
    assert main([*words[:-1], str(elsewhere), "--similarity", "0", "--ngram-buckets", "1024", "--epochs", "1"]) == 1
    assert "other settings (backbone)" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused_as_a_start(tmp_path: Path) -> None:
    recipe = Recipe(name="x", config=TrainConfig(), train=())
    with pytest.raises(CheckpointError, match=r"no ranker\.json"):
        start_from(tmp_path, recipe)
    for text in ("{", "[]", json.dumps({"name": "x"})):
        (tmp_path / "ranker.json").write_text(text)
        with pytest.raises(CheckpointError, match="not readable"):
            start_from(tmp_path, recipe)


def test_zero_shot_sets_are_refused_after_a_start(tmp_path: Path, tiny_checkpoint: Path, tiny_backbone: Path) -> None:
    zero_shot = (RecordSource(LocalSource(tmp_path / "unseen.parquet")),)
    recipe = Recipe(name="x", config=tiny_config(tiny_backbone), train=(), zero_shot=zero_shot)
    with pytest.raises(ConfigError, match="zero-shot sets mean nothing after --start"):
        start_from(tiny_checkpoint, recipe)


def test_make_train_takes_a_file_and_starts_from_the_shipped_ranker() -> None:
    def planned(*words: str) -> str:
        return subprocess.run(["make", "-n", "train", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "trainer train --records my.jsonl --out runs/my --start default_ranker" in planned("DATA=my.jsonl")
    assert "--start" not in planned("DATA=my.jsonl", "START=")
    assert "--start" not in planned("SOURCE=alpaca")
