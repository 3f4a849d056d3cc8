"""ScoreStream over a real socket: replies by id as they are ready, per-item errors, flow control, nothing left behind."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from sidecar_rig import WAIT_S, Rig
from sidecar_served import SERVICE, Served, StartServed

from pars.v1 import ranker_pb2
from sidecar.item_stream import answer_items

MakeRig = Callable[..., Rig]
Code = grpc.StatusCode


def item(id: int, *prompts: str, timeout_ms: int = 0, tier: int = 0) -> ranker_pb2.ScoreStreamRequest:
    request = ranker_pb2.ScoreRequest(prompts=prompts, tier=tier)
    return ranker_pb2.ScoreStreamRequest(id=id, request=request, timeout_ms=timeout_ms)


async def read(stream: Any) -> ranker_pb2.ScoreStreamResponse:
    return await asyncio.wait_for(stream.read(), WAIT_S)


async def write_all(stream: Any, items: Sequence[ranker_pb2.ScoreStreamRequest]) -> None:
    for each in items:
        await stream.write(each)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds that no event announces."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


async def test_every_item_is_answered_by_id_and_the_stream_ends_ok(served: Served) -> None:
    stream = served.stub.ScoreStream()
    await write_all(stream, [item(n, "long " * (n % 5)) for n in range(100, 130)])
    await stream.done_writing()
    replies = {}
    while (reply := await read(stream)) is not grpc.aio.EOF:
        replies[reply.id] = reply.response.scores[0].score
    assert replies == {n: 2.0 * (n % 5) for n in range(100, 130)}
    assert await stream.code() is Code.OK


async def test_an_empty_stream_ends_ok(served: Served) -> None:
    stream = served.stub.ScoreStream()
    await stream.done_writing()
    assert await read(stream) is grpc.aio.EOF
    assert await stream.code() is Code.OK


async def test_replies_come_as_they_are_ready(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    stream = (await start_served(rig)).stub.ScoreStream()
    await stream.write(item(1, "slow"))
    await rig.scorer.started()
    await stream.write(item(2, "fast", tier=ranker_pb2.TIER_NGRAM))
    assert (await read(stream)).id == 2
    rig.scorer.run_free()
    assert (await read(stream)).id == 1
    await stream.done_writing()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (item(7), Code.INVALID_ARGUMENT),
        (ranker_pb2.ScoreStreamRequest(id=7), Code.INVALID_ARGUMENT),
        (item(7, "x", tier=9), Code.INVALID_ARGUMENT),
        (item(7, *["x"] * 9), Code.INVALID_ARGUMENT),
    ],
    ids=["no prompts", "no request", "unknown tier", "too many prompts"],
)
async def test_a_wrong_item_fails_alone(served: Served, bad: ranker_pb2.ScoreStreamRequest, code: grpc.StatusCode) -> None:
    stream = served.stub.ScoreStream()
    await write_all(stream, [bad, item(8, "long")])
    await stream.done_writing()
    replies = {reply.id: reply for reply in [await read(stream), await read(stream)]}
    assert replies[7].error.code == code.value[0]
    assert replies[7].error.message
    assert replies[8].response.scores[0].score == 2.0
    assert await read(stream) is grpc.aio.EOF
    assert await stream.code() is Code.OK


async def test_an_items_timeout_is_its_own(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig(max_batch_prompts=8)
    stream = (await start_served(rig)).stub.ScoreStream()
    await stream.write(item(1, "x"))
    await rig.scorer.started()
    await stream.write(item(2, "xx", timeout_ms=10))
    reply = await read(stream)
    assert (reply.id, reply.error.code) == (2, Code.DEADLINE_EXCEEDED.value[0])
    rig.scorer.run_free()
    reply = await read(stream)
    assert (reply.id, reply.response.scores[0].score) == (1, 1.0)
    await stream.done_writing()
    assert await read(stream) is grpc.aio.EOF


async def test_the_streams_deadline_ends_it_and_leaves_nothing(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    stream = (await start_served(rig)).stub.ScoreStream(timeout=0.2)
    await write_all(stream, [item(1, "x"), item(2, "x", timeout_ms=60_000)])
    await rig.scorer.started()
    assert await asyncio.wait_for(stream.code(), WAIT_S) is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(rig.permits.all_returned(), WAIT_S)
    assert rig.runner.waiting_prompts == 0
    rig.scorer.run_free()


async def test_overload_fails_items_not_the_stream(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig(capacity=1)
    stream = (await start_served(rig)).stub.ScoreStream()
    await stream.write(item(1, "x"))
    await rig.scorer.started()
    await stream.write(item(2, "xx"))
    reply = await read(stream)
    assert (reply.id, reply.error.code) == (2, Code.RESOURCE_EXHAUSTED.value[0])
    rig.scorer.run_free()
    assert (await read(stream)).id == 1
    await stream.done_writing()


async def test_an_unreadable_message_ends_the_stream_after_the_rest_is_answered(served: Served) -> None:
    stream = served.channel.stream_stream(
        SERVICE + "ScoreStream", response_deserializer=ranker_pb2.ScoreStreamResponse.FromString
    )()
    await stream.write(item(1, "long").SerializeToString())
    await stream.write(b"\xff\xff\xff\xff")
    assert (await read(stream)).id == 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read(stream)
    assert raised.value.code() is Code.INVALID_ARGUMENT


async def test_the_server_reads_ahead_only_so_far(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig(capacity=100)
    served = await start_served(rig, max_stream_items=4)
    stream = served.stub.ScoreStream()
    await write_all(stream, [item(n, "x") for n in range(10)])
    await rig.scorer.started()
    await until(lambda: rig.permits.taken == 4)
    other = served.stub.Score(ranker_pb2.ScoreRequest(prompts=["xx"], tier=ranker_pb2.TIER_NGRAM), timeout=WAIT_S)
    await other  # the server has had every chance to read on
    assert rig.permits.taken == 4
    rig.scorer.run_free()
    assert {(await read(stream)).id for _ in range(10)} == set(range(10))
    await stream.done_writing()


def one_item(message: Any) -> tuple[Any]:
    return (message,)


def one_reply(replies: list[Any]) -> Any:
    return replies.pop(0)


class SlowReader:
    """A stream's context whose client sends without end and does not read until told to."""

    def __init__(self) -> None:
        self.sent = 0
        self.received: list[int] = []
        self.reading = asyncio.Event()
        self.last = 1_000_000

    async def read(self) -> Any:
        if self.sent == self.last:
            return grpc.aio.EOF
        self.sent += 1
        return item(self.sent)

    async def write(self, reply: int) -> None:
        await self.reading.wait()
        self.received.append(reply)


async def test_a_client_that_does_not_read_is_read_from_no_longer() -> None:
    client = SlowReader()
    answered = 0

    async def answer(each: ranker_pb2.ScoreStreamRequest) -> int:
        nonlocal answered
        answered += 1
        return each.id

    stream = asyncio.ensure_future(
        answer_items(client, answer, unpack=one_item, pack=one_reply, max_unanswered=4, stopping=asyncio.Event())
    )
    await until(lambda: answered == 4)
    for _ in range(100):
        await asyncio.sleep(0)  # every chance to read on
    assert (client.sent, client.received) == (4, [])
    client.last = 10
    client.reading.set()
    await asyncio.wait_for(stream, WAIT_S)
    assert sorted(client.received) == list(range(1, 11))


async def test_a_write_that_fails_ends_the_stream_quietly_and_stops_its_other_items() -> None:
    client = SlowReader()
    client.last = 3
    never = asyncio.Event()

    async def answer(each: ranker_pb2.ScoreStreamRequest) -> int:
        if each.id != 3:
            await never.wait()
        return each.id

    async def broken(reply: int) -> None:
        raise RuntimeError("the client is gone")

    client.write = broken  # type: ignore[method-assign]
    stopping = asyncio.Event()
    stream = answer_items(client, answer, unpack=one_item, pack=one_reply, max_unanswered=4, stopping=stopping)
    await asyncio.wait_for(stream, WAIT_S)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_hangs_up_leaves_nothing(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    served = await start_served(rig)
    stream = served.stub.ScoreStream()
    await write_all(stream, [item(1, "x"), item(2, "xx"), item(3, "xxx", timeout_ms=60_000)])
    await rig.scorer.started()
    await until(lambda: rig.permits.taken == 3)
    stream.cancel()
    await asyncio.wait_for(rig.permits.all_returned(), WAIT_S)
    assert rig.runner.waiting_prompts == 0
    await until(lambda: not any("answer_" in repr(task) for task in asyncio.all_tasks()))
    rig.scorer.run_free()
    reply = await served.stub.Score(ranker_pb2.ScoreRequest(prompts=["xxxx"]), timeout=WAIT_S)
    assert reply.scores[0].score == 4.0


async def test_a_stop_finishes_what_was_read_and_ends_with_unavailable(make_rig: MakeRig, start_served: StartServed) -> None:
    rig = make_rig()
    served = await start_served(rig)
    stream = served.stub.ScoreStream()
    await write_all(stream, [item(1, "x"), item(2, "xx")])
    await rig.scorer.started()
    await until(lambda: rig.permits.taken == 2)
    stop = asyncio.ensure_future(served.stop())
    await until(lambda: not served.health.serving)
    rig.scorer.run_free()
    assert [(await read(stream)).id, (await read(stream)).id] == [1, 2]
    assert await asyncio.wait_for(stream.code(), WAIT_S) is Code.UNAVAILABLE
    await asyncio.wait_for(stop, WAIT_S)
