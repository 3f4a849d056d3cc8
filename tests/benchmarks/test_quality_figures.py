"""Noise ceilings, against values worked out by hand and against a world whose truth is known."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.quality import ceiling
from trainer.records import Records

ESTIMATES = (ceiling.between_halves, ceiling.of_typical)


def one_table(logs: np.ndarray) -> Records:
    """A record per finite cell of float[prompts, models], log tokens."""
    cells = [(prompt, model) for prompt, model in np.ndindex(logs.shape) if np.isfinite(logs[prompt, model])]
    return Records.build(
        [f"prompt {prompt}" for prompt, _ in cells],
        [float(np.exp(logs[cell])) for cell in cells],
        model=[f"model {model}" for _, model in cells],
    )


def test_a_perfect_ranker_reaches_the_ceiling_of_a_single_response() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    answers = np.exp(5 + truth[:, None] + rng.normal(0, 0.6, (3000, 4)))
    found = ceiling.of_single_response(answers[:, 0], answers[:, 1:], resamples=20)
    perfect = kendalltau(truth, answers[:, 0]).statistic
    assert found.value == pytest.approx(perfect, abs=0.015)
    assert found.low < perfect < found.high
    # The mean of three noisy answers is no perfect ranker.
    assert kendalltau(answers[:, 1:].prod(axis=1), answers[:, 0]).statistic < perfect - 0.03


def test_a_response_that_has_nothing_in_common_with_its_repeats_has_no_order_to_reach() -> None:
    repeats = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert ceiling.of_single_response(np.array([3.0, 2.0, 1.0]), repeats, resamples=20).value == 0


def test_models_that_differ_in_verbosity_alone_agree_wholly() -> None:
    logs = np.linspace(3, 6, 12)[:, None] + np.array([0.0, 1.0, -2.0])
    records = one_table(logs)
    for found in (estimate(records, resamples=20) for estimate in ESTIMATES):
        assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))


def test_gaps_in_the_table_do_not_look_like_length() -> None:
    """The verbose model answered only the short prompts: its level must not raise them."""
    logs = np.linspace(3, 6, 20)[:, None] + np.array([0.0, 0.0, 0.1, 4.0])
    logs[10:, 3] = np.nan
    records = one_table(logs)
    assert ceiling.between_halves(records, resamples=20).value > 0.75  # a ridge of one prompt is left of it


def test_a_perfect_ranker_reaches_the_stepped_up_ceiling() -> None:
    """In a world of our own the tau of a perfect ranker can be measured; the estimate must meet it, and the raw halves must not."""
    rng = np.random.default_rng(1)
    truth = rng.normal(5, 1, 1500)
    logs = truth[:, None] + rng.normal(0, 1, (1500, 6)) + np.array([0, 1, 2, -1, -2, 0.5])
    records = one_table(logs)
    perfect = kendalltau(truth, logs.mean(axis=1)).statistic
    found = ceiling.of_typical(records, resamples=20)
    assert found.value == pytest.approx(perfect, abs=0.02)
    assert found.low < found.value < found.high
    assert ceiling.between_halves(records, resamples=20).value < perfect - 0.05


@pytest.mark.parametrize(
    ("halves", "whole"), [(1.0, 1.0), (0.0, 0.0), (-0.3, 0.0), (1 / 3, 2 / np.pi * np.arcsin(np.sqrt(2 / 3)))]
)
def test_stepping_up(halves: float, whole: float) -> None:
    # τ = 1/3 is r = sin(π/6) = 1/2, so the reliability of the whole is 2·½/(3/2) = 2/3.
    assert ceiling.stepped_up(halves) == pytest.approx(whole)


def test_one_model_has_no_ceiling() -> None:
    records = one_table(np.linspace(3, 6, 12)[:, None])
    with pytest.raises(ValueError, match="at least two models"):
        ceiling.of_typical(records)


def test_models_without_a_common_prompt_have_no_ceiling() -> None:
    logs = np.full((20, 2), np.nan)
    logs[:10, 0], logs[10:, 1] = 3.0, 4.0
    with pytest.raises(ValueError, match="no two prompts"):
        ceiling.between_halves(one_table(logs))


def test_a_ceiling_is_the_same_every_time_and_fits_into_json() -> None:
    logs = np.random.default_rng(2).normal(5, 1, (60, 4))
    found = ceiling.of_typical(one_table(logs), resamples=20)
    assert found == ceiling.of_typical(one_table(logs), resamples=20)
    assert json.loads(json.dumps(dataclasses.asdict(found))).keys() == {"value", "low", "high", "how"}
