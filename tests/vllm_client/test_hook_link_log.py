"""What Link says in the log while nobody scores: why, once, and nothing of a request."""

import contextlib
import logging
import time
from pathlib import Path

import grpc
import pytest
from hook_rig import nonsense, until
from scripted_ranker import ScriptedRanker, item_error, item_reply

from pars.v1 import ranker_pb2
from vllm_client import channel as channel_module
from vllm_client.errors import UnavailableError
from vllm_client.hook import link as link_module
from vllm_client.hook.link import PROBE, Link, UnconnectedError
from vllm_client.hook.settings import HookSettings


@pytest.fixture
def lines(caplog):
    """What the hook has logged so far: level and message."""
    caplog.set_level(logging.INFO)
    # grpc logs in this process too: the scripted server's troubles.
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "vllm_client"]


def refuse(item):
    return item_error(item, grpc.StatusCode.INVALID_ARGUMENT, "no n-gram scorer")


def end_the_stream(item):
    raise ValueError("the script says so")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(refuse, "InvalidPromptsError: INVALID_ARGUMENT: no n-gram scorer", id="refuses"),
        pytest.param(nonsense("quantile", 2.0), "BadReplyError: quantile is 2.0", id="answers nonsense"),
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
        server = ScriptedRanker(f"unix:{tmp_path}/ranker.sock")
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
