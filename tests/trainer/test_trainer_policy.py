"""The pure parts of training: model effects, split, pairs, batches, loss, metrics, calibration. By hand where possible."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.batches import file_pairs, in_batch_pairs, parts_of_similar_size
from trainer.calibrate import calibrate
from trainer.errors import DataError
from trainer.evaluate import metrics_by_source, rank_metrics
from trainer.losses.margin import margin_ranking_loss
from trainer.model_effects import to_examples
from trainer.pairs import all_pairs, read_pair_file, sampled_pairs, write_pair_file
from trainer.records import Records
from trainer.split import near_duplicates, seen_before, split_by_hash

LENGTHS = st.lists(st.integers(1, 50), min_size=2, max_size=30).map(lambda values: np.array(values, dtype=np.float64))


# Model effects


def test_a_chatty_model_does_not_make_a_prompt_long(rng: np.random.Generator) -> None:
    """200 prompts; the terse model answers the first 150, the chatty one the last 150. Prompts differ, models differ more."""
    true = np.exp(rng.normal(4, 0.5, 200))
    rows = [(i, "terse", true[i]) for i in range(150)] + [(i, "chatty", 8 * true[i]) for i in range(50, 200)]
    records = Records.build([f"p{i}" for i, _, _ in rows], [n for _, _, n in rows], model=[m for _, m, _ in rows])
    examples = to_examples(records)
    assert examples.prompt == [f"p{i}" for i in range(200)]
    order = rank_metrics(examples.typical_tokens, true, min_gap=0.0)
    assert order.tau_b > 0.93, "the shrinkage leaves a little of the models' difference"
    raw = np.array([dict((i, n) for i, _, n in rows)[i] for i in range(200)])
    assert rank_metrics(raw, true, min_gap=0.0).tau_b < 0.7, "without the correction the chatty model's prompts look long"


def test_one_model_leaves_lengths_alone() -> None:
    examples = to_examples(Records.build(["a", "b", "a"], [10.0, 20.0, 40.0]))
    np.testing.assert_allclose(examples.typical_tokens / examples.typical_tokens[1], [1.0, 1.0], rtol=1e-9)
    assert examples.prompt == ["a", "b"]
    assert len(examples) == 2


# Split


def test_split_covers_every_prompt_once_and_holds_when_prompts_are_added() -> None:
    prompts = [f"prompt number {i} about topic {i * 7919}" for i in range(2000)]
    split = split_by_hash(prompts, validation_share=0.1, test_share=0.2, similarity=0.0)
    assert sorted(np.concatenate([split.train, split.validation, split.test]).tolist()) == list(range(2000))
    assert 150 < len(split.validation) < 250
    assert 330 < len(split.test) < 470
    longer = split_by_hash([*prompts, "one more"], validation_share=0.1, test_share=0.2, similarity=0.0)
    assert set(split.test) <= set(longer.test)


def test_near_duplicates_stay_together() -> None:
    template = "Tom has {} apples and gives {} of them to Mary who already owns {}. How many apples does Mary have in the end?"
    prompts = [template.format(i, i + 1, i * 2) for i in range(30)] + [
        f"A quite different question, {word}" for word in "abcdefgh"
    ]
    groups = near_duplicates(prompts, 0.8)
    assert len(set(groups[:30])) == 1
    assert groups[0] not in groups[30:]
    split = split_by_hash(prompts, validation_share=0.3, test_share=0.3, similarity=0.8)
    sides = [side for side in (split.train, split.validation, split.test) if set(side) & set(range(30))]
    assert len(sides) == 1


def test_near_duplicates_are_found_from_the_stated_similarity_on(rng: np.random.Generator) -> None:
    """Random texts of 60 words, one word changed: 55 of 61 triples shared, similarity 0.9. Four changed in a row: 0.81."""
    words = ["".join(chr(97 + n // 26**digit % 26) for digit in range(3)) for n in range(5000)]
    texts = [list(rng.choice(words, 60)) for _ in range(150)]
    for changed in (1, 4):
        copies = [" ".join([*text[:30], *(["other"] * changed), *text[30 + changed :]]) for text in texts]
        originals = [" ".join(text) for text in texts]
        assert seen_before(copies, originals, 0.75).mean() > 0.93
        groups = near_duplicates(originals + copies, 0.75)
        assert (groups[:150] == groups[150:]).mean() > 0.93
    assert not seen_before(originals[:75], originals[75:], 0.75).any()


def test_scripts_without_spaces_are_compared_too() -> None:
    prompt = "请写一篇关于人工智能未来发展的文章，不少于八百字，并举三个具体的例子来说明你的观点"
    assert seen_before([prompt + "。"], [prompt], 0.8).tolist() == [True]
    assert seen_before(["请把下面的句子翻译成英文，并解释其中每一个词语的意思和用法好吗"], [prompt], 0.8).tolist() == [False]


def test_seen_before_knows_copies_and_near_copies() -> None:
    known = ["Write a poem of four lines about the sea at night and the ships on it, and the lights of 3 harbours far away"]
    asked = [known[0], known[0].replace("3", "12") + " please", "Something else entirely, unrelated to water"]
    assert seen_before(asked, known, 0.8).tolist() == [True, True, False]
    assert seen_before(asked, known, 0.0).tolist() == [True, False, False]


# Pairs and batches


def test_all_pairs_by_hand() -> None:
    longer, shorter = all_pairs(np.array([100.0, 81.0, 80.0, 10.0]), 0.2)
    # 100 against 81 differ by 0.19; 100 against 80 by exactly 0.2, which counts.
    assert set(zip(longer.tolist(), shorter.tolist(), strict=True)) == {(0, 2), (0, 3), (1, 3), (2, 3)}


@given(LENGTHS, st.floats(0, 0.9))
def test_all_pairs_are_exactly_the_admissible_ones(lengths: np.ndarray, gap: float) -> None:
    found = set(zip(*(side.tolist() for side in all_pairs(lengths, gap)), strict=True))
    wanted = {
        (a, b)
        for a in range(len(lengths))
        for b in range(len(lengths))
        if lengths[a] > lengths[b] and abs(lengths[a] - lengths[b]) / max(lengths[a], lengths[b]) >= gap
    }
    assert found == wanted


@given(LENGTHS)
def test_sampled_pairs_are_admissible_and_seeded(lengths: np.ndarray) -> None:
    longer, shorter = sampled_pairs(lengths, per_prompt=5, min_gap=0.2, seed=3)
    assert ((lengths[longer] - lengths[shorter]) / lengths[longer] >= 0.2).all()
    again = sampled_pairs(lengths, per_prompt=5, min_gap=0.2, seed=3)
    np.testing.assert_array_equal(longer, again[0])


def test_pair_file_is_the_reference_format_and_comes_back(tmp_path: Path) -> None:
    pairs = [(f"long {i}", f"short {i}") for i in range(40)]
    assert write_pair_file(tmp_path / "pairs.json", pairs, seed=0) == 40
    rows = json.loads((tmp_path / "pairs.json").read_text())
    assert {tuple(sorted(row)) for row in rows} == {("label", "prompt_A", "prompt_B")}
    assert {row["label"] for row in rows} == {0, 1}, "sides are swapped, or the label would say nothing"
    assert read_pair_file(tmp_path / "pairs.json") == pairs


def test_pair_file_takes_torch_labels(tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text(json.dumps([{"prompt_A": "a", "prompt_B": "b", "label": -1}]))
    assert read_pair_file(tmp_path / "pairs.json") == [("b", "a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "non-empty list"),
        ("{", "not JSON"),
        ('[{"prompt_A": "a", "label": 1}]', "pair 0 lacks"),
        ('[{"prompt_A": "a", "prompt_B": "b", "label": 2}]', "label must be 1"),
        ('[{"prompt_A": 1, "prompt_B": "b", "label": 1}]', "must be texts"),
    ],
)
def test_bad_pair_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_pair_file(tmp_path / "pairs.json")


def test_an_epoch_holds_every_prompt_once_and_depends_on_seed_and_epoch_only(rng: np.random.Generator) -> None:
    lengths, sizes = rng.integers(1, 1000, 500).astype(float), rng.integers(1, 60, 500)

    def rows(epoch: int) -> list[list[int]]:
        batches = in_batch_pairs(lengths, sizes, batch_prompts=16, bucket_batches=4, min_gap=0.2, seed=5, epoch=epoch)
        return [batch.rows.tolist() for batch in batches]

    assert sorted(itertools.chain.from_iterable(rows(0))) == list(range(500))
    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_batches_hold_prompts_of_similar_size(rng: np.random.Generator) -> None:
    lengths, sizes = rng.integers(1, 1000, 512).astype(float), rng.integers(1, 128, 512)

    def padding(bucket_batches: int) -> float:
        batches = in_batch_pairs(lengths, sizes, batch_prompts=16, bucket_batches=bucket_batches, min_gap=0.0, seed=0, epoch=0)
        return sum(len(batch.rows) * sizes[batch.rows].max() for batch in batches) / sizes.sum()

    assert padding(16) < 1.15 < 1.6 < padding(1)


def test_file_pairs_encode_both_sides() -> None:
    batches = file_pairs([(0, 1), (2, 1), (2, 0)], batch_pairs=2, seed=0, epoch=0)
    seen = {
        (int(batch.rows[a]), int(batch.rows[b])) for batch in batches for a, b in zip(batch.longer, batch.shorter, strict=True)
    }
    assert seen == {(0, 1), (2, 1), (2, 0)}
    assert [len(batch.rows) for batch in batches] == [4, 2]


# Loss


def test_loss_by_hand_and_against_torch() -> None:
    scores = torch.tensor([2.0, 1.5, -1.0], requires_grad=True)
    longer, shorter, weight = torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]), torch.tensor([1.0, 1.0, 2.0])
    # Shortfalls: 1 - 0.5 = 0.5; 1 - 3 < 0 → 0; 1 - (-2.5) = 3.5, twice. (0.5 + 0 + 7) / 4.
    loss = margin_ranking_loss(scores, longer, shorter, weight, margin=1.0)
    assert loss.item() == pytest.approx(1.875)
    loss.backward()
    np.testing.assert_allclose(scores.grad.numpy(), [-0.25, 0.75, -0.5])
    even = margin_ranking_loss(scores, longer, shorter, torch.ones(3), margin=1.0)
    reference = torch.nn.MarginRankingLoss(margin=1.0)(scores[longer], scores[shorter], torch.ones(3))
    assert even.item() == pytest.approx(reference.item())


def test_loss_without_pairs_is_zero_and_differentiable() -> None:
    scores = torch.tensor([1.0], requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)
    loss = margin_ranking_loss(scores, nothing, nothing, torch.zeros(0), margin=1.0)
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad.tolist() == [0.0]


# Metrics


def test_metrics_by_hand() -> None:
    """Lengths 10, 10, 11, 100: five pairs differ, three of them by 20% or more."""
    lengths = np.array([10.0, 10.0, 11.0, 100.0])
    scores = np.array([1.0, 2.0, 2.0, 3.0])
    metrics = rank_metrics(scores, lengths, min_gap=0.2)
    # 11 beats the first 10, ties with the second; 100 beats all three: 4.5 of 5, and 3 of 3.
    assert metrics.pair_accuracy == pytest.approx(0.9)
    assert metrics.filtered_pair_accuracy == 1.0
    # tau-b: 4 concordant, 0 discordant; one tie on each side among six pairs.
    assert metrics.tau_b == pytest.approx(4 / 5)


@settings(max_examples=50)
@given(LENGTHS)
def test_metrics_turn_round_with_the_score(lengths: np.ndarray) -> None:
    forward, backward = (rank_metrics(sign * lengths, lengths, min_gap=0.1) for sign in (1.0, -1.0))
    if len(set(lengths)) > 1:
        assert (forward.tau_b, forward.pair_accuracy) == (pytest.approx(1.0), 1.0)
        assert (backward.tau_b, backward.pair_accuracy) == (pytest.approx(-1.0), 0.0)
    assert forward.filtered_pair_accuracy in (1.0, 0.5)


def test_a_constant_score_knows_nothing() -> None:
    metrics = rank_metrics(np.zeros(5), np.arange(1.0, 6.0), min_gap=0.2)
    assert (metrics.tau_b, metrics.pair_accuracy, metrics.filtered_pair_accuracy) == (0.0, 0.5, 0.5)


def test_metrics_do_not_depend_on_chunking(rng: np.random.Generator) -> None:
    scores, lengths = rng.normal(size=2500), rng.integers(1, 90, 2500).astype(float)
    whole = rank_metrics(scores, lengths, min_gap=0.2)
    longer = lengths[:, None] > lengths[None, :]
    assert whole.pair_accuracy == pytest.approx((scores[:, None] > scores[None, :])[longer].mean())


def test_metrics_within_each_source() -> None:
    found = metrics_by_source(np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]), ["a", "a", "b", "b"], min_gap=0.0)
    assert (found["a"]["tau_b"], found["b"]["tau_b"]) == (1.0, -1.0)
    assert set(found) == {"all", "a", "b"}


def test_metrics_refuse_unequal_lists() -> None:
    with pytest.raises(ValueError, match="equally long"):
        rank_metrics(np.zeros(3), np.zeros(4), min_gap=0.2)


# Calibration


def test_calibration_recovers_known_percentiles(rng: np.random.Generator) -> None:
    """Lengths are log-normal around exp(score): the median is exp(score), the 90th percentile exp(score + 1.2816 σ)."""
    scores = rng.uniform(2, 6, 20_000)
    table = calibrate(scores, np.exp(scores + rng.normal(0, 0.3, 20_000)))
    middle = slice(5, -5)
    knots = np.array(table.scores)[middle]
    np.testing.assert_allclose(np.array(table.expected_tokens)[middle], np.exp(knots), rtol=0.12)
    np.testing.assert_allclose(np.array(table.expected_tokens_p90)[middle], np.exp(knots + 1.2816 * 0.3), rtol=0.2)
    np.testing.assert_allclose(np.array(table.quantiles)[middle], (knots - 2) / 4, atol=0.02)


def test_calibration_follows_the_curve_on_few_prompts() -> None:
    """60 prompts, half of them short: the ends of the table must not be averages of everything."""
    scores = np.linspace(0, 1, 60)
    table = calibrate(scores, np.where(scores < 0.5, 10.0, 1000.0))
    assert table.expected_tokens[0] == pytest.approx(10)
    assert table.expected_tokens[-1] == pytest.approx(1000)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9999)), min_size=2, max_size=60))
def test_calibration_is_always_monotone(rows: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in rows])
    tokens = np.array([count for _, count in rows], dtype=np.float64)
    if len(np.unique(scores.astype(np.float32))) < 2:
        with pytest.raises(DataError, match="same score"):
            calibrate(scores, tokens)
        return
    table = calibrate(scores, tokens)
    assert (np.diff(table.scores) > 0).all()
    for column in (table.quantiles, table.expected_tokens, table.expected_tokens_p90):
        assert (np.diff(column) >= 0).all()
    assert (np.array(table.expected_tokens_p90) >= np.array(table.expected_tokens)).all()
    assert (table.quantiles[0], table.quantiles[-1]) == (0.0, 1.0)


@pytest.mark.parametrize("prompts", [60, 200])
def test_nine_tenths_of_new_responses_stay_below_the_ninetieth_percentile_however_few_it_is_made_from(prompts: int) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(40):
        scores = rng.normal(size=prompts + 1000)
        tokens = np.exp(4 + 0.7 * scores + rng.normal(0, 0.6, len(scores)))
        table = calibrate(scores[:prompts], tokens[:prompts])
        new = np.interp(scores[prompts:], table.scores, table.expected_tokens_p90)
        covered.append((tokens[prompts:] <= new).mean())
    assert 0.88 < np.mean(covered) < 0.94


def test_a_batch_of_mixed_sizes_is_encoded_in_parts_of_similar_size() -> None:
    sizes = [128, *[10] * 63]
    parts = parts_of_similar_size(sizes)
    assert [len(part) for part in parts] == [32, 32]
    assert sorted(np.concatenate(parts).tolist()) == list(range(64))
    assert 0 in parts[1]
    assert [part.tolist() for part in parts_of_similar_size([10, 12, 11])] == [[0, 1, 2]]
