"""PriorityHook against a real gRPC server whose answers the tests write, and without one where nothing is asked."""

import asyncio
import contextlib
import gc
import logging
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scripted_ranker import TIMEOUT_S, ScriptedRanker, item_error, item_reply

from vllm_client.errors import DeadlineError, RankerClientError
from vllm_client.hook.asked import Asked
from vllm_client.hook.counters import Counters
from vllm_client.hook.decision import Decision, Outcome
from vllm_client.hook.link import Link
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings
from vllm_client.scores import PromptScore, ScoredBatch, ServerTiming, Tier

ARRIVAL_MS = 1_700_000_000_000.75
NOW_MS = 1_800_000_000_000.0
WINDOW_MS = 40_000
NEUTRAL = 1_700_000_000_000 + WINDOW_MS // 2
PATIENT_MS = 20_000
ASKED = Asked(texts=("x" * 25,), prompt_chars=25)  # The scripted ranker's quantile: 0.25.
SCORED = 1_700_000_000_000 + WINDOW_MS // 4


async def until(condition, timeout_s: float = TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


class Clock:
    """Stands still unless moved, so that no breaker opens or closes by the machine's slowness."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def hooked(clock):
    """Makes hooks, started; closes them."""
    hooks = []

    def make(address: str, *, counters: Counters | None = None, link: Link | None = None, **settings) -> PriorityHook:
        chosen = HookSettings(address=address, **{"deadline_ms": PATIENT_MS, "gate_in_flight": 0, **settings})
        hook = PriorityHook(chosen, counters=counters, link=link, wall_ms=lambda: NOW_MS, monotonic_s=clock)
        hooks.append(hook)
        hook.start()
        return hook

    yield make
    for hook in hooks:
        await hook.close()


@pytest.fixture
def ranker(ranker) -> ScriptedRanker:
    ranker.answer_stream = ranker.serve_items
    return ranker


@pytest.fixture
def connected(hooked, ranker):
    async def make(**settings) -> PriorityHook:
        hook = hooked(ranker.address, **settings)
        await until(lambda: hook.connected)
        ranker.requests.clear()
        return hook

    return make


def never(item):
    return None


def assert_nothing_left(hook: PriorityHook) -> None:
    link = hook._link
    assert link._asks_out == 0
    assert not hook._breaker._trial_out
    if link._stream is not None:
        assert not link._stream._waiting
        assert not link._stream._unsent


async def decide(hook: PriorityHook, asked: Asked = ASKED) -> Decision:
    return await hook.decide(asked, ARRIVAL_MS)


# What is asked, and what comes of the answer.


async def test_a_scored_request_has_the_policys_priority(connected):
    hook = await connected()
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
    assert hook.counters.counts[Outcome.SCORED] == 1
    assert_nothing_left(hook)


async def test_of_several_texts_the_longest_response_counts_and_the_cost_of_all(connected):
    texts = ("x" * 10, "x" * 75, "x" * 35)  # Quantiles 0.1, 0.75, 0.35; expected tokens 100, 750, 350; mean 400.
    hook = await connected()
    asked = Asked(texts=texts, prompt_chars=120)
    assert await decide(hook, asked) == Decision(1_700_000_000_000 + 30_000, Outcome.SCORED)

    costly = await connected(policy="cost", prefill_ms_per_token=1, decode_ms_per_token=1, stretch=1, window_ms=1_000_000)
    # 126 prompt tokens (2 more than characters, for each text) and 400 × 3 texts × 2 samples.
    two_each = Asked(texts=texts, prompt_chars=120, samples=2)
    assert await decide(costly, two_each) == Decision(1_700_000_000_000 + 126 + 2400, Outcome.SCORED)
    # A prompt of which the ranker saw the beginning counts by its characters: 4,000 / 4.
    long = Asked(texts=("x" * 10,), prompt_chars=4000, max_tokens=50)
    assert await decide(costly, long) == Decision(1_700_000_000_000 + 1000 + 50, Outcome.SCORED)


async def test_the_class_delay_counts_scored_or_not(connected, ranker):
    hook = await connected()
    batch_class = Asked(texts=ASKED.texts, class_delay_ms=7_000)
    assert await decide(hook, batch_class) == Decision(SCORED + 7_000, Outcome.SCORED)
    assert hook.neutral(batch_class, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(NEUTRAL + 7_000, Outcome.TOO_LARGE)


async def test_an_unscored_request_is_a_middling_one_that_keeps_its_own_limits(hooked, nobody):
    hook = hooked(nobody, policy="cost", prefill_ms_per_token=1, decode_ms_per_token=1, stretch=1)
    one_token = Asked(texts=("hello",), prompt_chars=400, max_tokens=1, samples=3)
    assert await decide(hook, one_token) == Decision(1_700_000_000_000 + 100 + 3, Outcome.UNCONNECTED)
    unlimited = Asked(texts=("hello",), prompt_chars=400)
    assert await decide(hook, unlimited) == Decision(NEUTRAL, Outcome.UNCONNECTED)


def nonsense(field, value):
    def answer(item):
        reply = item_reply(item)
        setattr(reply.response.scores[0], field, value)
        return reply

    return answer


def wrong_count(item):
    reply = item_reply(item)
    reply.response.scores.add().CopyFrom(reply.response.scores[0])
    return reply


def status(code: grpc.StatusCode):
    return lambda item: item_error(item, code, "as the script says")


def only_the_id(item):
    reply = item_reply(item)
    reply.ClearField("response")
    return reply


GARBAGE = [
    pytest.param(nonsense("score", float("nan")), Outcome.BAD_REPLY, id="score NaN"),
    pytest.param(nonsense("quantile", float("nan")), Outcome.BAD_REPLY, id="quantile NaN"),
    pytest.param(nonsense("quantile", 2.0), Outcome.BAD_REPLY, id="quantile 2"),
    pytest.param(nonsense("quantile", -0.01), Outcome.BAD_REPLY, id="quantile below 0"),
    pytest.param(nonsense("expected_tokens", float("inf")), Outcome.BAD_REPLY, id="infinite length"),
    pytest.param(wrong_count, Outcome.BAD_REPLY, id="one score too many"),
    pytest.param(only_the_id, Outcome.BAD_REPLY, id="neither response nor error"),
    pytest.param(status(grpc.StatusCode.INVALID_ARGUMENT), Outcome.REFUSED, id="refused"),
    pytest.param(status(grpc.StatusCode.RESOURCE_EXHAUSTED), Outcome.OVERLOADED, id="overloaded"),
    pytest.param(status(grpc.StatusCode.UNAVAILABLE), Outcome.UNAVAILABLE, id="draining"),
    pytest.param(status(grpc.StatusCode.DEADLINE_EXCEEDED), Outcome.DEADLINE, id="the server's deadline"),
    pytest.param(status(grpc.StatusCode.INTERNAL), Outcome.SERVER_FAULT, id="server fault"),
]


@pytest.mark.parametrize(("answer", "outcome"), GARBAGE)
async def test_whatever_is_no_score_is_a_cause_and_the_neutral_priority(connected, ranker, answer, outcome):
    hook = await connected()
    ranker.answer_item = answer
    assert await decide(hook) == Decision(NEUTRAL, outcome)
    assert {name for name, count in hook.counters.counts.items() if count} == {outcome}
    assert_nothing_left(hook)
    ranker.answer_item = item_reply
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


async def test_text_that_cannot_be_sent_is_refused(connected, ranker):
    hook = await connected()
    assert await decide(hook, Asked(texts=("\ud800",))) == Decision(NEUTRAL, Outcome.REFUSED)
    assert ranker.requests == []


# What is not asked.


@pytest.fixture
async def watched(connected, ranker):
    """A hook of these settings, and the number of questions that reached the sidecar."""

    async def make(**settings):
        hook = await connected(**settings)
        return hook, lambda: len(ranker.requests)

    return make


async def test_no_text_means_no_question(watched):
    hook, questions = await watched()
    assert await decide(hook, Asked()) == Decision(NEUTRAL, Outcome.NO_TEXT)
    assert questions() == 0


async def test_below_the_gate_nothing_is_asked(watched):
    hook, questions = await watched(gate_in_flight=3)
    with contextlib.ExitStack() as in_flight:
        for expected in (Outcome.GATED, Outcome.GATED, Outcome.SCORED, Outcome.SCORED):
            in_flight.enter_context(hook.in_flight())
            assert (await decide(hook)).outcome is expected
        assert hook.counters.gauges["in_flight"] == 4
    assert hook.counters.gauges["in_flight"] == 0
    with hook.in_flight():
        assert await decide(hook) == Decision(NEUTRAL, Outcome.GATED)
    assert questions() == 2


def test_the_gate_is_the_settings_where_it_says_and_else_the_hosts():
    assert PriorityHook(HookSettings()).gate_in_flight == 4
    assert PriorityHook(HookSettings(), gate_in_flight=32).gate_in_flight == 32
    assert PriorityHook(HookSettings(gate_in_flight=7), gate_in_flight=32).gate_in_flight == 7
    assert PriorityHook(HookSettings(gate_in_flight=0), gate_in_flight=32).gate_in_flight == 0


async def test_a_request_that_fails_is_no_longer_in_flight(watched):
    hook, _ = await watched()
    with pytest.raises(ZeroDivisionError), hook.in_flight():
        raise ZeroDivisionError
    assert hook.counters.gauges["in_flight"] == 0


@pytest.mark.parametrize("share", [0, 0.1, 1 / 3, 0.5, 0.7, 0.999, 1])
async def test_the_sampled_share_is_exact_and_even(hooked, nobody, share):
    hook = hooked(nobody, sample_share=share)
    for total in range(1, 2001):
        assert (await decide(hook)).outcome in (Outcome.UNSAMPLED, Outcome.UNCONNECTED)
        taken = hook.counters.counts[Outcome.UNCONNECTED]
        assert abs(taken - total * share) <= 1
    assert abs(hook.counters.counts[Outcome.UNCONNECTED] - 2000 * share) < 1


async def test_an_unsampled_request_is_neutral(watched):
    hook, questions = await watched(sample_share=0)
    assert await decide(hook) == Decision(NEUTRAL, Outcome.UNSAMPLED)
    assert questions() == 0


async def test_under_the_equal_policy_everybody_is_0(watched):
    hook, questions = await watched(policy="equal")
    assert await decide(hook) == Decision(0, Outcome.EQUAL)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.UNREADABLE) == Decision(0, Outcome.UNREADABLE)
    assert questions() == 0


async def test_an_engine_that_orders_by_arrival_gets_nothing(watched):
    hook, questions = await watched()
    hook.engine_obeys = False
    assert await decide(hook) == Decision(None, Outcome.FCFS_ENGINE)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.FCFS_ENGINE)
    assert questions() == 0


async def test_in_shadow_mode_all_is_asked_and_nothing_is_set(watched, ranker):
    hook, questions = await watched(shadow=True)
    hook.engine_obeys = False  # Shadow mode is for such engines too.
    assert await decide(hook) == Decision(None, Outcome.SCORED)
    assert await decide(hook, Asked()) == Decision(None, Outcome.NO_TEXT)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.TOO_LARGE)
    ranker.answer_item = nonsense("quantile", 2.0)
    assert await decide(hook) == Decision(None, Outcome.BAD_REPLY)
    assert questions() == 2
    assert hook.counters.gauges["shadow"] == 1
    await hook.close()
    assert hook.counters.gauges["shadow"] == 0


@pytest.mark.parametrize("client_priority", [0, -5, 10**30])
async def test_a_clients_priority_that_is_kept_is_left_alone(watched, client_priority):
    hook, questions = await watched()
    own = Asked(texts=ASKED.texts, client_priority=client_priority)
    assert await decide(hook, own) == Decision(None, Outcome.CLIENT_PRIORITY)
    assert hook.neutral(own, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.CLIENT_PRIORITY)
    assert questions() == 0


@pytest.mark.parametrize(("client_priority", "moved_ms"), [(0, 0), (-3, -300), (3, 300), (10**30, 2000), (-(10**30), -2000)])
async def test_a_clients_priority_that_is_combined_moves_ours_within_the_limit(connected, client_priority, moved_ms):
    hook = await connected(client_priority="combine", client_step_ms=100, client_limit_ms=2000)
    own = Asked(texts=ASKED.texts, client_priority=client_priority)
    assert await decide(hook, own) == Decision(SCORED + moved_ms, Outcome.SCORED)
    assert hook.neutral(own, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(NEUTRAL + moved_ms, Outcome.TOO_LARGE)


async def test_a_clients_priority_that_is_overridden_does_not_count(connected):
    hook = await connected(client_priority="override")
    assert await decide(hook, Asked(texts=ASKED.texts, client_priority=-5)) == Decision(SCORED, Outcome.SCORED)


# A sidecar that fails.


async def test_a_frozen_sidecar_costs_the_first_few_their_deadline_and_nobody_else_anything(connected, ranker, clock):
    hook = await connected(deadline_ms=30, breaker_failures=5, breaker_open_ms=1000)
    ranker.answer_item = never
    outcomes = [(await decide(hook)).outcome for _ in range(100)]
    assert outcomes == [Outcome.DEADLINE] * 5 + [Outcome.BREAKER_OPEN] * 95
    assert hook.counters.gauges["breaker_open"] == 1
    assert await decide(hook) == Decision(NEUTRAL, Outcome.BREAKER_OPEN)
    assert_nothing_left(hook)
    # The trial fails, so the connection is made anew; nobody can be scored meanwhile, and nobody waits.
    clock.now_s += 1
    assert (await decide(hook)).outcome is Outcome.DEADLINE
    assert not hook.connected
    clock.now_s += 1
    assert {(await decide(hook)).outcome for _ in range(100)} == {Outcome.UNCONNECTED}
    # It thaws: connected, one trial, and all is well.
    ranker.answer_item = item_reply
    await until(lambda: hook.connected)
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
    assert hook.counters.gauges["breaker_open"] == 0


async def test_callers_of_a_frozen_sidecar_wait_no_longer_than_the_deadline(connected, ranker):
    hook = await connected(deadline_ms=50)
    ranker.answer_item = never
    began_s = time.monotonic()
    decisions = await asyncio.gather(*(decide(hook) for _ in range(200)))
    assert 0.04 <= time.monotonic() - began_s < 5
    assert decisions == [Decision(NEUTRAL, Outcome.DEADLINE)] * 200
    assert_nothing_left(hook)


async def test_a_slow_sidecar_keeps_its_connection(connected, ranker, clock):
    hook = await connected(deadline_ms=30, breaker_failures=1)
    stream = hook._link._stream
    replied = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def slowly(item):
        time.sleep(0.1)
        loop.call_soon_threadsafe(replied.release)
        return item_reply(item)

    ranker.answer_item = slowly
    for _ in range(3):
        assert (await decide(hook)).outcome is Outcome.DEADLINE
        await asyncio.wait_for(replied.acquire(), TIMEOUT_S)
        await until(lambda: stream.unheard == 0)  # The late reply is in.
        clock.now_s += 1
    assert hook._link._stream is stream
    ranker.answer_item = item_reply
    assert (await decide(hook)).outcome is Outcome.SCORED


async def test_a_killed_sidecar_fails_who_asks_and_costs_nobody_after(connected, ranker):
    hook = await connected()
    ranker.answer_item = never
    pending = [asyncio.create_task(decide(hook)) for _ in range(3)]
    await until(lambda: len(ranker.requests) == 3)
    await asyncio.to_thread(ranker.stop)
    assert await asyncio.gather(*pending) == [Decision(NEUTRAL, Outcome.UNAVAILABLE)] * 3
    await until(lambda: not hook.connected)
    assert await decide(hook) == Decision(NEUTRAL, Outcome.UNCONNECTED)
    assert_nothing_left(hook)


@pytest.mark.parametrize("how", ["tcp", "unix"])
async def test_a_restarted_sidecar_is_used_again(hooked, clock, tmp_path, how):
    first = ScriptedRanker("127.0.0.1:0" if how == "tcp" else f"unix:{tmp_path}/ranker.sock")
    with contextlib.ExitStack() as servers:
        servers.callback(first.stop)
        first.answer_stream = first.serve_items
        hook = hooked(first.address)
        await until(lambda: hook.connected)
        first.answer_item = never
        pending = [asyncio.create_task(decide(hook)) for _ in range(5)]
        await until(lambda: len(hook._link._stream._waiting) == 5)
        await asyncio.to_thread(first.stop)
        assert {decision.outcome for decision in await asyncio.gather(*pending)} == {Outcome.UNAVAILABLE}
        assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
        await until(lambda: not hook.connected)
        second = ScriptedRanker(first.address)
        servers.callback(second.stop)
        second.answer_stream = second.serve_items
        await until(lambda: hook.connected)
        assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
        clock.now_s += 1
        assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


async def test_a_removed_socket_file_hurts_nobody_while_the_connection_lasts(hooked, tmp_path):
    path = tmp_path / "ranker.sock"
    server = ScriptedRanker(f"unix:{path}")
    with contextlib.ExitStack() as servers:
        servers.callback(server.stop)
        server.answer_stream = server.serve_items
        hook = hooked(server.address)
        await until(lambda: hook.connected)
        path.unlink()
        assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
        await asyncio.to_thread(server.stop)
        await until(lambda: not hook.connected)
        assert await decide(hook) == Decision(NEUTRAL, Outcome.UNCONNECTED)


@pytest.mark.parametrize(("answer", "outcome"), GARBAGE)
async def test_the_breaker_opens_on_the_sidecars_failures_alone(connected, ranker, clock, answer, outcome):
    hook = await connected(breaker_failures=2, breaker_open_ms=1000)
    ranker.answer_item = answer
    outcomes = [(await decide(hook)).outcome for _ in range(3)]
    if outcome is Outcome.REFUSED:
        assert outcomes == [outcome] * 3
        return
    assert outcomes == [outcome, outcome, Outcome.BREAKER_OPEN]
    clock.now_s += 1
    assert [(await decide(hook)).outcome for _ in range(2)] == [outcome, Outcome.BREAKER_OPEN]
    ranker.answer_item = item_reply
    clock.now_s += 1
    assert [(await decide(hook)).outcome for _ in range(2)] == [Outcome.SCORED] * 2


async def test_a_burst_beyond_max_asks_does_not_open_the_breaker(connected, ranker):
    hook = await connected(max_asks=10, breaker_failures=1)
    outcomes = [decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(30)))]
    assert outcomes.count(Outcome.SCORED) == 10
    assert outcomes.count(Outcome.OVERLOADED) == 20
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


async def test_one_trial_at_a_time(connected, ranker, clock):
    hook = await connected(breaker_failures=1)
    ranker.answer_item = nonsense("quantile", 2.0)
    assert (await decide(hook)).outcome is Outcome.BAD_REPLY
    ranker.answer_item = item_reply
    clock.now_s += 1
    outcomes = [decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(10)))]
    assert sorted(outcomes) == [Outcome.BREAKER_OPEN] * 9 + [Outcome.SCORED]
    assert (await decide(hook)).outcome is Outcome.SCORED


# Callers that leave.


async def cancelled(task: asyncio.Task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_caller_that_leaves_in_any_phase_leaves_nothing_behind(connected, ranker):
    hook = await connected(max_asks=1)
    tasks = asyncio.all_tasks()
    ranker.answer_item = never
    for phase in ("not begun", "unsent", "waiting"):
        ranker.requests.clear()
        task = asyncio.create_task(decide(hook))
        if phase != "not begun":
            await asyncio.sleep(0)
            assert hook._link.full
        if phase == "waiting":
            await until(lambda: ranker.requests)
        await cancelled(task)
        assert_nothing_left(hook)
        assert asyncio.all_tasks() == tasks
    ranker.answer_item = item_reply
    assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
    assert sum(hook.counters.counts.values()) == 1


async def test_a_trial_whose_caller_leaves_gives_its_turn_to_the_next(connected, ranker, clock):
    hook = await connected(breaker_failures=1)
    ranker.answer_item = nonsense("quantile", 2.0)
    assert (await decide(hook)).outcome is Outcome.BAD_REPLY
    clock.now_s += 1
    ranker.answer_item = never
    for _ in range(3):
        ranker.requests.clear()
        trial = asyncio.create_task(decide(hook))
        await until(lambda: ranker.requests)
        assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
        await cancelled(trial)
        assert_nothing_left(hook)
    ranker.answer_item = item_reply
    assert (await decide(hook)).outcome is Outcome.SCORED


async def test_many_callers_that_come_and_go_leave_nothing_behind(connected, ranker):
    hook = await connected(max_asks=64)
    tasks_before = asyncio.all_tasks()
    ranker.answer_item = lambda item: None if item.id % 3 else item_reply(item)
    for _ in range(10):
        tasks = [asyncio.create_task(decide(hook)) for _ in range(60)]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert_nothing_left(hook)
    assert asyncio.all_tasks() == tasks_before
    ranker.answer_item = item_reply
    assert (await decide(hook)).outcome is Outcome.SCORED


# Cost and end.


async def test_ten_thousand_requests_without_a_sidecar_keep_no_memory_and_block_nobody(hooked, nobody, clock):
    hook = hooked(nobody, log_interval_s=0)
    longest_s, last_s = 0.0, time.monotonic()

    async def run(count: int) -> None:
        nonlocal longest_s, last_s
        for _ in range(count):
            with hook.in_flight():
                assert (await decide(hook)).outcome is Outcome.UNCONNECTED
            await asyncio.sleep(0)
            now_s = time.monotonic()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s

    await run(1000)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        last_s = time.monotonic()
        await run(10_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000  # Ten bytes a request would be a leak.
    assert longest_s < 1
    assert_nothing_left(hook)


async def test_scored_requests_keep_no_objects(connected, ranker):
    hook = await connected(max_asks=1000)

    async def run(count: int) -> None:
        for _ in range(count // 200):
            decisions = await asyncio.gather(*(decide(hook) for _ in range(200)))
            assert all(decision.outcome is Outcome.SCORED for decision in decisions)
        ranker.requests.clear()
        gc.collect()

    await run(400)
    before = len(gc.get_objects())
    await run(1200)
    assert len(gc.get_objects()) - before < 600  # A request that left one would leave twelve hundred.
    assert_nothing_left(hook)


async def test_closing_leaves_no_task_and_later_requests_go_unscored(connected, ranker):
    tasks = asyncio.all_tasks()
    hook = await connected()
    hook.start()
    ranker.answer_item = never
    pending = asyncio.create_task(decide(hook))
    await until(lambda: ranker.requests)
    await asyncio.gather(hook.close(), hook.close())
    await hook.close()
    assert await pending == Decision(NEUTRAL, Outcome.UNAVAILABLE)
    assert await decide(hook) == Decision(NEUTRAL, Outcome.UNCONNECTED)
    await until(lambda: asyncio.all_tasks() == tasks)


def test_it_is_made_outside_of_a_loop_and_connects_nowhere(monkeypatch, nobody):
    def connect(*arguments, **options):
        raise AssertionError("it connects")

    monkeypatch.setattr(grpc.aio, "insecure_channel", connect)
    with ThreadPoolExecutor(1) as other_thread:  # Where no loop ever was.
        hook = other_thread.submit(PriorityHook, HookSettings(address=nobody)).result(TIMEOUT_S)
    assert hook.neutral(ASKED, ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(NEUTRAL, Outcome.TOO_LARGE)


def test_the_arrival_clock_is_the_wall_clock_in_milliseconds():
    before = time.time() * 1000
    assert before <= PriorityHook(HookSettings()).now_ms() <= time.time() * 1000


# Bugs of ours, and of others.


class StandIn(Link):
    """A link that does as a test says, connected from the start."""

    connected = True

    def __init__(self, answer) -> None:
        super().__init__(HookSettings())
        self.answer = answer

    def start(self) -> None:
        pass

    async def ask(self, texts):
        return self.answer(texts)


class NewError(RankerClientError):
    """One that the table of causes does not know."""


def raises(error: Exception):
    def answer(texts):
        raise error

    return answer


@pytest.mark.parametrize("error", [ZeroDivisionError("my secret prompt"), NewError("my secret prompt")], ids=["bug", "unknown"])
async def test_a_bug_is_told_once_a_minute_and_the_request_goes_on(hooked, nobody, clock, caplog, error):
    hook = hooked(nobody, link=StandIn(raises(error)), breaker_failures=3)
    now = 1_800_000_000_000 + WINDOW_MS // 2  # Nothing of a request is trusted then, its arrival neither.
    decisions = [await decide(hook) for _ in range(4)]
    assert decisions == [Decision(now, Outcome.HOOK_FAULT)] * 3 + [Decision(NEUTRAL, Outcome.BREAKER_OPEN)]
    assert hook.counters.counts[Outcome.HOOK_FAULT] == 3
    clock.now_s += 60
    await decide(hook)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert type(error).__name__ in caplog.text
    assert "2 more" in caplog.records[1].getMessage()
    assert "in ask" in caplog.text  # Where.
    assert "secret" not in caplog.text


async def test_a_bug_in_shadow_mode_or_with_a_kept_priority_changes_nothing(hooked, nobody):
    shadow = hooked(nobody, link=StandIn(raises(ZeroDivisionError())), shadow=True)
    assert await decide(shadow) == Decision(None, Outcome.HOOK_FAULT)
    kept = hooked(nobody)
    kept.counters.count = raises(ZeroDivisionError())
    assert kept.neutral(Asked(client_priority=3), ARRIVAL_MS, Outcome.TOO_LARGE) == Decision(None, Outcome.HOOK_FAULT)


async def test_a_deadline_error_of_the_link_is_a_deadline(hooked, nobody):
    hook = hooked(nobody, link=StandIn(raises(DeadlineError("late"))))
    assert await decide(hook) == Decision(NEUTRAL, Outcome.DEADLINE)


ANY_INT = st.one_of(st.integers(), st.integers(-(2**70), 2**70), st.sampled_from([10**400, -(10**400)]))
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    policy=st.sampled_from(["ageing", "cost", "shortest", "equal"]),
    client=st.sampled_from(["keep", "combine", "override"]),
    asked=st.builds(
        Asked,
        texts=st.sampled_from([(), ("a",), ("a", "b", "c")]),
        prompt_chars=ANY_INT,
        max_tokens=st.none() | ANY_INT,
        samples=ANY_INT,
        client_priority=st.none() | ANY_INT | ANY_FLOAT,
        class_delay_ms=ANY_INT | ANY_FLOAT,
    ),
    arrival_ms=ANY_FLOAT | ANY_INT,
    scores=st.lists(
        st.builds(
            PromptScore,
            score=ANY_FLOAT,
            quantile=ANY_FLOAT,
            expected_tokens=ANY_FLOAT,
            expected_tokens_p90=ANY_FLOAT,
            prompt_tokens=ANY_INT,
            truncated=st.booleans(),
            tier=st.just(Tier.NGRAM),
        ),
        max_size=3,
    ),
)
def test_a_decision_is_an_int64_or_nothing_whatever_comes_in(policy, client, asked, arrival_ms, scores):
    # Types and scores included that nobody should let through: a float would hang the engine.
    if client == "combine" and policy in ("shortest", "equal"):
        client = "override"
    logging.getLogger("vllm_client").disabled = True
    batch = ScoredBatch(tuple(scores), "bundle", ServerTiming(0, 0, 0))
    settings = HookSettings(policy=policy, client_priority=client, gate_in_flight=0)
    hook = PriorityHook(settings, link=StandIn(lambda texts: batch), wall_ms=lambda: NOW_MS)
    try:
        decisions = [asyncio.run(hook.decide(asked, arrival_ms)), hook.neutral(asked, arrival_ms, Outcome.UNREADABLE)]
    finally:
        logging.getLogger("vllm_client").disabled = False
    for priority, outcome in decisions:
        assert isinstance(outcome, Outcome)
        if priority is None:
            assert asked.client_priority is not None
            assert client == "keep"
        else:
            assert type(priority) is int
            assert -(2**63) <= priority < 2**63
    assert sum(hook.counters.counts.values()) == 2
