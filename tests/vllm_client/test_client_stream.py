"""ScoreStream against a real server whose replies the test sends by hand.

Cells: reply order, an item that fails, times out or is cancelled; a stream that is ended, aborted, killed or closed; a server
that reads nothing. Every test asserts that all others were answered and that nothing is left behind.
"""

import asyncio
import time

import grpc
import pytest
from scripted_ranker import ManualStream, score_reply

from pars.v1 import ranker_pb2
from vllm_client import (
    AsyncRankerClient,
    BadReplyError,
    ClientConfig,
    DeadlineError,
    InvalidPromptsError,
    OverloadedError,
    Tier,
    UnavailableError,
)


@pytest.fixture
async def client(ranker):
    config = ClientConfig(address=ranker.address, deadline_ms=20_000, max_in_flight=64)
    async with AsyncRankerClient(config) as client:
        yield client


async def received(server: ManualStream, count: int) -> list[ranker_pb2.ScoreStreamRequest]:
    return [await asyncio.to_thread(server.receive) for _ in range(count)]


def start(stream, *prompts: str, **options) -> list[asyncio.Task]:
    return [asyncio.create_task(stream.score([prompt], **options)) for prompt in prompts]


def assert_nothing_left(stream) -> None:
    assert not stream._waiting
    assert not stream._unsent
    assert stream._permits._value == stream._config.max_in_flight


def echo(items, context):
    for item in items:
        yield ranker_pb2.ScoreStreamResponse(id=item.id, response=score_reply(item.request))


async def test_replies_find_their_callers_in_any_order(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "bb", "ccc", tier=Tier.NGRAM)
        items = await received(server, 3)
        assert len({item.id for item in items}) == 3
        assert all(item.request.tier == ranker_pb2.TIER_NGRAM for item in items)
        for item in reversed(items):
            server.answer(item)
        assert [batch.scores[0].score for batch in await asyncio.gather(*tasks)] == [1, 2, 3]
        assert_nothing_left(stream)


async def test_a_thousand_calls_on_one_stream(client, ranker):
    ranker.answer_stream = echo
    async with client.stream() as stream:
        batches = await asyncio.gather(*(stream.score(["x" * (number % 50)]) for number in range(1000)))
        assert [batch.scores[0].score for batch in batches] == [number % 50 for number in range(1000)]
        assert_nothing_left(stream)


async def test_an_item_that_fails_fails_alone(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "fails", "nonsense", "lives")
        failing, nonsense, living = await received(server, 3)
        error = ranker_pb2.ItemError(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="full")
        server.outbox.put(ranker_pb2.ScoreStreamResponse(id=failing.id, error=error))
        server.outbox.put(ranker_pb2.ScoreStreamResponse(id=nonsense.id, response=ranker_pb2.ScoreResponse()))
        server.answer(living)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome).__name__ for outcome in outcomes] == ["OverloadedError", "BadReplyError", "ScoredBatch"]
        assert isinstance(outcomes[0], OverloadedError)
        assert isinstance(outcomes[1], BadReplyError)
        assert_nothing_left(stream)


async def test_prompts_that_cannot_be_sent_fail_before_they_are_sent(client, ranker):
    ranker.answer_stream = echo
    async with client.stream() as stream:
        with pytest.raises(InvalidPromptsError):
            await stream.score(["\ud800"])
        with pytest.raises(ValueError, match="timeout_ms"):
            await stream.score(["a"], timeout_ms=0)
        assert (await stream.score(["a"])).scores


async def test_an_item_has_its_own_deadline_and_the_server_knows_it(client, server):
    async with client.stream() as stream:
        (late,) = start(stream, "late", timeout_ms=50)
        (patient,) = start(stream, "patient")
        late_item, patient_item = await received(server, 2)
        assert 1 <= late_item.timeout_ms <= 50
        assert 50 < patient_item.timeout_ms <= 20_000
        with pytest.raises(DeadlineError, match="50 ms"):
            await late
        server.answer(late_item)  # Too late: finds nobody and hurts nobody.
        server.answer(patient_item)
        assert (await patient).scores
        assert_nothing_left(stream)


async def test_replies_to_nobody_and_second_replies_are_ignored(client, server):
    async with client.stream() as stream:
        (task,) = start(stream, "a")
        (item,) = await received(server, 1)
        server.answer(ranker_pb2.ScoreStreamRequest(id=item.id + 1000, request=item.request))
        server.answer(item)
        server.answer(item)
        assert (await task).scores
        (task,) = start(stream, "bb")
        (item,) = await received(server, 1)
        server.answer(item)
        assert (await task).scores[0].score == 2
        assert_nothing_left(stream)


async def test_cancelling_one_item_leaves_the_others(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "bb", "ccc")
        items = await received(server, 3)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        for item in items:
            server.answer(item)
        assert [batch.scores[0].score for batch in await asyncio.gather(tasks[0], tasks[2])] == [1, 3]
        assert_nothing_left(stream)


async def test_cancelling_before_the_item_was_written_leaves_the_stream_alive(client, ranker):
    ranker.answer_stream = echo
    async with client.stream() as stream:
        for _ in range(20):
            (task,) = start(stream, "leaves")
            await asyncio.sleep(0)  # It has queued its item; the writer has not run, or is in the middle of a write.
            task.cancel()
            assert (await stream.score(["stays"])).scores
            assert task.cancelled()
        assert_nothing_left(stream)


async def test_no_more_than_max_in_flight_are_unanswered(ranker, server):
    async with (
        AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000, max_in_flight=2)) as client,
        client.stream() as stream,
    ):
        tasks = start(stream, *(str(number) for number in range(7)))
        unanswered = await received(server, 2)
        for _ in range(5):
            assert len(stream._waiting) == 2
            assert server.inbox.empty()
            server.answer(unanswered.pop(0))
            unanswered += await received(server, 1)
        for item in unanswered:
            server.answer(item)
        assert len(await asyncio.gather(*tasks)) == 7
        assert_nothing_left(stream)


async def test_waiting_for_room_counts_against_the_deadline(ranker, server):
    async with (
        AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000, max_in_flight=1)) as client,
        client.stream() as stream,
    ):
        (first,) = start(stream, "first")
        (item,) = await received(server, 1)
        with pytest.raises(DeadlineError):
            await stream.score(["no room"], timeout_ms=50)
        server.answer(item)
        assert (await first).scores


async def test_a_server_that_reads_nothing_cannot_fill_our_memory(ranker):
    def read_nothing(items, context):
        ranker.called.set()
        assert ranker.released.wait(20)
        yield from ()

    ranker.answer_stream = read_nothing
    async with (
        AsyncRankerClient(ClientConfig(address=ranker.address, max_in_flight=4)) as client,
        client.stream() as stream,
    ):
        for _ in range(10):  # 4 MB each round: flow control stops the writer in the first one.
            tasks = start(stream, *["x" * 1_000_000] * 8, timeout_ms=20)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, DeadlineError) for outcome in outcomes)
            assert_nothing_left(stream)


async def fails_everyone(stream, tasks) -> None:
    began = time.monotonic()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * len(tasks)
    with pytest.raises(UnavailableError, match="stream is gone"):
        await stream.score(["later"])
    assert time.monotonic() - began < 10  # Nobody waited for a deadline.
    assert_nothing_left(stream)


async def test_a_server_that_dies_fails_every_pending_call(client, ranker, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "b", "c")
        await received(server, 3)
        await asyncio.to_thread(ranker.stop)
        await fails_everyone(stream, tasks)


async def test_a_stream_that_the_server_ends_fails_every_pending_call(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "b")
        await received(server, 2)
        server.end()
        await fails_everyone(stream, tasks)


async def test_a_stream_that_the_server_aborts_says_why(client, ranker):
    def abort(items, context):
        next(items)
        context.abort(grpc.StatusCode.INTERNAL, "it broke")
        yield

    ranker.answer_stream = abort
    async with client.stream() as stream:
        with pytest.raises(UnavailableError, match="INTERNAL: it broke"):
            await stream.score(["a"])
        await fails_everyone(stream, [])


async def test_a_missing_server_is_noticed_at_once(nobody):
    async with (
        AsyncRankerClient(ClientConfig(address=nobody, deadline_ms=20_000)) as client,
        client.stream() as stream,
    ):
        await fails_everyone(stream, start(stream, "a", "b"))


async def test_calls_beyond_max_in_flight_fail_with_the_stream_too(ranker, server):
    async with (
        AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000, max_in_flight=1)) as client,
        client.stream() as stream,
    ):
        tasks = start(stream, "a", "waits for room", "waits for room")
        await received(server, 1)
        server.end()
        await fails_everyone(stream, tasks)


async def test_leaving_the_block_fails_what_is_pending(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "b")
        await received(server, 2)
    await fails_everyone(stream, tasks)
    assert all(task.done() for task in stream._tasks)


async def test_closing_the_client_fails_what_is_pending(client, server):
    async with client.stream() as stream:
        tasks = start(stream, "a", "b")
        await received(server, 2)
        await client.close()
        await fails_everyone(stream, tasks)


async def test_an_exception_in_the_block_passes_through(client, server):
    with pytest.raises(ZeroDivisionError):
        async with client.stream():
            raise ZeroDivisionError


async def test_a_stream_is_opened_once_and_used_open(client, server):
    stream = client.stream()
    with pytest.raises(UnavailableError, match="not open"):
        await stream.score(["a"])
    async with stream:
        pass
    with pytest.raises(RuntimeError, match="opened once"):
        await stream.__aenter__()
