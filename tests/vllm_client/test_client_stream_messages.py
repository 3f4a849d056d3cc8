"""Which items a ScoreStream puts into one message, and that replies in one message find their callers."""

import asyncio
import time

import pytest
from scripted_ranker import ManualStream, score_reply

from pars.v1 import ranker_pb2
from vllm_client import AsyncRankerClient, ClientConfig
from vllm_client.stream import ITEMS_PER_MESSAGE, MESSAGE_BYTES, ScoreStream


@pytest.fixture
async def client(ranker):
    config = ClientConfig(address=ranker.address, deadline_ms=20_000, max_in_flight=200)
    async with AsyncRankerClient(config) as client:
        yield client


async def received(server: ManualStream) -> ranker_pb2.ScoreStreamRequest:
    return await asyncio.to_thread(server.receive)


def reply_to(item: ranker_pb2.ScoreStreamRequest, **fields) -> ranker_pb2.ScoreStreamResponse:
    return ranker_pb2.ScoreStreamResponse(id=item.id, response=score_reply(item.request), **fields)


async def ask(stream: ScoreStream, *prompts: str) -> list[asyncio.Task]:
    """Calls that all wait to be sent when the writer looks."""
    tasks = [asyncio.create_task(stream.score([prompt])) for prompt in prompts]
    await asyncio.sleep(0)
    return tasks


async def until_it_knows(stream: ScoreStream, server: ManualStream, **fields) -> None:
    """One call, whose reply says what the server takes."""
    (task,) = await ask(stream, "first")
    item = await received(server)
    assert item.takes_more
    assert not item.more
    server.outbox.put(reply_to(item, **fields))
    await task


async def test_items_share_a_message_once_the_server_says_that_it_takes_them(client, server):
    async with client.stream() as stream:
        await until_it_knows(stream, server, takes_more=True)
        tasks = await ask(stream, "a", "bb", "ccc")
        message = await received(server)
        assert [list(item.request.prompts) for item in (message, *message.more)] == [["a"], ["bb"], ["ccc"]]
        last, *others = (message.more[1], message, message.more[0])
        server.outbox.put(reply_to(last, more=[reply_to(item) for item in others]))
        assert [batch.scores[0].score for batch in await asyncio.gather(*tasks)] == [1, 2, 3]
        assert not stream._waiting
        assert not stream._unsent


async def test_a_server_that_does_not_say_so_gets_one_item_a_message(client, server):
    async with client.stream() as stream:
        await until_it_knows(stream, server)
        tasks = await ask(stream, "a", "bb")
        for _ in tasks:
            item = await received(server)
            assert not item.more
            server.outbox.put(reply_to(item))
        assert [batch.scores[0].score for batch in await asyncio.gather(*tasks)] == [1, 2]


@pytest.mark.parametrize(
    ("prompts", "sizes"),
    [
        (["x"] * (ITEMS_PER_MESSAGE + 5), [ITEMS_PER_MESSAGE, 5]),
        (["x" * (MESSAGE_BYTES // 3)] * 5, [2, 2, 1]),
        (["x" * (MESSAGE_BYTES * 2), "x"], [1, 1]),
    ],
    ids=["too many", "too large together", "one that is too large by itself"],
)
async def test_a_message_has_bounds(client, server, prompts, sizes):
    async with client.stream() as stream:
        await until_it_knows(stream, server, takes_more=True)
        tasks = await ask(stream, *prompts)
        messages = [await received(server) for _ in sizes]
        assert [1 + len(message.more) for message in messages] == sizes
        for message in messages:
            for item in (message, *message.more):
                server.outbox.put(reply_to(item))
        assert [batch.scores[0].score for batch in await asyncio.gather(*tasks)] == [len(prompt) for prompt in prompts]


async def test_the_server_is_told_what_is_left_when_an_item_is_sent(client, server):
    async with client.stream() as stream:
        await until_it_knows(stream, server, takes_more=True)
        tasks = await ask(stream, "a", "b")
        time.sleep(0.2)  # noqa: ASYNC251 - the caller's own loop is busy before the writer gets its turn
        message = await received(server)
        for item in (message, *message.more):
            assert 0 < item.timeout_ms <= 20_000 - 200
            server.outbox.put(reply_to(item))
        await asyncio.gather(*tasks)
