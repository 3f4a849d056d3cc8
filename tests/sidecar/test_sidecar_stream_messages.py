"""Several items in one message, and several replies: only for those that take them, within every limit, and nothing lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from sidecar_rig import WAIT_S, Rig
from sidecar_served import Served, StartServed

from pars.v1 import ranker_pb2
from sidecar.errors import InvalidRequestError
from sidecar.item_stream import answer_items
from sidecar.stream_messages import MAX_ITEMS, MAX_REPLIES, REPLY_BYTES, StreamMessages

MakeRig = Callable[..., Rig]
Request, Reply = ranker_pb2.ScoreStreamRequest, ranker_pb2.ScoreStreamResponse


def item(id: int, *prompts: str, more: Sequence[Request] = (), takes_more: bool = False) -> Request:
    return Request(id=id, request=ranker_pb2.ScoreRequest(prompts=prompts), more=more, takes_more=takes_more)


async def messages_of(stream: Any) -> list[Reply]:
    """All that still come."""
    found = []
    async with asyncio.timeout(WAIT_S):
        while (message := await stream.read()) is not grpc.aio.EOF:
            found.append(message)
    return found


def scores_by_id(messages: Sequence[Reply]) -> dict[int, float]:
    replies = [reply for message in messages for reply in (message, *message.more)]
    assert len({reply.id for reply in replies}) == len(replies)
    return {reply.id: reply.response.scores[0].score for reply in replies}


async def test_all_items_of_a_message_are_answered_one_by_one_unless_the_client_takes_more(served: Served) -> None:
    stream = served.stub.ScoreStream()
    await stream.write(item(1, "long", more=[item(2, "long " * 2), item(3, "long " * 3)]))
    await stream.done_writing()
    messages = await messages_of(stream)
    assert scores_by_id(messages) == {1: 2.0, 2: 4.0, 3: 6.0}
    assert [len(message.more) for message in messages] == [0, 0, 0]
    assert all(message.takes_more for message in messages)


class HeldWriter:
    """A stream's context with one message from the client, that holds each write until told to go on."""

    def __init__(self, message: Request) -> None:
        self._unread = [message]
        self.written: list[Reply] = []
        self.go_on = asyncio.Semaphore(0)

    async def read(self) -> Any:
        return self._unread.pop() if self._unread else grpc.aio.EOF

    async def write(self, message: Reply) -> None:
        self.written.append(message)
        await self.go_on.acquire()


async def test_replies_that_come_while_one_is_written_share_the_next_message() -> None:
    client = HeldWriter(item(0, "x", takes_more=True, more=[item(id, "x") for id in range(1, 9)]))
    messages = StreamMessages()

    async def answer(each: Request) -> Reply:
        return Reply(id=each.id)

    stream = answer_items(
        client, answer, unpack=messages.unpack, pack=messages.pack, max_unanswered=16, stopping=asyncio.Event()
    )
    answered = asyncio.ensure_future(stream)
    for _ in range(50):
        await asyncio.sleep(0)
    assert [each.id for each in client.written] == [0]
    client.go_on.release()
    client.go_on.release()
    await asyncio.wait_for(answered, WAIT_S)
    assert [[each.id, *(reply.id for reply in each.more)] for each in client.written] == [[0], list(range(1, 9))]


async def test_more_items_than_the_server_leaves_unanswered_wait_their_turn(
    make_rig: MakeRig, start_served: StartServed
) -> None:
    rig = make_rig(capacity=100)
    stream = (await start_served(rig, max_stream_items=4)).stub.ScoreStream()
    await stream.write(item(0, "x", takes_more=True, more=[item(id, "x") for id in range(1, 30)]))
    await rig.scorer.started()
    other = rig.permits.taken
    rig.scorer.run_free()
    await stream.done_writing()
    assert scores_by_id(await messages_of(stream)) == dict.fromkeys(range(30), 1.0)
    assert other <= 4


async def test_items_within_items_end_the_stream_after_the_rest_is_answered(served: Served) -> None:
    stream = served.stub.ScoreStream()
    await stream.write(item(1, "long"))
    await stream.write(item(2, "long", more=[item(3, "long", more=[item(4, "long")])]))
    assert (await asyncio.wait_for(stream.read(), WAIT_S)).id == 1
    assert await asyncio.wait_for(stream.code(), WAIT_S) is grpc.StatusCode.INVALID_ARGUMENT
    assert "more" in await stream.details()


@pytest.mark.parametrize(("more", "taken"), [(MAX_ITEMS - 1, True), (MAX_ITEMS, False), (100_000, False)])
def test_a_message_of_items_has_a_bound(more: int, taken: bool) -> None:
    message = Request(more=[Request()] * more)
    if taken:
        assert len(StreamMessages().unpack(message)) == MAX_ITEMS
    else:
        with pytest.raises(InvalidRequestError, match=f"{more + 1} items"):
            StreamMessages().unpack(message)


@pytest.mark.parametrize(
    ("sizes", "together"),
    [([10] * 3, [3]), ([REPLY_BYTES // 2] * 3, [1, 1, 1]), ([REPLY_BYTES * 2, 10, 10], [1, 2]), ([10, REPLY_BYTES], [1, 1])],
)
def test_large_replies_do_not_share_a_message(sizes: list[int], together: list[int]) -> None:
    messages = StreamMessages()
    messages.unpack(Request(takes_more=True))
    replies = [Reply(id=number, error=ranker_pb2.ItemError(code=1, message="x" * size)) for number, size in enumerate(sizes)]
    found = []
    while replies:
        found.append(1 + len(messages.pack(replies).more))
    assert found == together


def test_a_message_of_replies_has_a_bound_and_keeps_the_order() -> None:
    messages, replies = StreamMessages(), [Reply(id=number) for number in range(MAX_REPLIES + 2)]
    messages.unpack(Request(takes_more=True))
    messages.unpack(Request())  # said once, it holds
    first = messages.pack(replies)
    assert [first.id, *(reply.id for reply in first.more)] == list(range(MAX_REPLIES))
    assert [reply.id for reply in replies] == [MAX_REPLIES, MAX_REPLIES + 1]
