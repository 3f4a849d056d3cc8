"""PriorityHook leaves nothing behind: not of callers that leave, not of requests by the thousand, not once it is closed."""

import asyncio
import gc
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from hook_rig import ARRIVAL_MS, ASKED, NEUTRAL, SCORED, assert_nothing_left, decide, never, nonsense, until
from scripted_ranker import TIMEOUT_S, item_reply

from vllm_client.hook.decision import Decision, Outcome
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings


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
