"""Link against real servers that die, fall silent, freeze and come back. Every wait is for a condition, with a deadline."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys

import pytest
import scripted_ranker
from hook_rig import until
from scripted_ranker import TIMEOUT_S, ScriptedRanker, item_reply

from vllm_client.errors import DeadlineError, UnavailableError
from vllm_client.hook.link import UnconnectedError


@pytest.mark.parametrize("how", ["tcp", "unix"])
async def test_a_server_that_dies_and_returns_at_its_address(linked, tmp_path, how):
    server = ScriptedRanker("127.0.0.1:0" if how == "tcp" else f"unix:{tmp_path}/ranker.sock")
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
        servers.callback(ScriptedRanker(server.address).stop)
        await until(lambda: link.connected)
        assert (await link.ask(["a"])).scores


async def test_a_socket_file_that_is_removed_and_comes_back(linked, tmp_path):
    path = tmp_path / "ranker.sock"
    first = ScriptedRanker(f"unix:{path}")
    with contextlib.ExitStack() as servers:
        servers.callback(first.stop)
        link = linked(first.address)
        await until(lambda: link.connected)
        path.unlink()
        assert (await link.ask(["a"])).scores  # The connection does not need it.
        await asyncio.to_thread(first.stop)
        await until(lambda: not link.connected)
        servers.callback(ScriptedRanker(first.address).stop)
        await until(lambda: link.connected)
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
