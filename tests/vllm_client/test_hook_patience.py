"""How long a request is held for its score: the rule, and that hook, host and stream follow it."""

import asyncio
import contextlib
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from hook_rig import ASKED, assert_nothing_left, decide, never, nonsense
from hypothesis import given
from hypothesis import strategies as st
from scripted_ranker import score_reply

from pars.v1 import ranker_pb2
from vllm_client import AsyncRankerClient, ClientConfig, DeadlineError
from vllm_client import stream as stream_module
from vllm_client.hook import scoring
from vllm_client.hook.decision import Outcome
from vllm_client.hook.host import Host, inspect_host
from vllm_client.hook.patience import patience_ms
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings
from vllm_client.stream import UnseenError


@pytest.mark.parametrize(
    ("in_flight", "room", "expected"),
    [
        (1, 16, 10.0),
        (16, 16, 10.0),
        (17, 16, 72.5),
        (24, 16, 510.0),
        (32, 16, 1_010.0),
        (2_000, 16, 10_000.0),
        (2_000, None, 10.0),
    ],
)
def test_the_deadline_grows_with_those_who_wait(in_flight: int, room: int | None, expected: float):
    assert patience_ms(in_flight, room, 10, 10_000) == pytest.approx(expected)


@given(st.integers(1, 10_000), st.integers(1, 512), st.floats(0.1, 60_000), st.floats(0, 60_000))
def test_the_deadline_never_shrinks_and_keeps_its_bound(in_flight: int, room: int, deadline_ms: float, crowded_ms: float):
    now = patience_ms(in_flight, room, deadline_ms, crowded_ms)
    assert deadline_ms <= now <= max(deadline_ms, crowded_ms)
    assert now <= patience_ms(in_flight + 1, room, deadline_ms, crowded_ms)


@pytest.mark.parametrize(
    ("max_num_seqs", "api_servers", "engines", "room"),
    [(256, None, None, 256), (256, 4, 1, 64), (2, 4, 1, 1), (256, 8, 8, 256), (256, 1, 8, 2_048), (None, 4, 2, None)],
)
def test_the_room_is_that_of_all_engines_shared_by_the_api_servers(max_num_seqs, api_servers, engines, room):
    assert Host(max_num_seqs=max_num_seqs, api_servers=api_servers, engines=engines).room == room


@pytest.mark.parametrize(
    ("parallel", "engines"),
    [
        ({"data_parallel_size": 8, "data_parallel_size_local": 2}, 8),
        ({"data_parallel_size": 8, "data_parallel_size_local": 2, "data_parallel_hybrid_lb": True}, 2),
        ({"data_parallel_size": 8, "data_parallel_size_local": 1, "data_parallel_external_lb": True}, 1),
        ({}, None),
    ],
    ids=["vLLM balances all", "vLLM balances a node's", "somebody else balances", "unknown"],
)
def test_the_engines_that_get_this_processs_requests(parallel, engines):
    config = SimpleNamespace(parallel_config=SimpleNamespace(**parallel))
    scope = {"app": SimpleNamespace(state=SimpleNamespace(vllm_config=config))}
    assert inspect_host(scope).engines == engines


class NotingLink:
    """Notes how long it was given, and is always late."""

    connected, full, asked = True, False, False

    def __init__(self, error: type[DeadlineError] = DeadlineError, silent_s: float = 0.0) -> None:
        self.deadlines_ms: list[float] = []
        self.silent_s = silent_s
        self._error = error

    def start(self) -> None: ...

    def let_go(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, texts, deadline_ms):
        self.deadlines_ms.append(deadline_ms)
        raise self._error("late")


async def test_the_hook_waits_longer_for_a_score_when_others_wait_for_their_turn():
    link = NotingLink()
    settings = HookSettings(deadline_ms=10, crowded_deadline_ms=300, gate_in_flight=0, breaker_failures=100)
    hook = PriorityHook(settings, room=2, link=link)
    with contextlib.ExitStack() as others:
        for _ in range(4):
            assert (await decide(hook, ASKED)).outcome is Outcome.DEADLINE
            others.enter_context(hook.in_flight())
    assert link.deadlines_ms == [10, 10, 10, 300]
    hook.in_flight_elsewhere = 3
    assert (await decide(hook, ASKED)).outcome is Outcome.DEADLINE
    assert link.deadlines_ms == [10, 10, 10, 300, 300]


@pytest.mark.parametrize(("silent_s", "others", "opens"), [(0.0, 0, True), (0.0, 9, False), (1.9, 9, False), (2.1, 9, True)])
async def test_the_first_of_a_rush_who_are_late_do_not_speak_against_the_sidecar(silent_s: float, others: int, opens: bool):
    """They have the short deadline, and a moment later it has them all to score. When it says nothing at all, it counts."""
    hook = PriorityHook(HookSettings(gate_in_flight=0, breaker_failures=2), room=4, link=HeldLink(silent_s))
    with contextlib.ExitStack() as rush:
        first = [asyncio.create_task(decide(hook, ASKED)) for _ in range(3)]
        await asyncio.sleep(0)
        for _ in range(others):
            rush.enter_context(hook.in_flight())
        hook._link.released.set()
        outcomes = {(await each).outcome for each in first}
        assert outcomes == {Outcome.DEADLINE}
        assert ((await decide(hook, ASKED)).outcome is Outcome.BREAKER_OPEN) == opens


class HeldLink(NotingLink):
    """Is late when it is told to be."""

    def __init__(self, silent_s: float) -> None:
        super().__init__(silent_s=silent_s)
        self.released = asyncio.Event()

    async def ask(self, texts, deadline_ms):
        await self.released.wait()
        await super().ask(texts, deadline_ms)


def test_the_crowds_deadline_may_be_off():
    settings = HookSettings(deadline_ms=7, crowded_deadline_ms=0)
    assert patience_ms(10_000, 1, settings.deadline_ms, settings.crowded_deadline_ms) == 7


def late_after(server_s: float):
    def answer(items, context):
        for item in items:
            time.sleep(server_s)
            yield ranker_pb2.ScoreStreamResponse(id=item.id, response=score_reply(item.request))

    return answer


async def test_a_reply_that_the_callers_own_loop_is_late_to_look_at_counts(ranker):
    ranker.answer_stream = late_after(0)
    async with AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client, client.stream() as stream:
        await stream.score(["warm"])
        call = asyncio.create_task(stream.score(["a"], timeout_ms=50))
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251 - as a server that reads a burst of requests
        assert (await call).scores[0].score == 1


@pytest.mark.parametrize(("timeout_ms", "turn_s"), [(0.1, 0.0), (10, 0.016), (100, 0.15)])
async def test_a_loop_that_is_always_late_holds_nobody_for_long(ranker, timeout_ms: float, turn_s: float):
    """1. timers are rounded up to more than the deadline 2. and 3. every turn takes longer than it."""
    ranker.answer_stream = late_after(20)
    done = asyncio.Event()

    async def busy() -> None:
        while not done.is_set():
            time.sleep(turn_s)  # noqa: ASYNC251
            await asyncio.sleep(0)

    async with AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client, client.stream() as stream:
        other = asyncio.create_task(busy())
        began_s = time.monotonic()
        with pytest.raises(DeadlineError):
            await stream.score(["a"], timeout_ms=timeout_ms)
        # A dozen turns at the most: those in which it was sent, those that it is granted, and this one's own.
        assert time.monotonic() - began_s < timeout_ms / 1000 + 12 * turn_s + 1
        assert not stream._waiting
        done.set()
        await other


async def test_the_turns_that_are_granted_end_with_the_time_for_them(ranker, monkeypatch):
    monkeypatch.setattr(stream_module, "MAX_LATE_S", 0.1)
    monkeypatch.setattr(stream_module, "LAST_TURNS", 1_000_000)
    ranker.answer_stream = late_after(20)
    async with AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client, client.stream() as stream:
        with pytest.raises(DeadlineError):
            await stream.score(["a"], timeout_ms=50)
        assert not stream._waiting


@pytest.mark.parametrize(("silence_s", "error"), [(60.0, UnseenError), (0.0, DeadlineError)], ids=["at first", "for long"])
async def test_a_silent_server_is_not_to_blame_while_the_callers_own_loop_is_late(ranker, monkeypatch, silence_s, error):
    monkeypatch.setattr(stream_module, "LOOP_LATE_S", 0.05)
    monkeypatch.setattr(stream_module, "SILENCE_S", silence_s)
    ranker.answer_stream = late_after(20)
    async with AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client, client.stream() as stream:
        call = asyncio.create_task(stream.score(["a"], timeout_ms=20))
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 - as a server that reads a burst of requests
        with pytest.raises(DeadlineError) as raised:
            await call
        assert raised.type is error


async def test_what_was_not_looked_at_does_not_open_the_breaker():
    settings = HookSettings(gate_in_flight=0, breaker_failures=5)
    unseen = PriorityHook(settings, link=NotingLink(UnseenError))
    assert {(await decide(unseen)).outcome for _ in range(50)} == {Outcome.DEADLINE}
    late = PriorityHook(settings, link=NotingLink())
    assert [(await decide(late)).outcome for _ in range(6)] == [Outcome.DEADLINE] * 5 + [Outcome.BREAKER_OPEN]


async def test_silence_is_that_of_those_who_wait(ranker, link):
    """An item that nobody answered says nothing of the time in which nobody asked."""
    ranker.answer_item = never
    stream = link._stream
    assert link.silent_s == 0
    with pytest.raises(DeadlineError):
        await link.ask(["a"], 20)
    await asyncio.sleep(0.2)
    assert (stream.unheard, link.silent_s, link.asked) == (1, 0, False)
    first = asyncio.create_task(link.ask(["b"], 20_000))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(link.ask(["c"], 20_000))
    await asyncio.sleep(0)
    assert 0.1 <= link.silent_s < 10
    assert link.asked
    link.let_go()
    assert [type(each) for each in await asyncio.gather(first, second, return_exceptions=True)] == [DeadlineError] * 2


async def test_a_crowd_is_let_go_once_nothing_comes(hooked, ranker, link, monkeypatch):
    """The sidecar freezes while a crowd waits that was given a minute. Whoever has the patience of the settings keeps it."""
    monkeypatch.setattr(scoring, "SILENCE_S", 0.3)
    hook = hooked(ranker.address, link=link, room=1, deadline_ms=20_000, crowded_deadline_ms=60_000, breaker_failures=3)
    ranker.answer_item = never
    patient = asyncio.create_task(decide(hook))
    await asyncio.sleep(0.6)
    assert not patient.done()
    began_s = time.monotonic()
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(hook.in_flight())
        assert {decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(50)))} == {Outcome.DEADLINE}
    assert time.monotonic() - began_s < 10
    assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
    await patient
    assert_nothing_left(hook)


async def test_a_crowd_is_not_let_go_because_its_own_loop_stood_still(connected, ranker, monkeypatch):
    """The replies are there, and nobody has looked at them."""
    monkeypatch.setattr(scoring, "SILENCE_S", 0.3)
    ranker.answer_stream = late_after(0.02)
    hook = await connected(room=1, deadline_ms=1_000, crowded_deadline_ms=60_000, breaker_failures=1)
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(hook.in_flight())
        asked = [asyncio.create_task(decide(hook)) for _ in range(5)]
        await asyncio.sleep(0.005)
        time.sleep(0.6)  # noqa: ASYNC251 - as a server that reads a burst of requests
        assert {(await each).outcome for each in asked} == {Outcome.SCORED}


async def test_a_crowd_that_is_answered_bit_by_bit_goes_on_waiting(connected, ranker, monkeypatch):
    monkeypatch.setattr(scoring, "SILENCE_S", 1.0)
    ranker.answer_stream = late_after(0.2)
    hook = await connected(room=1, deadline_ms=1_000, crowded_deadline_ms=60_000, breaker_failures=1)
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(hook.in_flight())
        assert {decision.outcome for decision in await asyncio.gather(*(decide(hook) for _ in range(10)))} == {Outcome.SCORED}


async def test_a_crowd_is_let_go_when_the_breaker_opens(hooked, ranker, link, monkeypatch):
    """The sidecar answers the first with nonsense and the others not at all: they would wait for a minute."""
    monkeypatch.setattr(scoring, "SILENCE_S", 60.0)  # which is not what lets them go
    answers = iter([nonsense("quantile", 7.0)])
    ranker.answer_item = lambda item: next(answers, never)(item)
    hook = hooked(ranker.address, link=link, room=1, deadline_ms=30, crowded_deadline_ms=60_000, breaker_failures=1)
    began_s = time.monotonic()
    with contextlib.ExitStack() as crowd:
        for _ in range(100):
            crowd.enter_context(hook.in_flight())
        decisions = await asyncio.gather(*(decide(hook) for _ in range(50)))
    assert time.monotonic() - began_s < 10
    assert Counter(decision.outcome for decision in decisions) == {Outcome.BAD_REPLY: 1, Outcome.DEADLINE: 49}
    assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
    assert_nothing_left(hook)
