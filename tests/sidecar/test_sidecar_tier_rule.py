"""Which scorer answers, and the estimate it is decided by: plain numbers, no clock, no thread."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.batching import CostModel
from sidecar.load import FORGET_S, SLOWDOWN_BOUNDS, LoadEstimate, LoopLag
from sidecar.tier_rule import Expectation, Reserve, Verdict, choose, fixed_reserve_ms

SECOND_NS = 1_000_000_000
TIMES = st.floats(0.0, 100_000.0)
COST = CostModel(fixed_ms=2.0, per_token_ms=0.5)


class TestChoose:
    @pytest.mark.parametrize(
        ("time_left_ms", "queue_ms", "work_ms", "ngram_allowed", "verdict"),
        [
            pytest.param(100, 50, 40, True, Verdict.ENCODER, id="the encoder fits"),
            pytest.param(103, 60, 40, True, Verdict.ENCODER, id="the encoder just fits before the reserve"),
            pytest.param(102.9, 60, 40, True, Verdict.NGRAM, id="the reserve is not for the encoder"),
            pytest.param(102.9, 60, 40, False, Verdict.QUEUE_TOO_LONG, id="with a shorter queue it would fit"),
            pytest.param(30, 60, 40, False, Verdict.NO_TIME, id="it would not fit without any queue"),
            pytest.param(1.5, 0, 1, True, Verdict.NGRAM, id="the n-gram scorer may use the reserve"),
            pytest.param(1.0, 0, 0, True, Verdict.NO_TIME, id="there is no time for the n-gram scorer either"),
        ],
    )
    def test_by_hand(self, time_left_ms: float, queue_ms: float, work_ms: float, ngram_allowed: bool, verdict: Verdict) -> None:
        reserve = Reserve(fixed_ms=1.0, lag_ms=1.0, ngram_ms=1.0)
        assert choose(time_left_ms, Expectation(queue_ms, work_ms), reserve, ngram_allowed=ngram_allowed) is verdict

    @given(TIMES, TIMES, TIMES, TIMES, TIMES, TIMES, st.booleans())
    def test_always(
        self, left: float, queue: float, work: float, fixed: float, lag: float, ngram: float, allowed: bool
    ) -> None:
        expected, reserve = Expectation(queue, work), Reserve(fixed, lag, ngram)
        verdict = choose(left, expected, reserve, ngram_allowed=allowed)
        if verdict is Verdict.ENCODER:
            assert queue + work + reserve.total_ms <= left or math.isclose(queue + work + reserve.total_ms, left)
        if verdict is Verdict.NGRAM:
            assert allowed
            assert ngram < left
        # More time never makes the answer worse.
        order = [Verdict.NO_TIME, Verdict.QUEUE_TOO_LONG, Verdict.NGRAM, Verdict.ENCODER]
        more = choose(left + 1.0, expected, reserve, ngram_allowed=allowed)
        assert order.index(more) >= order.index(verdict)


def test_a_short_deadline_leaves_the_encoder_half_of_it() -> None:
    assert fixed_reserve_ms(10.0, 100.0) == 10.0
    assert fixed_reserve_ms(10.0, 10.0) == 5.0


class TestLoadEstimate:
    def test_a_free_worker_means_no_queue(self) -> None:
        expected = LoadEstimate(COST, workers=2).expect([10], 0, 0, [500.0], 0)
        assert expected == Expectation(queue_ms=0.0, work_ms=2.0 + 0.5 * 10)

    def test_what_runs_and_what_waits_is_shared_by_the_workers(self) -> None:
        expected = LoadEstimate(COST, workers=2).expect([10], 2, 30, [3.0, 4.0], 0)
        assert expected.queue_ms == pytest.approx((2 * 2.0 + 0.5 * 30 + 7.0) / 2)

    def test_many_prompts_run_side_by_side_but_none_is_split(self) -> None:
        estimate = LoadEstimate(COST, workers=4)
        assert estimate.expect([10, 10, 10, 10], 0, 0, [], 0).work_ms == pytest.approx(2.0 + 0.5 * 40 / 4)
        assert estimate.expect([100, 1], 0, 0, [], 0).work_ms == pytest.approx(2.0 + 0.5 * 100)

    def test_slow_batches_raise_the_estimate_and_are_forgotten(self) -> None:
        estimate = LoadEstimate(COST, workers=1)
        for _ in range(100):
            estimate.ran(1, 10, took_ms=3 * 7.0, now_ns=0)
        assert estimate.slowdown(0) == pytest.approx(3.0)
        assert estimate.expect([10], 0, 0, [], 0).work_ms == pytest.approx(3 * 7.0)
        assert estimate.slowdown(int(FORGET_S * SECOND_NS)) == pytest.approx(1 + 2 / math.e)
        assert estimate.slowdown(20 * SECOND_NS) == pytest.approx(1.0)

    def test_one_stall_is_not_believed(self) -> None:
        estimate = LoadEstimate(COST, workers=1)
        estimate.ran(1, 10, took_ms=1e9, now_ns=0)
        assert estimate.slowdown(0) <= SLOWDOWN_BOUNDS[1]

    def test_larger_batches_share_the_fixed_cost(self) -> None:
        estimate = LoadEstimate(COST, workers=1)
        before = estimate.expect([1], 100, 100, [], 0).queue_ms
        for _ in range(100):
            estimate.ran(10, 10, took_ms=7.0, now_ns=0)
        assert estimate.expect([1], 100, 100, [], 0).queue_ms == pytest.approx(2.0 * 10 + 0.5 * 100)
        assert before == pytest.approx(2.0 * 100 + 0.5 * 100)

    @given(st.lists(st.tuples(st.integers(1, 100), st.floats(0.0, 1e6), st.integers(0, 10**12)), max_size=30))
    def test_it_stays_within_its_bounds(self, batches: list[tuple[int, float, int]]) -> None:
        estimate = LoadEstimate(COST, workers=1)
        now = 0
        for tokens, took_ms, passed_ns in batches:
            now += passed_ns
            estimate.ran(1, tokens, took_ms, now)
            assert SLOWDOWN_BOUNDS[0] <= estimate.slowdown(now) <= SLOWDOWN_BOUNDS[1]


def test_a_peak_of_lag_counts_at_once_and_fades() -> None:
    lag = LoopLag()
    lag.lagged(1.0, 0)
    lag.lagged(50.0, 0)
    assert lag.lag_ms(0) == pytest.approx(50.0)
    lag.lagged(1.0, 0)
    assert 1.0 < lag.lag_ms(0) < 50.0
    assert lag.lag_ms(20 * SECOND_NS) == pytest.approx(0.0, abs=1e-6)
