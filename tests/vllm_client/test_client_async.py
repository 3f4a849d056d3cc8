"""AsyncRankerClient against a real server: what RankerClient does, and what only asyncio can get wrong."""

import asyncio
import time

import grpc
import pytest
from scripted_ranker import BUNDLE_ID, score_reply

from pars.v1 import ranker_pb2
from vllm_client import (
    AsyncRankerClient,
    BadReplyError,
    ClientConfig,
    DeadlineError,
    Longer,
    OverloadedError,
    Tier,
    UnavailableError,
)


@pytest.fixture
async def client(ranker):
    async with AsyncRankerClient(ClientConfig(address=ranker.address, deadline_ms=20_000)) as client:
        yield client


async def test_score_compare_and_bundle(client, ranker):
    batch = await client.score(["a", "bbb"], tier=Tier.NGRAM)
    assert [score.score for score in batch.scores] == [1, 3]
    assert ranker.requests[0].tier == ranker_pb2.TIER_NGRAM
    (comparison,) = (await client.compare([("a", "bb")])).comparisons
    assert comparison.longer is Longer.B
    assert (await client.get_bundle()).manifest.bundle_id == BUNDLE_ID


async def test_score_all_splits_by_the_servers_limit_and_keeps_the_order(client, ranker):
    batch = await client.score_all(["x" * length for length in range(1, 11)])
    assert [score.score for score in batch.scores] == list(range(1, 11))
    assert [len(request.prompts) for request in ranker.requests[1:]] == [4, 4, 2]
    assert (await client.score_all([])).scores == ()


async def test_many_calls_at_a_time(client):
    batches = await asyncio.gather(*(client.score(["x" * length]) for length in range(1, 50)))
    assert [batch.scores[0].score for batch in batches] == list(range(1, 50))


async def test_errors_are_those_of_the_tree(client, ranker):
    ranker.fail_with(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    with pytest.raises(OverloadedError, match="full"):
        await client.score(["a"])
    ranker.answer_score = lambda request, context: ranker_pb2.ScoreResponse()
    with pytest.raises(BadReplyError):
        await client.score(["a"])


async def test_the_deadline_holds(client, ranker):
    ranker.answer_score = ranker.freeze
    began = time.monotonic()
    with pytest.raises(DeadlineError):
        await client.score(["a"], timeout_ms=50)
    assert 0.04 < time.monotonic() - began < 10


async def test_a_missing_server_is_noticed_at_once(nobody):
    async with AsyncRankerClient(ClientConfig(address=nobody, deadline_ms=20_000)) as client:
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            await client.score(["a"])
        assert time.monotonic() - began < 10


async def test_cancelling_one_call_leaves_the_others_and_tells_the_server(client, ranker):
    cancelled_at_server = asyncio.Event()
    loop = asyncio.get_running_loop()

    def freeze_the_first(request, context):
        if list(request.prompts) == ["first"]:
            context.add_callback(lambda: loop.call_soon_threadsafe(cancelled_at_server.set))
            return ranker.freeze(request, context)
        return score_reply(request)

    ranker.answer_score = freeze_the_first
    first = asyncio.create_task(client.score(["first"]))
    assert await asyncio.to_thread(ranker.called.wait, 20)
    others = [asyncio.create_task(client.score([str(number)])) for number in range(5)]
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(await asyncio.gather(*others)) == 5
    await asyncio.wait_for(cancelled_at_server.wait(), 20)


async def test_a_timeout_of_the_caller_is_a_timeout(client, ranker):
    ranker.answer_score = ranker.freeze
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.score(["a"])


async def test_closing_fails_the_call_in_flight_without_cancelling_its_task(client, ranker):
    ranker.answer_score = ranker.freeze
    in_flight = asyncio.create_task(client.score(["a"]))
    assert await asyncio.to_thread(ranker.called.wait, 20)
    await client.close()
    with pytest.raises(UnavailableError, match="closed"):
        await in_flight
    with pytest.raises(UnavailableError, match="closed"):
        await client.score(["a"])
    with pytest.raises(UnavailableError, match="closed"):
        async with client.stream():
            pass
    await client.close()


async def test_a_channel_can_be_handed_in_and_stays_the_callers(ranker):
    async with grpc.aio.insecure_channel(ranker.address) as channel:
        for _ in range(2):
            async with AsyncRankerClient(ClientConfig(deadline_ms=20_000), channel=channel) as client:
                assert (await client.score(["a"])).scores


def test_it_needs_a_running_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncRankerClient()
