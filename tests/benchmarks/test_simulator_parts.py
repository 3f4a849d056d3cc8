"""The simulator's small parts: step times, what is left of a response, the hook, queues, rankers, arrivals, figures, traces."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import kendalltau, lognorm

from benchmarks.simulator.arrivals import as_bench_serve, from_rates, poisson
from benchmarks.simulator.disciplines import ResponseRatio, StaticPriority
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.figures import simulated_figures, slowdown
from benchmarks.simulator.hook import Hook
from benchmarks.simulator.job import Job
from benchmarks.simulator.rankers import oracle, ranker_of_tau
from benchmarks.simulator.remaining import Z90, mean_remaining
from benchmarks.simulator.request import Estimate, Outcome, Request
from benchmarks.simulator.simulate import Run, Setup, simulate
from benchmarks.simulator.step_model import StepModel, Stretch, ticks
from benchmarks.simulator.traces import SERVEGEN_HOURS, SERVEGEN_MODELS, at_rate, made_up, workloads
from benchmarks.simulator.waiting import waiting_for
from vllm_client.priority import PolicySettings, vllm_priority

# --- steps


@given(first=st.integers(1, 10**12), growth=st.integers(0, 10**6), duration=st.integers(-5, 10**15))
def test_steps_begun_before_a_time(first: int, growth: int, duration: int) -> None:
    """The last one that counts begins before it, the next one does not."""
    stretch = Stretch(first, min(growth, first))
    count = stretch.begun_before(duration)
    assert count == 0 if duration <= 0 else stretch.duration(count - 1) < duration <= stretch.duration(count)


def test_a_stretch_is_the_sum_of_its_steps() -> None:
    assert Stretch(10, 3).duration(4) == 10 + 13 + 16 + 19
    assert Stretch(10, 0).duration(0) == 0


@pytest.mark.parametrize("parts", [(0.0,), (-1.0,), (math.nan,), (1.0, -0.1), (1.0, math.inf)])
def test_no_step_takes_no_time(parts: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="a step takes a positive time"):
        StepModel(*parts)


# --- what is left


@pytest.mark.parametrize("made", [0, 1, 30, 100, 400, 3000])
@pytest.mark.parametrize("p90", [110.0, 250.0, 700.0])
def test_what_is_left_is_that_of_the_lognormal_distribution(made: int, p90: float) -> None:
    sigma = math.log(p90 / 100) / Z90
    survival = lognorm(s=sigma, scale=100).sf
    if survival(made) > 1e-12:  # the integral has no digits beyond
        integral, _ = quad(survival, made, np.inf, limit=500, epsabs=0, epsrel=1e-10)
        assert mean_remaining(Estimate(0.5, 100, p90), made) == pytest.approx(integral / survival(made), rel=1e-4)


def test_what_is_left_of_what_should_have_ended_long_ago() -> None:
    """Finite and growing, far beyond where the tail of the distribution is 0 to a float."""
    left = [mean_remaining(Estimate(0.5, 10, 11), made) for made in (20, 200, 2_000, 20_000, 200_000)]
    assert left == sorted(left)
    assert 0 < left[0] < 10
    assert mean_remaining(Estimate(0.0, 0, 0), 1) > 0


# --- hook and queues


def test_the_hook_asks_when_enough_are_in_flight() -> None:
    hook = Hook("ageing", gate_in_flight=4, ask_ms=7.0)
    request, estimate = Request(1234.0, 10, 10), Estimate(0.25, 80, 200)
    assert hook.place(request, estimate, in_flight=3, backlog_ms=0) == (vllm_priority(None, 1234.0), 0.0)
    assert hook.place(request, estimate, in_flight=4, backlog_ms=0) == (vllm_priority(0.25, 1234.0), 7.0)
    # Four times the backlog is 60 s, 20 more than the window, of which a quarter is taken off.
    assert hook.place(request, estimate, in_flight=4, backlog_ms=15_000) == (vllm_priority(0.25, 1234.0) - 5_000, 7.0)
    twice = Hook("ageing", window_backlogs=2.0)
    assert twice.place(request, estimate, in_flight=4, backlog_ms=30_000) == (vllm_priority(0.25, 1234.0) - 5_000, 0.0)
    assert hook.place(request, None, in_flight=4, backlog_ms=0) == (vllm_priority(None, 1234.0), 0.0)
    assert Hook("equal", ask_ms=7.0).place(request, estimate, in_flight=9, backlog_ms=0) == (0, 0.0)
    settings = PolicySettings(prefill_ms_per_token=1.0, decode_ms_per_token=2.0, stretch=3.0)
    assert Hook("cost", settings).place(request, estimate, in_flight=9, backlog_ms=0)[0] == 1234 + 3 * (10 + 2 * 80)


def test_the_gate_counts_who_is_there() -> None:
    """Two at a time are in flight when the third comes: it is asked about, which takes 7 ms. The fourth comes alone and is not."""
    requests = [Request(0, 1, 50), Request(1, 1, 50), Request(2, 1, 50), Request(500, 1, 50)]
    setup = Setup(EngineSettings(8), StepModel(1.0), hook=Hook("shortest", gate_in_flight=3, ask_ms=7.0))
    run = simulate(setup, requests, [Estimate(0.125, 50, 50)] * 4)
    assert [outcome.finished_ms - outcome.request.arrival_ms for outcome in run.outcomes] == [50, 50, 50 + 7, 50]


def test_a_held_request_enters_later() -> None:
    requests = [Request(0, 1, 2)]
    hook = Hook("shortest", ask_ms=3.0)
    run = simulate(Setup(EngineSettings(1), StepModel(1.0), hook=hook, before_ms=0.5), requests, oracle([2]))
    assert run.outcomes[0].finished_ms == 3.0 + 0.5 + 2 * 1.0
    assert simulate(Setup(EngineSettings(1), StepModel(1.0), hook=hook), requests).outcomes[0].finished_ms == 2.0


def test_fleets_share_the_work() -> None:
    """The second engine is empty when the third request comes, which takes turns alone do not see."""
    requests = [Request(0, 1, 100), Request(1, 1, 2), Request(10, 1, 1), Request(11, 1, 1)]
    setup = Setup(EngineSettings(1), StepModel(1.0), engines=2)
    turns = simulate(setup, requests)
    assert [outcome.finished_ms for outcome in turns.outcomes] == [100, 3, 101, 12]
    least = simulate(Setup(EngineSettings(1), StepModel(1.0), engines=2, balancer="least-loaded"), requests)
    assert [outcome.finished_ms for outcome in least.outcomes] == [100, 3, 11, 12]


def job(index: int, entered_ms: float, *, priority: int = 0, expected: float = 100.0) -> Job:
    request = Request(entered_ms, 1, 1)
    return Job(index, request, priority, Estimate(0.5, expected, expected), ticks(entered_ms))


def test_the_response_ratio_grows_with_waiting() -> None:
    """A short one that came later is first, until the long one has waited for so much longer."""
    waiting = waiting_for(ResponseRatio())
    long, short = job(0, 0.0, expected=100), job(1, 50.0, expected=50)
    waiting.push(long, ticks(0.0))
    waiting.push(short, ticks(50.0))
    assert waiting.first(ticks(90.0)) is long
    assert waiting.first(ticks(110.0)) is short
    waiting.take(short)
    assert waiting.first(ticks(110.0)) is long
    assert len(waiting) == 1


def test_a_fixed_order_is_by_priority_then_entry() -> None:
    waiting = waiting_for(StaticPriority())
    jobs = [job(0, 3.0, priority=2), job(1, 2.0, priority=2), job(2, 4.0, priority=1), job(3, 2.0, priority=2)]
    for each in jobs:
        waiting.push(each, 0)
    order = []
    while len(waiting):
        order.append(waiting.first(0))
        waiting.take(order[-1])
    assert [each.index for each in order] == [2, 1, 3, 0]


# --- rankers and arrivals


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.5, 0.8])
def test_a_ranker_of_a_tau_has_that_tau_and_is_calibrated(tau: float) -> None:
    lengths = np.random.default_rng(3).lognormal(5, 1, 4000).astype(int).tolist()
    estimates = ranker_of_tau(lengths, tau, seed=1)
    quantiles = [each.quantile for each in estimates]
    assert kendalltau(quantiles, lengths).statistic == pytest.approx(tau, abs=0.03)
    # Quantiles are those of the scores, and half of the lengths are below the expected tokens, nine tenths below the 90th percentile.
    assert np.percentile(quantiles, [10, 50, 90]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert np.mean([length < each.expected_tokens for length, each in zip(lengths, estimates, strict=True)]) == pytest.approx(
        0.5, abs=0.03
    )
    assert np.mean([length < each.p90_tokens for length, each in zip(lengths, estimates, strict=True)]) == pytest.approx(
        0.9, abs=0.03
    )
    assert estimates == ranker_of_tau(lengths, tau, seed=1)
    assert estimates != ranker_of_tau(lengths, tau, seed=2)


def test_the_oracle_knows() -> None:
    assert oracle([30, 10, 20, 10]) == [
        Estimate(0.875, 30, 30),
        Estimate(0.25, 10, 10),
        Estimate(0.625, 20, 20),
        Estimate(0.25, 10, 10),
    ]


def test_arrivals_are_those_of_vllm_bench_serve() -> None:
    """As get_request of vllm/benchmarks/serve.py draws them, from numpy's global generator."""
    state = np.random.get_state()
    np.random.seed(5)
    delays = np.cumsum([np.random.gamma(shape=1.0, scale=1 / (4.0 * 1.0)) for _ in range(50)])
    np.random.set_state(state)
    assert as_bench_serve(50, 4.0, 5) == pytest.approx((1000 * delays * (50 / 4.0) / delays[-1]).tolist())


def test_arrivals_have_their_rates() -> None:
    times = poisson(20_000, 5.0, seed=1)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(20_000 / 5.0 * 1000, rel=0.03)
    changing = np.asarray(from_rates([10.0, 0.0, 40.0], 100.0, seed=1))
    assert (np.diff(changing) >= 0).all()
    counts = np.histogram(changing, bins=[0, 100_000, 200_000, 300_000])[0]
    assert counts[1] == 0
    assert counts[[0, 2]] == pytest.approx([1000, 4000], rel=0.1)


# --- figures


def outcome(arrival_ms: float, first_ms: float, last_ms: float, tokens: int, queued_ms: float = 0.0) -> Outcome:
    return Outcome(Request(arrival_ms, 10, tokens), first_ms, last_ms, queued_ms, 1)


def test_figures_are_those_of_the_real_benchmark_and_more() -> None:
    outcomes = (outcome(500, 1500, 2500, 11, queued_ms=700), outcome(1000, 1100, 1400, 4, queued_ms=300))
    figures = simulated_figures(Run(outcomes, steps=9, preemptions=2, deepest_queue=1), StepModel(10.0))
    assert figures["e2e_mean_s"] == pytest.approx((2.0 + 0.4) / 2)
    assert figures["longest_wait_s"] == 1.0
    assert figures["duration_s"] == 2.5
    assert figures["output_tokens_per_s"] == 15 / 2.5
    assert figures["queue_mean"] == pytest.approx((0.7 + 0.3) / 2.5)
    assert (figures["queue_max"], figures["preemptions"], figures["steps"]) == (1, 2, 9)
    # Both were there within a second of the first one's arrival; alone they would take 11 and 4 steps.
    assert figures["most_in_flight"] == 2
    assert figures["slowdown_max"] == pytest.approx(2000 / 110)
    assert figures["slowdown_mean"] == pytest.approx((2000 / 110 + 400 / 40) / 2)


def test_alone_nothing_is_slowed_down() -> None:
    model = StepModel(10.0, 1.0, 0.5, 0.01)
    run = simulate(Setup(EngineSettings(4), model), [Request(3.0, 20, 30)])
    assert slowdown(run.outcomes[0], model) == pytest.approx(1.0)


# --- traces


def test_made_up_requests_are_the_same_again() -> None:
    requests = made_up(500)
    assert requests == made_up(500)
    assert requests != made_up(500, seed=1)
    assert all(each.prompt_tokens >= 1 and each.output_tokens >= 1 for each in requests)
    assert list(workloads(None, 5)) == ["made up"]


def test_a_rate_stretches_the_times() -> None:
    requests = at_rate([Request(10, 1, 1), Request(20, 2, 2), Request(40, 3, 3)], 4.0)
    assert [each.arrival_ms for each in requests] == pytest.approx([0, 500 / 3, 500])


def write(path: Path, **columns: list[Any]) -> None:
    pyarrow.parquet.write_table(pa.table(columns), path)


def test_traces_are_read(tmp_path: Path) -> None:
    """1. a trace: its first requests, at least a token each 2. rates and lengths: of one model and its hours alone"""
    write(
        tmp_path / "trace_azure2023_conv.parquet",
        arrival_s=[0.0, 0.5, 1.5],
        prompt_tokens=[7, 0, 9],
        response_tokens=[0, 99_999, 3],
    )
    model = SERVEGEN_MODELS[0]
    hour = SERVEGEN_HOURS[0] * 3600.0
    write(
        tmp_path / "trace_servegen_rates.parquet",
        model=[model, model, model, "other"],
        window_start_s=[hour - 600, hour, hour + 600, hour],
        requests_per_s=[1e9, 30.0, 10.0, 1e9],
    )
    write(
        tmp_path / "trace_servegen_lengths.parquet",
        model=[model, model, model, "other"],
        field=["input_tokens", "input_tokens", "output_tokens", "output_tokens"],
        value=[5.0, 6.0, 50.0, 60.0],
        requests=[1.0, 3.0, 1.0, 1.0],
    )
    made = workloads(tmp_path, 2)
    assert made["azure2023_conv"](7) == [Request(0, 7, 1), Request(500, 1, 99_999)]
    drawn = workloads(tmp_path, 1000)[f"servegen {model}"](0)
    assert len(drawn) == pytest.approx(1000, rel=0.1)
    assert sum(each.arrival_ms < 600_000 for each in drawn) == pytest.approx(0.75 * len(drawn), rel=0.1)
    assert {each.output_tokens for each in drawn} == {50}
    assert sum(each.prompt_tokens == 6 for each in drawn) == pytest.approx(0.75 * len(drawn), rel=0.1)
