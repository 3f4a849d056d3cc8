"""Losses against numbers worked out by hand, and that each of them can be learned from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import tiny_config

from trainer.config import TrainConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.loop import train
from trainer.losses.buckets import bucket_loss, expected_bucket
from trainer.losses.distribution import distribution_loss, log_expected_length, spread_of
from trainer.losses.listmle import listmle_loss
from trainer.losses.logistic import logistic_loss
from trainer.losses.names import LOSSES, ONE_OUTPUT
from trainer.losses.objective import BUCKETS, LengthScale, make_objective, make_target
from trainer.losses.regression import regression_loss
from trainer.model_card import _LOSS_WORDS
from trainer.model_effects import to_examples
from trainer.pairs import all_pairs, clear_of_noise
from trainer.ranker import Ranker
from trainer.records import Records
from trainer.repeat_noise import fit_noise_curve
from trainer.run import check_servable, split_examples, training_set

ONE = torch.ones(1)


def test_logistic_loss_by_hand() -> None:
    scores = torch.tensor([2.0, 0.0])
    longer, shorter = torch.tensor([0]), torch.tensor([1])
    assert logistic_loss(scores, longer, shorter, ONE).item() == pytest.approx(math.log(1 + math.exp(-2)))
    # An order that could as well have come out the other way asks for equal scores.
    even = torch.tensor([0.5])
    assert logistic_loss(torch.zeros(2), longer, shorter, ONE, even).item() == pytest.approx(math.log(2))
    assert logistic_loss(scores, longer, shorter, ONE, even) > math.log(2)


def test_logistic_loss_without_pairs_is_zero_and_has_a_gradient() -> None:
    scores = torch.zeros(3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = logistic_loss(scores, none, none, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_regression_loss_weighs_prompts() -> None:
    loss = regression_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0]), torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx((3 * 1 + 1 * 9) / 4)


def test_listmle_by_hand() -> None:
    # Longest first: scores 1, 0, 2 in that order.
    scores, lengths = torch.tensor([0.0, 2.0, 1.0]), torch.tensor([20.0, 10.0, 30.0])
    e = math.e
    expected = (math.log(e + 1 + e**2) - 1 + math.log(1 + e**2) - 0 + 0) / 3
    assert listmle_loss(scores, lengths).item() == pytest.approx(expected, rel=1e-6)


def test_listmle_prefers_the_right_order() -> None:
    lengths = torch.tensor([5.0, 50.0, 500.0])
    assert listmle_loss(torch.tensor([0.0, 1.0, 2.0]), lengths) < listmle_loss(torch.tensor([2.0, 1.0, 0.0]), lengths)


def test_buckets_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    assert expected_bucket(logits).tolist() == pytest.approx([0.75, 0.5])
    loss = bucket_loss(logits, torch.tensor([1, 0]), torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx((-math.log(0.75) - 3 * math.log(0.5)) / 4)


def test_distribution_by_hand() -> None:
    outputs = torch.tensor([[1.0, math.log(2.0)]])
    assert spread_of(outputs).item() == pytest.approx(2)
    assert distribution_loss(outputs, torch.tensor([5.0]), ONE).item() == pytest.approx(math.log(2) + 0.5 * 2**2)
    assert log_expected_length(outputs, log_std=0.5).item() == pytest.approx(1 + 0.5 * 0.5 * 4)


def test_a_spread_cannot_run_away() -> None:
    wild = torch.tensor([[0.0, 50.0], [0.0, -50.0]])
    assert torch.isfinite(distribution_loss(wild, torch.tensor([1.0, 1.0]), torch.ones(2)))


def test_targets_by_hand() -> None:
    lengths = np.array([math.e**1, math.e**3])
    scale = LengthScale.of(lengths)
    assert (scale.log_mean, scale.log_std) == pytest.approx((2, 1))
    target = make_target(
        lengths,
        np.array([2.0, 3.0]),
        np.array([1]),
        np.array([0]),
        scale,
        np.array([0.6, 0.8]),
        np.array([0.5]),
        torch.device("cpu"),
    )
    assert target.standard.tolist() == pytest.approx([-1, 1])
    assert target.bucket.tolist() == [0, BUCKETS - 1]
    assert target.pair_weight.tolist() == pytest.approx([0.5 * 2 * 3])
    # The log lengths differ by 2, and repeats of both together by sqrt(0.6² + 0.8²) = 1: two standard deviations.
    assert target.certainty.tolist() == pytest.approx([0.9772], abs=1e-4)


def test_without_known_noise_every_order_is_certain() -> None:
    lengths = np.array([10.0, 11.0])
    target = make_target(
        lengths, np.ones(2), np.array([1]), np.array([0]), LengthScale.of(lengths), np.zeros(2), np.ones(1), torch.device("cpu")
    )
    assert target.certainty.tolist() == [1.0]


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_orders_what_it_was_shown(name: str) -> None:
    """A linear model on one feature that decides the length: a few hundred steps bring the right order."""
    torch.manual_seed(0)
    feature = np.linspace(-1, 1, 40)
    lengths = np.exp(3 + 2 * feature)
    scale = LengthScale.of(lengths)
    objective = make_objective(name, scale, margin=1.0)
    longer, shorter = all_pairs(lengths, 0.2)
    target = make_target(
        lengths, np.ones(40), longer, shorter, scale, np.full(40, 0.1), np.ones(len(longer)), torch.device("cpu")
    )
    model = torch.nn.Linear(1, objective.outputs)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    inputs = torch.from_numpy(feature.astype(np.float32))[:, None]
    for _ in range(200):
        loss = objective.loss(model(inputs), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scores = objective.score(model(inputs)).detach().numpy()
    assert (np.diff(scores) > 0).all()


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - set(ONE_OUTPUT)))
def test_a_ranker_that_a_checkpoint_cannot_hold_is_refused_before_it_is_trained(loss: str) -> None:
    with pytest.raises(ConfigError, match=f"loss '{loss}' is for comparisons"):
        check_servable(TrainConfig(loss=loss))


def test_a_truncation_that_a_bundle_cannot_say_is_refused() -> None:
    with pytest.raises(ConfigError, match="head_tail is for comparisons"):
        check_servable(TrainConfig(truncation="head_tail"))


def test_noise_curve_by_hand() -> None:
    # Forty prompts answered twice: the shorter half differs by 0.2 either way around its mean, the longer one by 0.4.
    rows = [(1 + prompt / 100, 0.2) if prompt < 20 else (3 + prompt / 100, 0.4) for prompt in range(40)]
    log_tokens = np.array([mean + sign * gap for mean, gap in rows for sign in (-1, 1)])
    curve = fit_noise_curve(log_tokens, np.repeat(np.arange(40), 2))
    # Two repeats, one degree of freedom: variance (g² + g²) / 1.
    assert curve.spread.tolist() == pytest.approx([math.sqrt(2) * 0.2, math.sqrt(2) * 0.4])
    assert curve.at(np.exp([0.0, 9.0])).tolist() == pytest.approx(curve.spread.tolist())


def test_without_repeats_nothing_is_known_of_the_noise() -> None:
    curve = fit_noise_curve(np.log([10.0, 20.0, 30.0]), np.array([7, 8, 9]))
    assert curve.at(np.array([5.0, 500.0])).tolist() == [0, 0]


def test_pairs_within_the_noise_are_left_out() -> None:
    lengths, noise = np.exp([3.0, 2.0, 1.9]), np.array([0.3, 0.4, 0.4])
    longer, shorter = np.array([0, 0, 1]), np.array([1, 2, 2])
    # Differences 1, 1.1 and 0.1; deviations 0.5, 0.5 and 0.57.
    assert clear_of_noise(lengths, noise, longer, shorter, 1.0).tolist() == [True, True, False]
    assert clear_of_noise(lengths, noise, longer, shorter, 2.1).tolist() == [False, True, False]


def test_the_model_card_has_words_for_every_loss_of_a_checkpoint() -> None:
    assert set(_LOSS_WORDS) == set(ONE_OUTPUT)


def test_more_layers_than_there_are_cannot_be_kept(tiny_backbone: Path) -> None:
    assert Ranker.load(tiny_backbone, 32, layers=1).model.config.num_hidden_layers == 1
    with pytest.raises(CheckpointError, match="has 2 layers; 3 cannot be kept"):
        Ranker.load(tiny_backbone, 32, layers=3)


@pytest.mark.parametrize("settings", [{"noise_gap": 1.0}, {"loss": "soft_logistic"}])
def test_settings_that_live_on_repeats_are_refused_without_any(
    settings: dict[str, object], tiny_backbone: Path, records: Records, tmp_path: Path
) -> None:
    config = tiny_config(tiny_backbone, **settings)
    ranker = Ranker.load(tiny_backbone, 32)
    parts = split_examples(to_examples(records), config)
    with pytest.raises(ConfigError, match="answered more than once"):
        train(config, training_set(ranker, parts.train, parts.validation), ranker, tmp_path)


def test_the_end_of_a_long_prompt_can_be_kept_as_well(tiny_backbone: Path) -> None:
    head = Ranker.load(tiny_backbone, 8)
    both = Ranker.load(tiny_backbone, 8, truncation="head_tail")
    long = "music rivers bread maps glass trains poetry storms planets trade"
    whole = Ranker.load(tiny_backbone, 64).tokenize([long])[0]
    assert len(whole) > 8
    assert both.tokenize([long])[0].tolist() == [*whole[:4], *whole[-4:]]
    assert both.tokenize(["music"])[0].tolist() == head.tokenize(["music"])[0].tolist()
