"""The simulated engine: schedules worked out by hand, equality with a naive scheduler and with itself step by step, conservation."""

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_engine import Naive, run_naive

from benchmarks.simulator.disciplines import (
    Discipline,
    FirstCome,
    PredictedRemaining,
    ResponseRatio,
    StaticPriority,
    TrueRemaining,
)
from benchmarks.simulator.engine import Engine
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.job import Job
from benchmarks.simulator.request import Estimate, Outcome, Request
from benchmarks.simulator.simulate import Run, Setup, simulate
from benchmarks.simulator.step_model import StepModel, milliseconds, ticks

EVEN = StepModel(constant_ms=1.0)
"""Every step takes a millisecond: times are step numbers."""

PRICED = StepModel(constant_ms=10.0, per_sequence_ms=1.0, per_prefill_token_ms=0.5, per_context_token_ms=0.01)


def times(run: Run) -> list[tuple[float, float]]:
    return [(outcome.first_token_ms, outcome.finished_ms) for outcome in run.outcomes]


def mean_ms(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.finished_ms - outcome.request.arrival_ms for outcome in outcomes) / len(outcomes)


# --- by hand


def test_two_slots_three_requests() -> None:
    """1. the first two are read in one step 2. the second ends after two tokens 3. the third, which came meanwhile, takes its place in
    the next step, in which the first goes on."""
    requests = [Request(0, 4, 3), Request(0, 6, 2), Request(5, 2, 1)]
    run = simulate(Setup(EngineSettings(2), PRICED), requests)
    read = 10 + 2 * 1 + 10 * 0.5
    decoded = read + 10 + 2 * 1 + (5 + 7) * 0.01
    last = decoded + 10 + 2 * 1 + 2 * 0.5 + 6 * 0.01
    assert times(run) == [
        (read, pytest.approx(last)),
        (read, pytest.approx(decoded)),
        (pytest.approx(last), pytest.approx(last)),
    ]
    assert (run.steps, run.preemptions, run.deepest_queue) == (3, 0, 1)
    # The third came at 5 ms, was seen when the first step ended, and waited for the second.
    assert run.outcomes[2].queued_ms == pytest.approx(decoded - read)


def test_the_lower_priority_waits() -> None:
    requests = [Request(0, 1, 5), Request(1, 1, 9), Request(2, 1, 2)]
    engine = Engine(EngineSettings(1), EVEN, StaticPriority())
    jobs = [
        Job(index, request, priority, None, ticks(request.arrival_ms))
        for (index, request), priority in zip(enumerate(requests), (0, 7, 3), strict=True)
    ]
    for job in jobs:
        engine.run_until(job.entered)
        engine.submit(job)
    engine.run_until(None)
    assert [milliseconds(job.finished or 0) for job in jobs] == [5, 16, 7]


def test_a_long_prompt_is_read_in_pieces_beside_who_decodes() -> None:
    """A budget of 4 tokens: the first prompt takes one step, the second, of 7 tokens, has 3 of each step's budget."""
    requests = [Request(0, 4, 6), Request(0.5, 7, 1)]
    run = simulate(Setup(EngineSettings(2, max_num_batched_tokens=4), EVEN), requests)
    assert times(run) == [(1, 6), (4, 4)]


def test_without_blocks_the_last_one_starts_again() -> None:
    """Four blocks of two tokens. 1. the first is read, then the second, and both grow 2. in the fourth step the first needs a third
    block and takes those of the second, which has made two tokens 3. that one waits for room for all of its four tokens, which is when
    the first has ended, reads them again in the seventh step, and makes its third."""
    requests = [Request(0, 2, 6), Request(0.5, 2, 4)]
    run = simulate(Setup(EngineSettings(2, kv_blocks=4, block_tokens=2), EVEN), requests)
    assert times(run) == [(1, 6), (2, 8)]
    assert [outcome.preemptions for outcome in run.outcomes] == [0, 1]
    assert run.outcomes[1].queued_ms == 3


def test_scheduled_ahead_a_slot_is_free_one_step_later() -> None:
    """The second step is scheduled when the first begins: a request that comes in between sees the third. Whoever ends in a step has
    its slot until the one after the next."""
    at_once = EngineSettings(1)
    ahead = dataclasses.replace(at_once, async_scheduling=True)
    requests = [Request(0, 1, 2), Request(0, 1, 2), Request(10.5, 1, 1)]
    assert times(simulate(Setup(at_once, EVEN), requests)) == [(1, 2), (3, 4), (11.5, 11.5)]
    # With nothing to do while the last token is made, the next step waits for it, and finds everything known.
    assert times(simulate(Setup(ahead, EVEN), requests)) == [(1, 2), (3, 4), (11.5, 11.5)]
    two = dataclasses.replace(ahead, max_num_seqs=2)
    requests = [Request(0, 1, 2), Request(0, 1, 5), Request(0, 1, 1)]
    assert times(simulate(Setup(two, EVEN), requests)) == [(1, 2), (1, 5), (4, 4)]
    assert times(simulate(Setup(dataclasses.replace(two, async_scheduling=False), EVEN), requests)) == [(1, 2), (1, 5), (3, 3)]


def test_a_long_one_makes_way_for_a_short_one() -> None:
    """Shortest remaining first, on one slot: 1. ten tokens begin 2. two come after three steps and take the slot 3. the first reads its
    prompt and three tokens again, which makes its fourth."""
    requests = [Request(0, 1, 10), Request(2.5, 1, 2)]
    run = simulate(Setup(EngineSettings(1), EVEN, TrueRemaining()), requests)
    assert times(run) == [(1, 12), (4, 5)]
    assert run.preemptions == 1


def test_it_stays_when_reading_it_again_would_cost_more() -> None:
    requests = [Request(0, 100, 10), Request(2.5, 1, 2)]
    run = simulate(Setup(EngineSettings(1), EVEN, TrueRemaining(prompt_weight=0.5)), requests)
    assert times(run) == [(1, 10), (11, 12)]


def test_who_turns_out_long_makes_way() -> None:
    """Both were said to be of 10 tokens, give or take. The first is at 64 and nobody knows when it ends; the other is as good as new."""
    requests = [Request(0, 1, 100), Request(1.5, 1, 2)]
    estimate = Estimate(0.5, 10, 40)
    run = simulate(Setup(EngineSettings(1), EVEN, PredictedRemaining()), requests, [estimate, estimate])
    assert run.preemptions == 1
    assert run.outcomes[1].finished_ms < 100 < run.outcomes[0].finished_ms


def test_what_no_engine_could_run_is_refused() -> None:
    with pytest.raises(ValueError, match="9 tokens do not fit into 4 blocks"):
        simulate(Setup(EngineSettings(1, kv_blocks=4, block_tokens=2), EVEN), [Request(0, 5, 5)])
    simulate(Setup(EngineSettings(1, kv_blocks=4, block_tokens=2), EVEN), [Request(0, 5, 4)])
    with pytest.raises(ValueError, match="no engine has these settings"):
        EngineSettings(max_num_seqs=8, max_num_batched_tokens=7)


# --- against others

engines = st.builds(
    EngineSettings,
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.sampled_from([5, 6, 8, 30]),
    kv_blocks=st.just(1),
    block_tokens=st.sampled_from([1, 2, 4, 16]),
    async_scheduling=st.booleans(),
)
request_lists = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 20), st.integers(1, 30), st.integers(0, 2)), min_size=1, max_size=8
)
SPARE_BLOCKS = st.sampled_from([0, 0, 1, 2, 5, 100])

Rows = list[tuple[int, int, int, int]]


def roomy(engine: EngineSettings, rows: Rows, spare: int) -> EngineSettings:
    """The engine with blocks for the longest request, and some to spare."""
    return dataclasses.replace(engine, kv_blocks=spare + max(engine.blocks_for(row[1] + row[2] - 1) for row in rows))


@given(engine=engines, rows=request_lists, spare=SPARE_BLOCKS, fast_forward=st.booleans())
@settings(max_examples=400, deadline=None)
def test_it_does_what_the_naive_scheduler_does(engine: EngineSettings, rows: Rows, spare: int, fast_forward: bool) -> None:
    engine = roomy(engine, rows, spare)
    naive = [Naive(*row) for row in sorted(rows, key=lambda row: row[0])]
    run_naive(
        naive,
        slots=engine.max_num_seqs,
        budget=engine.max_num_batched_tokens,
        blocks=engine.kv_blocks,
        block_tokens=engine.block_tokens,
        asynchronous=engine.async_scheduling,
    )
    simulated = Engine(engine, EVEN, StaticPriority(), fast_forward=fast_forward)
    jobs = []
    for index, each in enumerate(naive):
        request = Request(each.arrival, each.prompt_tokens, each.output_tokens)
        jobs.append(Job(index, request, each.priority, None, ticks(each.arrival)))
        simulated.run_until(jobs[-1].entered)
        simulated.submit(jobs[-1])
    simulated.run_until(None)
    found = [(milliseconds(job.first_token or 0), milliseconds(job.finished or 0), job.preemptions) for job in jobs]
    assert found == [(each.ends[0], each.ends[-1], each.preemptions) for each in naive]


DISCIPLINES: dict[str, Discipline] = {
    "first come": FirstCome(),
    "priority": StaticPriority(),
    "predicted remaining": PredictedRemaining(reconsider_steps=4),
    "true remaining": TrueRemaining(prompt_weight=0.3),
    "response ratio": ResponseRatio(prompt_weight=0.3),
}


def requests_of(rows: Rows) -> list[Request]:
    return [Request(arrival, prompt, output) for arrival, prompt, output, _ in sorted(rows, key=lambda row: row[0])]


def estimates_of(requests: Sequence[Request]) -> list[Estimate | None]:
    """Half of them wrong, one in four unknown."""
    return [
        None if index % 4 == 3 else Estimate(0.5, 7 if index % 2 else request.output_tokens, 60)
        for index, request in enumerate(requests)
    ]


@pytest.mark.parametrize("name", DISCIPLINES)
@given(engine=engines, rows=request_lists, spare=SPARE_BLOCKS, fleet=st.integers(1, 3), balanced=st.booleans())
@settings(max_examples=60, deadline=None)
def test_jumping_changes_nothing(name: str, engine: EngineSettings, rows: Rows, spare: int, fleet: int, balanced: bool) -> None:
    """1. with jumps and step by step: the same to the tick 2. again: the same"""
    requests = requests_of(rows)
    setup = Setup(
        roomy(engine, rows, spare),
        PRICED,
        DISCIPLINES[name],
        engines=fleet,
        balancer="least-loaded" if balanced else "round-robin",
        before_ms=0.7,
    )
    estimates = estimates_of(requests)
    run = simulate(setup, requests, estimates)
    assert run == simulate(setup, requests, estimates, fast_forward=False)
    assert run == simulate(setup, requests, estimates)


@given(engine=engines, rows=request_lists, spare=SPARE_BLOCKS)
@settings(max_examples=100, deadline=None)
def test_equal_priorities_are_first_come_first_served(engine: EngineSettings, rows: Rows, spare: int) -> None:
    setup = Setup(roomy(engine, rows, spare), PRICED, StaticPriority())
    by_arrival = dataclasses.replace(setup, discipline=FirstCome())
    assert simulate(setup, requests_of(rows)) == simulate(by_arrival, requests_of(rows))


@given(rows=request_lists)
@settings(max_examples=200, deadline=None)
def test_with_one_slot_nothing_beats_the_shortest_first(rows: Rows) -> None:
    """All there at once: the oracle's mean is never above that of any other discipline."""
    requests = [Request(0, 1, row[2]) for row in rows]
    means = {
        name: mean_ms(simulate(Setup(EngineSettings(1), EVEN, each), requests, estimates_of(requests)).outcomes)
        for name, each in DISCIPLINES.items()
    }
    assert means["true remaining"] == min(means.values())


@pytest.mark.parametrize("name", DISCIPLINES)
@given(engine=engines, rows=request_lists, spare=SPARE_BLOCKS)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_nothing_stays(name: str, engine: EngineSettings, rows: Rows, spare: int) -> None:
    """1. everybody gets a first token, then a last one, not before it came and not faster than a token a step 2. the engine is empty
    afterwards: the same requests again, later, take the same time."""
    requests = requests_of(rows)
    pause_ms = 100_000.0
    again = [dataclasses.replace(each, arrival_ms=each.arrival_ms + pause_ms) for each in requests]
    # Every step, since every fourth one is another one of the same requests when they come again.
    discipline = PredictedRemaining(reconsider_steps=1) if name == "predicted remaining" else DISCIPLINES[name]
    run = simulate(Setup(roomy(engine, rows, spare), EVEN, discipline), [*requests, *again], estimates_of(requests) * 2)
    assert len(run.outcomes) == 2 * len(requests)
    for outcome in run.outcomes:
        assert outcome.first_token_ms >= outcome.request.arrival_ms + 1
        assert outcome.finished_ms >= outcome.first_token_ms + outcome.request.output_tokens - 1
    once, twice = times(run)[: len(requests)], times(run)[len(requests) :]
    assert [(first + pause_ms, last + pause_ms) for first, last in once] == twice


@given(rows=request_lists, slots=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_the_tokens_add_up(rows: Rows, slots: int) -> None:
    """With room for everything and all there at once no token is made twice: the time is that of the steps and of all tokens."""
    requests = [Request(0, prompt, output) for _, prompt, output, _ in rows]
    model = StepModel(constant_ms=1.0, per_sequence_ms=1.0, per_prefill_token_ms=1.0)
    run = simulate(Setup(EngineSettings(slots), model), requests)
    made = sum(request.prompt_tokens + request.output_tokens for request in requests)
    assert max(outcome.finished_ms for outcome in run.outcomes) == run.steps + made
