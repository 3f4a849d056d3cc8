"""Two API server processes before one engine, with priorities in the body, and before two engines, with priorities in the header: one
priority scale. And the starvation bound, seen from both sides."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from generating import ask, chat, completion, finishing_order, one_by_one, response, saturated
from http_wire import WAIT_S, Reply
from quantile_ranker import QuantileRanker, prompt
from rude_requests import CASES, essence, reply_to
from shared_servers import SHORT_WINDOW_MS, TWO_ENGINES, TWO_WORKERS, Fleet
from vllm_server import until_scoring


async def test_both_workers_order_by_one_scale(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue twelve long requests, then twelve short ones, by all endpoints that read the body's priority 3. let go: all
    short ones finish first 4. both workers had asked, and /metrics adds them up."""
    server = fleet(TWO_WORKERS)
    before = await until_scoring(server)
    ranker.questions_of_streams.clear()
    long = {f"long {make.__name__} {n}": make(prompt(1.0), 8) for make in (completion, chat, response) for n in range(4)}
    short = {f"short {make.__name__} {n}": make(prompt(0.0), 8) for make in (completion, chat, response) for n in range(4)}
    order = await finishing_order(server, [long, short])
    assert set(order[: len(short)]) == set(short)
    assert len(ranker.questions_of_streams) == 2
    counted = (await server.metrics()).outcomes_since(before)
    assert counted == {"scored": len(long) + len(short) + 1}
    assert sum(ranker.questions_of_streams.values()) == counted["scored"]


async def test_nobody_is_overtaken_by_who_comes_later_than_the_window(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue a request of the largest quantile 3. queue one of the smallest at once 4. when the window has passed, queue
    another of the smallest 5. let go: the first small one overtakes, the second does not."""
    server = fleet(TWO_WORKERS)
    await until_scoring(server)
    order: list[str] = []

    async def answered(name: str, quantile: float) -> None:
        await ask(server, completion(prompt(quantile)))
        order.append(name)

    async with asyncio.timeout(3 * WAIT_S), asyncio.TaskGroup() as tasks, saturated(server):
        tasks.create_task(answered("long", 1.0))
        await server.until(lambda metrics: metrics.waiting == 1)
        # The clock of the priorities; the long request's own time is a little earlier.
        bound_s = time.time() + SHORT_WINDOW_MS / 1000
        tasks.create_task(answered("short, at once", 0.0))
        await server.until(lambda metrics: metrics.waiting == 2)
        assert time.time() < bound_s, "the machine was too slow to see the inner side of the bound"
        await asyncio.sleep(bound_s - time.time() + 0.01)
        assert time.time() > bound_s
        tasks.create_task(answered("short, too late", 0.0))
        await server.until(lambda metrics: metrics.waiting == 3)
        assert not order
    assert order == ["short, at once", "long", "short, too late"]


@pytest.mark.parametrize("name", CASES)
async def test_a_priority_in_the_body_changes_no_answer(
    fleet: Fleet, ranker: QuantileRanker, plain_reply: Callable[[str], Awaitable[Reply]], name: str
) -> None:
    """1. ask a server without the hook 2. ask the one whose hook writes the priority into the body 3. the answers agree."""
    expected = await plain_reply(name)
    assert essence(await reply_to(fleet(TWO_WORKERS), CASES[name])) == essence(expected)


async def test_unscored_requests_keep_their_order_across_workers(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue token ids one by one 3. let go: they finish as they came, whichever worker took them."""
    requests = {str(number): completion([number, 5, 6]) for number in range(1, 9)}
    assert await finishing_order(fleet(TWO_WORKERS), one_by_one(requests)) == list(requests)


async def test_two_engines_order_by_one_scale(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate both engines of a server with --data-parallel-size 2 2. queue twelve long requests, then twelve short ones 3. let go:
    no long one is answered before every short one is, whichever engine has it 4. both engines and both workers had a part."""
    server = fleet(TWO_ENGINES)
    await until_scoring(server)
    ranker.questions_of_streams.clear()
    before = await server.until_idle()
    long = {f"long {number}": completion(prompt(1.0), 200) for number in range(12)}
    short = {f"short {number}": completion(prompt(0.0), 4) for number in range(12)}
    order = await finishing_order(server, [long, short])
    assert set(order[: len(short)]) == set(short)
    assert len(ranker.questions_of_streams) == 2
    after = await server.until_idle()
    finished = [after.finished(engine) - before.finished(engine) for engine in ("0", "1")]
    assert sum(finished) == len(long) + len(short)
    assert min(finished) >= 4
