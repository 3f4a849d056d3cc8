"""Link on its good days: it connects by itself, many questions share one stream, and closing leaves nothing behind."""

import asyncio

import grpc
import pytest
from hook_rig import until
from scripted_ranker import item_reply

from pars.v1 import ranker_pb2
from vllm_client.errors import DeadlineError, InvalidPromptsError, UnavailableError
from vllm_client.hook.counters import Counters
from vllm_client.hook.link import PROBE, Link, LinkFullError, UnconnectedError
from vllm_client.hook.settings import HookSettings


def assert_nothing_left(link: Link) -> None:
    assert not link._stream._waiting
    assert not link._stream._unsent
    assert not link.full
    assert link._asks_out == 0


async def test_it_connects_in_the_background_and_nobody_waits_for_it(linked, ranker):
    link = linked(ranker.address)
    with pytest.raises(UnconnectedError):
        await link.ask(["a"])
    await until(lambda: link.connected)
    batch = await link.ask(["a", "bbb"])
    assert [score.score for score in batch.scores] == [1, 3]
    assert_nothing_left(link)


async def test_connected_means_that_a_prompt_was_scored(linked, ranker):
    link = linked(ranker.address, tier="ngram")
    await until(lambda: link.connected)
    probe = ranker.requests[-1].request
    assert list(probe.prompts) == [PROBE]
    assert probe.tier == ranker_pb2.TIER_NGRAM


async def test_starting_twice_makes_one_connection(linked, ranker):
    link = linked(ranker.address)
    link.start()
    await until(lambda: link.connected)
    link.start()
    await link.ask(["a"])
    assert len([request for request in ranker.requests if isinstance(request, ranker_pb2.GetBundleRequest)]) == 1


async def test_many_questions_share_one_stream(link, ranker):
    batches = await asyncio.gather(*(link.ask(["x" * (number % 50)]) for number in range(200)))
    assert [batch.scores[0].score for batch in batches] == [number % 50 for number in range(200)]
    assert_nothing_left(link)


async def test_no_more_than_max_asks_are_out_and_the_next_is_refused_at_once(linked, ranker):
    link = linked(ranker.address, max_asks=2)
    await until(lambda: link.connected)
    ranker.answer_item = lambda item: None
    tasks = [asyncio.create_task(link.ask(["a"])) for _ in range(2)]
    await until(lambda: link.full)
    for _ in range(1000):
        with pytest.raises(LinkFullError):
            await link.ask(["one too many"])
    assert len(link._stream._waiting) == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert_nothing_left(link)
    ranker.answer_item = item_reply
    assert (await link.ask(["a"])).scores


async def test_a_late_answer_is_a_deadline(linked, ranker):
    link = linked(ranker.address, deadline_ms=30)
    await until(lambda: link.connected)
    ranker.answer_item = lambda item: None
    with pytest.raises(DeadlineError):
        await link.ask(["a"])
    assert_nothing_left(link)


async def test_prompts_without_utf8_are_refused_and_hurt_nobody(link):
    with pytest.raises(InvalidPromptsError):
        await link.ask(["\ud800"])
    assert_nothing_left(link)
    assert (await link.ask(["a"])).scores


async def test_a_caller_that_leaves_in_any_phase_leaves_nothing_behind(link, ranker):
    got_it, answered = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(item):
        loop.call_soon_threadsafe(got_it.set)
        if list(item.request.prompts) == ["silence"]:
            return None
        loop.call_soon_threadsafe(answered.set)
        return item_reply(item)

    ranker.answer_item = answer
    for prompt, phase in (
        ("before it is sent", asyncio.sleep(0)),
        ("silence", got_it.wait()),
        ("as the answer comes", answered.wait()),
    ):
        got_it.clear()
        answered.clear()
        task = asyncio.create_task(link.ask([prompt]))
        await phase
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert_nothing_left(link)
    assert (await link.ask(["a"])).scores


async def test_closing_leaves_no_task_and_no_connection(linked, ranker, monkeypatch):
    make_channel, channels = grpc.aio.insecure_channel, []

    def remember(*arguments, **options):
        channels.append(make_channel(*arguments, **options))
        return channels[-1]

    monkeypatch.setattr(grpc.aio, "insecure_channel", remember)
    tasks = asyncio.all_tasks()
    link = linked(ranker.address)
    await until(lambda: link.connected)
    ranker.answer_item = lambda item: None
    pending = asyncio.create_task(link.ask(["a"]))
    await until(lambda: link._stream._waiting)
    await asyncio.gather(link.close(), link.close())
    await link.close()
    with pytest.raises(UnavailableError):
        await pending
    with pytest.raises(UnconnectedError):
        await link.ask(["a"])
    assert not link.connected
    await until(lambda: asyncio.all_tasks() == tasks)
    assert [channel.get_state() for channel in channels] == [grpc.ChannelConnectivity.SHUTDOWN]


async def test_closing_before_starting_and_while_connecting(linked, nobody):
    await Link(HookSettings(address=nobody)).close()
    tasks = asyncio.all_tasks()
    for pause_s in (0, 0.001, 0.01, 0.1):
        link = linked(nobody)
        await asyncio.sleep(pause_s)
        await link.close()
        assert asyncio.all_tasks() == tasks


async def test_it_can_be_started_again_after_closing(link):
    await link.close()
    link.start()
    await until(lambda: link.connected)
    assert (await link.ask(["a"])).scores


async def test_the_gauge_follows_the_connection(ranker):
    counters = Counters()
    link = Link(HookSettings(address=ranker.address), counters=counters)
    assert counters.gauges["connected"] == 0
    link.start()
    await until(lambda: link.connected)
    assert counters.gauges["connected"] == 1
    await link.close()
    assert counters.gauges["connected"] == 0
