"""Link against real servers that come, go, fall silent and come back. Every wait is for a condition, with a deadline."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
import scripted_ranker
from scripted_ranker import TIMEOUT_S, ScriptedRanker, item_error, item_reply

from pars.v1 import ranker_pb2
from vllm_client import channel as channel_module
from vllm_client.errors import DeadlineError, InvalidPromptsError, UnavailableError
from vllm_client.hook import link as link_module
from vllm_client.hook.counters import Counters
from vllm_client.hook.link import PROBE, Link, LinkFullError, UnconnectedError
from vllm_client.hook.settings import HookSettings

PATIENT_MS = 20_000


async def until(condition, timeout_s: float = TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


@pytest.fixture
def lines(caplog):
    """What the hook has logged so far: level and message."""
    caplog.set_level(logging.INFO)
    # grpc logs in this process too: the scripted server's troubles.
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "vllm_client"]


@pytest.fixture
def ranker(ranker) -> ScriptedRanker:
    ranker.answer_stream = ranker.serve_items
    return ranker


@pytest.fixture
async def linked():
    """Makes links, started; closes them."""
    links = []

    def make(address: str, **settings) -> Link:
        link = Link(HookSettings(address=address, **{"deadline_ms": PATIENT_MS, **settings}))
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        await link.close()


@pytest.fixture
async def link(linked, ranker) -> Link:
    link = linked(ranker.address)
    await until(lambda: link.connected)
    return link


def serve_again(address: str) -> ScriptedRanker:
    server = ScriptedRanker(address)
    server.answer_stream = server.serve_items
    return server


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


@pytest.mark.parametrize("how", ["tcp", "unix"])
async def test_a_server_that_dies_and_returns_at_its_address(linked, tmp_path, how):
    server = serve_again("127.0.0.1:0" if how == "tcp" else f"unix:{tmp_path}/ranker.sock")
    with contextlib.ExitStack() as servers:
        servers.callback(server.stop)
        server.answer_item = lambda item: None if list(item.request.prompts) == ["pending"] else item_reply(item)
        link = linked(server.address)
        await until(lambda: link.connected)
        pending = asyncio.create_task(link.ask(["pending"]))
        await until(lambda: link._stream is not None and link._stream._waiting)
        await asyncio.to_thread(server.stop)
        with pytest.raises(UnavailableError):
            await pending
        await until(lambda: not link.connected)
        with pytest.raises(UnconnectedError):
            await link.ask(["a"])
        servers.callback(serve_again(server.address).stop)
        await until(lambda: link.connected)
        assert (await link.ask(["a"])).scores


async def test_a_socket_file_that_is_removed_and_comes_back(linked, tmp_path):
    path = tmp_path / "ranker.sock"
    first = serve_again(f"unix:{path}")
    with contextlib.ExitStack() as servers:
        servers.callback(first.stop)
        link = linked(first.address)
        await until(lambda: link.connected)
        path.unlink()
        assert (await link.ask(["a"])).scores  # The connection does not need it.
        await asyncio.to_thread(first.stop)
        await until(lambda: not link.connected)
        servers.callback(serve_again(first.address).stop)
        await until(lambda: link.connected)
        assert (await link.ask(["a"])).scores


def refuse(item):
    return item_error(item, grpc.StatusCode.INVALID_ARGUMENT, "no n-gram scorer")


def answer_nonsense(item):
    reply = item_reply(item)
    reply.response.scores[0].quantile = 2
    return reply


def end_the_stream(item):
    raise ValueError("the script says so")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(refuse, "InvalidPromptsError: INVALID_ARGUMENT: no n-gram scorer", id="refuses"),
        pytest.param(answer_nonsense, "BadReplyError: quantile is 2.0", id="answers nonsense"),
        pytest.param(lambda item: None, "DeadlineError", id="does not answer"),
        pytest.param(end_the_stream, "UnavailableError: the stream is gone: UNKNOWN", id="fails"),
    ],
)
async def test_a_server_that_cannot_score_the_probe_is_not_used_until_it_can(linked, ranker, lines, monkeypatch, answer, why):
    monkeypatch.setattr(link_module, "CONNECT_PATIENCE_MS", 300)
    ranker.answer_item = answer
    link = linked(ranker.address)
    await until(lines)
    assert not link.connected
    with pytest.raises(UnconnectedError):
        await link.ask(["a"])
    ((level, line),) = lines()
    assert level == "WARNING"
    assert why in line
    ranker.answer_item = item_reply
    await until(lambda: link.connected)


async def test_nobody_there_is_told(linked, nobody, lines):
    link = linked(nobody)
    await until(lines)
    assert "Connection refused" in lines()[0][1]
    with pytest.raises(UnconnectedError):
        await link.ask(["a"])


async def test_a_server_that_comes_late_is_found(linked, tmp_path, lines):
    link = linked(f"unix:{tmp_path}/ranker.sock")
    await until(lines)
    assert "No such file" in lines()[0][1]
    with contextlib.ExitStack() as servers:
        server = serve_again(f"unix:{tmp_path}/ranker.sock")
        servers.callback(server.stop)
        await until(lambda: link.connected)
        assert (await link.ask(["a"])).scores
        assert [level for level, _ in lines()] == ["WARNING", "INFO"]
        assert server.address in lines()[1][1]


async def test_attempts_slow_down_and_are_not_told_one_by_one(linked, ranker, lines):
    attempts_s = []

    def refuse_to_describe():
        attempts_s.append(time.monotonic())
        return ranker_pb2.GetBundleResponse()

    ranker.answer_bundle = refuse_to_describe
    linked(ranker.address)
    await until(lambda: len(attempts_s) == 5)
    # Four pauses of at least half of 100, 200, 400 and 800 ms. At least: the machine may be slow.
    assert attempts_s[-1] - attempts_s[0] >= 0.75
    assert [level for level, _ in lines()] == ["WARNING"]


async def test_a_flapping_connection_is_not_told_each_time(link, lines):
    for _ in range(3):
        stream = link._stream
        stream.give_up("flap")
        await until(lambda gone=stream: link._stream not in (None, gone))
    assert [level for level, _ in lines()][-2:] == ["WARNING", "INFO"]
    assert len(lines()) <= 3  # And one for the first connection, if this test saw it.


async def test_what_a_server_says_when_it_ends_the_stream_is_not_logged(linked, ranker, lines):
    # It may be about a request, and quote it.
    def abort(items, context):
        for item in items:
            if list(item.request.prompts) != [PROBE]:
                context.abort(grpc.StatusCode.INTERNAL, f"cannot score {item.request.prompts[0]}")
            yield item_reply(item)

    ranker.answer_stream = abort
    link = linked(ranker.address)
    await until(lambda: link.connected)
    with pytest.raises(UnavailableError):
        await link.ask(["my secret"])
    await until(lambda: len(lines()) == 2)
    assert lines()[1][1].endswith(": INTERNAL")
    assert "secret" not in str(lines())


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


async def test_recycling_a_silent_connection_makes_a_new_one(linked, ranker):
    link = linked(ranker.address, deadline_ms=30)
    await until(lambda: link.connected)
    silent = link._stream
    ranker.answer_item = lambda item: None
    for _ in range(2):
        with pytest.raises(DeadlineError):
            await link.ask(["a"])
    link.recycle()
    await until(lambda: link._stream is not silent)
    with pytest.raises(UnavailableError):
        await silent.score(["a"])
    ranker.answer_item = item_reply
    await until(lambda: link.connected)


async def test_recycling_leaves_a_connection_alone_over_which_late_answers_come(link, ranker):
    slow = link._stream
    ranker.answer_item = lambda item: None if list(item.request.prompts) == ["never"] else item_reply(item)
    never = asyncio.create_task(link.ask(["never"]))
    await until(lambda: slow.unheard == 1)
    await link.ask(["answered"])
    link.recycle()
    assert link._stream is slow
    never.cancel()
    await asyncio.gather(never, return_exceptions=True)
    assert (await link.ask(["a"])).scores


@pytest.fixture
def processes():
    """Starts rankers as processes of their own; kills them, stopped ones too."""
    started = []

    def start(address: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, scripted_ranker.__file__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        assert process.stdout.readline().strip() == address
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


async def test_the_successor_of_a_frozen_process_is_found_behind_the_same_address(linked, processes, tmp_path):
    path = tmp_path / "ranker.sock"
    frozen = await asyncio.to_thread(processes, f"unix:{path}")
    link = linked(f"unix:{path}", deadline_ms=100)
    await until(lambda: link.connected)
    frozen.send_signal(signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
    for _ in range(2):
        with pytest.raises(DeadlineError):
            await link.ask(["a"])
    path.unlink()
    await asyncio.to_thread(processes, f"unix:{path}")
    with pytest.raises(DeadlineError):
        await link.ask(["a"])  # Still through the frozen one.
    stream_of_the_frozen = link._stream
    link.recycle()
    await until(lambda: link._stream not in (None, stream_of_the_frozen))
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


async def test_a_bug_while_connecting_is_told_and_does_not_stop_the_attempts(linked, ranker, lines, monkeypatch):
    broken, secret = True, "a prompt"

    def options(config):
        if broken:
            raise ZeroDivisionError(secret)
        return []

    monkeypatch.setattr(channel_module, "channel_options", options)
    link = linked(ranker.address)
    await until(lambda: len(lines()) == 2)
    assert "ZeroDivisionError" in lines()[0][1]
    assert Path(__file__).name in lines()[0][1]  # Where it came from,
    assert secret not in str(lines())  # and not what it said.
    broken = False
    await until(lambda: link.connected)


async def test_an_outage_is_told_again_when_its_reason_changes(lines, monkeypatch):
    monkeypatch.setattr(link_module, "TELL_INTERVAL_S", 0.0)
    link = Link(HookSettings(address="127.0.0.1:1"))
    for why in ("UnavailableError: refused", "UnavailableError: reset", "CredentialsError: a token is wanted"):
        link._tell_lost(why)
    assert [line.rpartition("one: ")[2] for _, line in lines()] == [
        "UnavailableError: refused",
        "CredentialsError: a token is wanted",
    ]
    await link.close()
