"""soak's callers against servers that break their promises: each is counted for what it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from soak_answers import planned, response

from benchmarks.soak.calls import Callers
from benchmarks.soak.check import Known
from benchmarks.soak.mix import SCORE, STREAM, Planned
from benchmarks.soak.tally import UNANSWERED
from pars.v1 import ranker_pb2

Answer = Callable[[Any, Any], Awaitable[Any]]
AskCallers = Callable[..., Awaitable[dict[str, Any]]]


@pytest_asyncio.fixture
async def ask_callers(known: Known) -> AsyncIterator[AskCallers]:
    """Makes one planned call to a server that does whatever the test says; returns the tally."""
    servers: list[Any] = []

    async def ask(
        call: Planned,
        *,
        score: Answer | None = None,
        stream: Answer | None = None,
        stopping: bool = False,
        slack_s: float = 0.2,
    ) -> dict[str, Any]:
        handlers: dict[str, Any] = {}
        if score:
            handlers["Score"] = grpc.unary_unary_rpc_method_handler(score)
        if stream:
            handlers["ScoreStream"] = grpc.stream_stream_rpc_method_handler(stream)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pars.v1.RankerService", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        callers = Callers(f"127.0.0.1:{port}", ("a", "b", "c"), known, seed=0, calls_per_s=1.0, slack_s=slack_s)
        if stopping:
            callers.stopping()
        await callers.make(call)
        callers.end()
        await callers.run()
        return callers.tally.to_json()

    yield ask
    for server in servers:
        await server.stop(None)


def one_item(timeout_s: float) -> Planned:
    item = Planned("stream item", STREAM, ranker_pb2.ScoreStreamRequest(id=0).SerializeToString(), (0,), timeout_s=timeout_s)
    return Planned("stream", STREAM, items=(item,))


async def never(_request: Any, context: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def read_and_end(requests: Any, context: Any) -> None:
    async for _ in requests:
        pass


async def fail(_request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.INTERNAL, "broken")


async def unavailable(_request: Any, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "going")


@pytest.mark.parametrize("server", [never, read_and_end])
async def test_an_item_nobody_answers_is_unanswered(ask_callers: AskCallers, server: Answer) -> None:
    tally = await ask_callers(one_item(timeout_s=0.1), stream=server)
    assert tally["calls"]["stream item"] == {UNANSWERED: 1}
    assert tally["unanswered"] >= 1


async def test_a_late_item_is_late(ask_callers: AskCallers, bundles: tuple[Path, Path]) -> None:
    async def late(requests: Any, context: Any) -> None:
        await context.read()
        await asyncio.sleep(0.15)
        await context.write(ranker_pb2.ScoreStreamResponse(response=response(bundles[0], 0)).SerializeToString())

    tally = await ask_callers(one_item(timeout_s=0.05), stream=late, slack_s=5.0)
    assert tally["calls"]["stream item"] == {"OK": 1}
    assert tally["by_deadline"]["tight"] == {"OK": 1, "late": 1}
    assert 0.05 < tally["worst_late_s"] < 5
    assert (tally["wrong"], tally["unanswered"]) == (0, 0)


async def test_a_status_nobody_deserves_is_wrong(ask_callers: AskCallers) -> None:
    tally = await ask_callers(planned(0), score=fail)
    assert (tally["calls"], tally["wrong"]) == ({"score": {"INTERNAL": 1}}, 1)
    assert tally["faults"] == ["score: INTERNAL: broken"]


@pytest.mark.parametrize(("stopping", "wrong"), [(False, 1), (True, 0)])
async def test_unavailable_is_right_only_while_stopping(ask_callers: AskCallers, stopping: bool, wrong: int) -> None:
    tally = await ask_callers(planned(0), score=unavailable, stopping=stopping)
    assert (tally["calls"], tally["wrong"]) == ({"score": {"UNAVAILABLE": 1}}, wrong)


async def test_a_caller_that_leaves_is_answered_by_leaving(ask_callers: AskCallers) -> None:
    for leaves in (False, True):
        call = Planned("score", SCORE, prompts=(0,), cancel_after_s=0.05, leaves=leaves, allowed=frozenset({"CANCELLED"}))
        tally = await ask_callers(call, score=never)
        assert (tally["calls"], tally["wrong"], tally["unanswered"]) == ({"score": {"CANCELLED": 1}}, 0, 0)
