"""Quantiles → priorities: direction, type, clamping, and the starvation bound as plain numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_client.other_engines import sglang_priority, tensorrt_llm_priority
from vllm_client.priority import DEFAULT_WINDOW_MS, dense_ranks, vllm_priority

NOW_MS = 1_790_000_000_000
INT64_MAX = 2**63 - 1

quantiles = st.none() | st.floats(0, 1)
arrivals = st.integers(0, 2**50) | st.floats(0, 2**50)
windows = st.integers(0, 10_000_000)
no_quantiles = st.sampled_from([math.nan, math.inf, -math.inf, -0.1, 1.0001, 1e300])


def test_longer_runs_later():
    short, middling, long = (vllm_priority(quantile, NOW_MS, 40_000) for quantile in (0.0, 0.5, 1.0))
    assert (short, middling, long) == (NOW_MS, NOW_MS + 20_000, NOW_MS + 40_000)


def test_the_default_window_is_the_documented_one():
    assert vllm_priority(1.0, NOW_MS) == NOW_MS + DEFAULT_WINDOW_MS


@given(st.floats(0, 1), st.floats(0, 1), arrivals, windows)
def test_order_follows_the_quantile_among_equals_in_arrival(low, high, arrival_ms, window_ms):
    low, high = sorted((low, high))
    assert vllm_priority(low, arrival_ms, window_ms) <= vllm_priority(high, arrival_ms, window_ms)


@given(
    st.none() | st.floats(),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**80), 2**80) | st.just(10**400),
    windows,
)
def test_always_a_real_int64(quantile, arrival_ms, window_ms):
    priority = vllm_priority(quantile, arrival_ms, window_ms)
    assert type(priority) is int
    assert -(2**63) <= priority <= INT64_MAX
    mirrored = sglang_priority(quantile, arrival_ms, window_ms)
    assert type(mirrored) is int
    assert -(2**63) <= mirrored <= INT64_MAX


@given(no_quantiles, arrivals, windows)
def test_nonsense_counts_as_unscored_and_unscored_as_middling(quantile, arrival_ms, window_ms):
    unscored = vllm_priority(None, arrival_ms, window_ms)
    assert vllm_priority(quantile, arrival_ms, window_ms) == unscored == vllm_priority(0.5, arrival_ms, window_ms)


@given(quantiles, quantiles, arrivals, st.integers(0, 2**62), st.integers(1, 10_000))
def test_nobody_is_overtaken_by_who_arrives_more_than_the_window_later(early, late, arrival_ms, window_ms, more_ms):
    # In whole milliseconds: the clock of the bound.
    arrival_ms = math.floor(arrival_ms)
    assert vllm_priority(early, arrival_ms, window_ms) < vllm_priority(late, arrival_ms + window_ms + more_ms, window_ms)


@given(quantiles, quantiles, arrivals)
def test_a_window_of_zero_is_first_come_first_served(one, other, arrival_ms):
    assert vllm_priority(one, arrival_ms, 0) == vllm_priority(other, arrival_ms, 0) == math.floor(arrival_ms)


@pytest.mark.parametrize(
    ("arrival_ms", "window_ms"),
    [(math.nan, 1), (math.inf, 1), (-math.inf, 1), (NOW_MS, -1), (NOW_MS, math.nan), (NOW_MS, math.inf), (NOW_MS, 10**400)],
    ids=[
        "arrival is NaN",
        "arrival is infinite",
        "arrival is infinitely early",
        "window is negative",
        "window is NaN",
        "window is infinite",
        "window is beyond any float",
    ],
)
def test_wrong_settings_are_refused(arrival_ms, window_ms):
    with pytest.raises(ValueError, match=r"must be (a )?finite"):
        vllm_priority(0.5, arrival_ms, window_ms)


def test_a_closed_batch_gets_dense_ranks():
    assert dense_ranks([0.9, 0.1, None, 0.5, 0.1, math.nan]) == [2, 0, 1, 1, 0, 1]
    assert dense_ranks([]) == []


@given(quantiles, quantiles, arrivals, arrivals, windows)
def test_sglang_is_vllm_turned_round(one, other, arrival_ms, other_arrival_ms, window_ms):
    ours = (vllm_priority(one, arrival_ms, window_ms), vllm_priority(other, other_arrival_ms, window_ms))
    theirs = (sglang_priority(one, arrival_ms, window_ms), sglang_priority(other, other_arrival_ms, window_ms))
    assert (ours[0] < ours[1]) == (theirs[0] > theirs[1])


@given(st.none() | st.floats())
def test_tensorrt_llm_takes_a_float_between_zero_and_one(quantile):
    priority = tensorrt_llm_priority(quantile)
    assert type(priority) is float
    assert 0 <= priority <= 1


def test_tensorrt_llm_larger_is_sooner():
    assert tensorrt_llm_priority(0.1) > tensorrt_llm_priority(None) == 0.5 > tensorrt_llm_priority(0.9)
