"""A sidecar that is frozen, slow, killed or restarted: it costs a few requests their deadline and nobody else anything."""

import asyncio
import contextlib
import time

import pytest
from hook_rig import NEUTRAL, SCORED, assert_nothing_left, decide, never, until
from scripted_ranker import TIMEOUT_S, ScriptedRanker, item_reply

from vllm_client.hook.decision import Decision, Outcome


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
        await until(lambda: hook.connected)
        assert (await decide(hook)).outcome is Outcome.BREAKER_OPEN
        clock.now_s += 1
        assert await decide(hook) == Decision(SCORED, Outcome.SCORED)


async def test_a_removed_socket_file_hurts_nobody_while_the_connection_lasts(hooked, tmp_path):
    path = tmp_path / "ranker.sock"
    server = ScriptedRanker(f"unix:{path}")
    with contextlib.ExitStack() as servers:
        servers.callback(server.stop)
        hook = hooked(server.address)
        await until(lambda: hook.connected)
        path.unlink()
        assert await decide(hook) == Decision(SCORED, Outcome.SCORED)
        await asyncio.to_thread(server.stop)
        await until(lambda: not hook.connected)
        assert await decide(hook) == Decision(NEUTRAL, Outcome.UNCONNECTED)
