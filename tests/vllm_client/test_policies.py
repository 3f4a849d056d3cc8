"""Each policy by itself: always an int64, never earlier for a longer response, and what counts for an unscored request."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from vllm_client.priority import (
    CLOCKED,
    DEFAULT_WINDOW_MS,
    POLICIES,
    Facts,
    PolicySettings,
    combined,
    dense_ranks,
    int64,
    window_of,
)

NOW_MS = 1_790_000_000_000

# Whatever a client, a ranker or a caller with numpy can bring, and a good deal more.
huge = st.integers() | st.integers(-(2**80), 2**80) | st.sampled_from([10**400, -(10**400), True])
whole = huge | st.sampled_from([np.int64(7), np.int32(-1), np.int64(2**63 - 1)])
finite = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1e6).map(np.float64)
anything = finite | whole | st.sampled_from([math.nan, math.inf, -math.inf, np.float32(0.25), np.float64("nan"), 1e308, 5e-324])
odd_facts = st.builds(
    Facts,
    arrival_ms=finite | whole,
    quantile=st.none() | anything,
    expected_tokens=st.none() | anything,
    prompt_tokens=anything,
    backlog_ms=anything,
    max_tokens=st.none() | whole,
    samples=whole,
    class_delay_ms=whole | st.sampled_from([0.5, np.float64(2.5)]),
)
rates = st.sampled_from([0, 0.0, 1e308, 5e-324]) | st.floats(0, 1e6)
odd_settings = st.builds(
    PolicySettings,
    window_ms=st.integers(0, 2**62) | st.sampled_from([0, 2**63, 10**300, np.int64(40_000)]),
    max_window_ms=st.integers(0, 2**62) | st.sampled_from([0, 2**63, 10**300, np.int64(600_000)]),
    prefill_ms_per_token=rates,
    decode_ms_per_token=rates,
    stretch=rates,
)

unhurried = hypothesis_settings(deadline=None)
"""A busy machine may stall for longer than Hypothesis finds right."""


def assert_int64(priority: object) -> None:
    assert type(priority) is int
    assert -(2**63) <= priority < 2**63


@pytest.mark.parametrize("policy", POLICIES)
@unhurried
@given(odd_facts, odd_settings)
def test_always_a_plain_int64(policy, facts, numbers):
    assert_int64(POLICIES[policy](facts, numbers))


@unhurried
@given(huge, huge, st.integers(0, 86_400_000), st.integers(0, 86_400_000))
def test_combined_is_always_a_plain_int64(own, client_priority, step_ms, limit_ms):
    priority = combined(own, client_priority, step_ms, limit_ms)
    assert_int64(priority)
    if -(2**62) <= own <= 2**62:
        assert abs(priority - own) <= limit_ms


@pytest.mark.parametrize(
    ("number", "nearest"),
    [(7.9, 7), (np.int64(7), 7), (np.float64(-3.0), -3), (2**63, 2**63 - 1), (-(10**400), -(2**63)), (math.inf, 2**63 - 1)],
)
def test_int64_is_the_last_guard(number, nearest):
    assert_int64(int64(number))
    assert int64(number) == nearest
    assert_int64(combined(number, 1, 1_000, 20_000))


@unhurried
@given(st.none() | anything, anything, st.integers(0, 10**6), st.integers(0, 10**7))
def test_what_the_window_grew_by_lies_around_the_middle(quantile, backlog_ms, window_ms, max_window_ms):
    settings = PolicySettings(window_ms=window_ms, max_window_ms=max_window_ms)
    growth_ms = window_of(backlog_ms, settings) - window_ms
    assert 0 <= growth_ms <= max(max_window_ms - window_ms, 0)
    delay_ms = of("ageing", settings, quantile=quantile, backlog_ms=backlog_ms)
    assert math.floor(-growth_ms / 2) <= delay_ms <= window_ms + growth_ms / 2
    if quantile is None:
        assert abs(delay_ms - of("ageing", settings)) <= 1


def test_the_window_follows_the_backlog_as_far_as_it_may():
    settings = PolicySettings(window_ms=10_000, max_window_ms=30_000)
    windows = [window_of(backlog_ms, settings) for backlog_ms in (0, 2_500, 2_501, 5_000, 7_500, 8_000, 1e300, math.inf)]
    assert windows == [10_000, 10_000, 10_004, 20_000, 30_000, 30_000, 30_000, 30_000]
    assert [window_of(nonsense, settings) for nonsense in (-1.0, math.nan, -math.inf)] == [10_000] * 3
    assert of("ageing", PolicySettings(window_ms=0), quantile=1.0, backlog_ms=1e6) == 0
    assert [window_of(1e9, PolicySettings(max_window_ms=limit)) for limit in (0, 1, 40_000)] == [DEFAULT_WINDOW_MS] * 3


def test_of_the_policies_ageing_alone_looks_at_the_backlog():
    facts = {"quantile": 1.0, "expected_tokens": 100.0}
    moved = {policy for policy in POLICIES if of(policy, backlog_ms=60_000, **facts) != of(policy, **facts)}
    assert moved == {"ageing"}


@pytest.mark.parametrize("policy", sorted(CLOCKED))
@unhurried
@given(
    st.integers(0, 2**50),
    st.none() | anything,
    st.none() | anything,
    anything,
    st.none() | whole,
    whole,
    st.integers(0, 86_400_000),
    st.integers(0, 10**6),
    rates,
)
def test_without_a_backlog_no_delay_exceeds_the_window(
    policy, arrival_ms, quantile, tokens, prompt, cap, samples, delay_ms, window_ms, rate
):
    facts = Facts(
        arrival_ms=arrival_ms,
        quantile=quantile,
        expected_tokens=tokens,
        prompt_tokens=prompt,
        max_tokens=cap,
        samples=samples,
        class_delay_ms=delay_ms,
    )
    settings = PolicySettings(window_ms=window_ms, prefill_ms_per_token=rate, decode_ms_per_token=rate, stretch=rate)
    assert 0 <= POLICIES[policy](facts, settings) - arrival_ms - delay_ms <= window_ms


def of(policy, settings=None, **facts):
    return POLICIES[policy](Facts(**{"arrival_ms": NOW_MS, **facts}), settings or PolicySettings()) - (
        NOW_MS if policy in CLOCKED else 0
    )


@pytest.mark.parametrize("policy", POLICIES)
@unhurried
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_longer_response_never_runs_earlier(policy, quantile, other_quantile, tokens, other_tokens):
    (low, high), (few, many) = sorted((quantile, other_quantile)), sorted((tokens, other_tokens))
    assert of(policy, quantile=low, expected_tokens=few) <= of(policy, quantile=high, expected_tokens=many)


@pytest.mark.parametrize("policy", POLICIES)
@unhurried
@given(st.integers(0, 2**50), st.integers(0, 2**50), st.floats(0, 1), st.floats(0, 1e9))
def test_a_later_arrival_never_runs_earlier(policy, arrival_ms, other_arrival_ms, quantile, tokens):
    early, late = sorted((arrival_ms, other_arrival_ms))
    alike = {"quantile": quantile, "expected_tokens": tokens}
    assert of(policy, arrival_ms=early, **alike) <= of(policy, arrival_ms=late, **alike)


@pytest.mark.parametrize("nonsense", [None, math.nan, math.inf, -math.inf, -0.1, -1e300])
@pytest.mark.parametrize(("policy", "middling"), [("ageing", 20_000), ("cost", 20_000), ("shortest", 500_000), ("equal", 0)])
def test_unscored_and_nonsense_are_middling(policy, middling, nonsense):
    assert of(policy, quantile=nonsense, expected_tokens=nonsense) == middling


def test_cost_adds_up_prompt_and_response():
    settings = PolicySettings(window_ms=10**9, prefill_ms_per_token=0.5, decode_ms_per_token=20, stretch=3)
    assert of("cost", settings, prompt_tokens=100, expected_tokens=10) == 3 * (0.5 * 100 + 20 * 10)
    assert of("cost", settings, prompt_tokens=100, expected_tokens=10, samples=4) == 3 * (0.5 * 100 + 20 * 10 * 4)
    assert of("cost", settings, expected_tokens=0) == 0


def test_cost_is_capped_by_the_callers_limit_and_by_the_window():
    settings = PolicySettings(window_ms=5_000, prefill_ms_per_token=0, decode_ms_per_token=20, stretch=1)
    assert of("cost", settings, expected_tokens=1_000, max_tokens=7) == 140
    assert of("cost", settings, expected_tokens=3, max_tokens=7) == 60
    assert of("cost", settings, expected_tokens=1_000, max_tokens=7, samples=5) == 700
    assert of("cost", settings, expected_tokens=1_000) == 5_000
    assert of("cost", settings, expected_tokens=1_000, max_tokens=10**400) == 5_000


def test_an_unscored_request_costs_half_a_window_or_its_cap():
    settings = PolicySettings(window_ms=5_000, prefill_ms_per_token=0, decode_ms_per_token=20, stretch=1)
    assert of("cost", settings) == of("cost", settings, max_tokens=10**6) == 2_500
    assert of("cost", settings, max_tokens=1) == 20
    assert of("cost", settings, max_tokens=1, samples=3) == 60
    assert of("cost", settings, max_tokens=0) == of("cost", settings, max_tokens=-1) == 0


@pytest.mark.parametrize("facts", [{}, {"expected_tokens": 1e308}, {"prompt_tokens": math.inf, "expected_tokens": 5.0}])
def test_a_stretch_of_zero_is_first_come_first_served(facts):
    assert of("cost", PolicySettings(stretch=0), **facts) == 0


def test_classes_count_where_there_is_a_clock():
    delays = {policy: of(policy, class_delay_ms=30_000) - of(policy) for policy in POLICIES}
    assert delays == {"ageing": 30_000, "cost": 30_000, "shortest": 0, "equal": 0}
    assert of("ageing", class_delay_ms=-5) == of("ageing")


def test_shortest_and_equal_know_no_clock():
    assert (of("shortest", quantile=0.0), of("shortest", quantile=0.25), of("shortest", quantile=1.0)) == (
        0,
        250_000,
        1_000_000,
    )
    assert of("equal", quantile=1.0, arrival_ms=5) == of("equal", quantile=0.0) == 0


def test_a_clients_priority_moves_ours_by_its_step_up_to_the_limit():
    assert [combined(NOW_MS, asked, 1_000, 20_000) - NOW_MS for asked in (-3, 0, 3, -50, 10**30)] == [
        -3_000,
        0,
        3_000,
        -20_000,
        20_000,
    ]
    assert combined(NOW_MS, 5, 1_000, 0) == combined(NOW_MS, 5, 0, 20_000) == NOW_MS


@pytest.mark.parametrize("name", ["window_ms", "max_window_ms", "prefill_ms_per_token", "decode_ms_per_token", "stretch"])
@pytest.mark.parametrize("value", [-1, -5e-324, math.nan, math.inf, 10**400])
def test_wrong_numbers_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number, 0 or more"):
        PolicySettings(**{name: value})


def test_the_defaults_are_usable():
    assert PolicySettings().window_ms == DEFAULT_WINDOW_MS
    assert set(POLICIES) == {"ageing", "cost", "shortest", "equal"}


@unhurried
@given(st.lists(st.none() | anything))
def test_dense_ranks_have_no_gaps_and_follow_the_quantile(quantiles):
    ranks = dense_ranks(quantiles)
    assert [type(rank) for rank in ranks] == [int] * len(quantiles)
    assert set(ranks) == set(range(len(set(ranks))))
    values = [0.5 if one is None or not 0 <= one <= 1 else float(one) for one in quantiles]
    assert all(
        (rank < other) == (value < another)
        for rank, value in zip(ranks, values, strict=True)
        for other, another in zip(ranks, values, strict=True)
    )
