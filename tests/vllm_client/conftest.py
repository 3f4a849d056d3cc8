"""Fixtures of the client's and the hook's tests: a scripted ranker, hooks and links to it, a process without vLLM."""

import logging
import math
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from hook_rig import NOW_MS, Clock, ToldBacklog, until
from scripted_ranker import ManualStream, ScriptedRanker

from vllm_client import stream
from vllm_client.hook.counters import Counters
from vllm_client.hook.link import Link
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings

PATIENT_MS = 20_000


@pytest.fixture(autouse=True)
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook looks for a loaded vLLM; a test that wants one brings its own."""
    monkeypatch.delitem(sys.modules, "vllm", raising=False)


@pytest.fixture(autouse=True)
def prompt_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes the tests' loop late, which would excuse a silent sidecar; a test about that says how late is late."""
    monkeypatch.setattr(stream, "LOOP_LATE_S", math.inf)


@pytest.fixture
def ranker() -> Iterator[ScriptedRanker]:
    server = ScriptedRanker()
    yield server
    server.stop()


@pytest.fixture
def server(ranker: ScriptedRanker) -> ManualStream:
    """The ranker's streams, whose replies the test sends by hand."""
    ranker.answer_stream = ranker.manual_stream.serve
    return ranker.manual_stream


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens, and nobody else can: the port is bound and refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def told_backlog(monkeypatch: pytest.MonkeyPatch) -> type[ToldBacklog]:
    """What hooks made from now on tell their backlogs."""
    monkeypatch.setattr(ToldBacklog, "rooms", [], raising=False)
    monkeypatch.setattr(ToldBacklog, "arrivals", [], raising=False)
    monkeypatch.setattr("vllm_client.hook.scoring.Backlog", ToldBacklog)
    return ToldBacklog


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def hooked(clock: Clock) -> AsyncIterator[Callable[..., PriorityHook]]:
    """Makes hooks, started; closes them."""
    hooks = []

    def make(
        address: str, *, counters: Counters | None = None, link: Link | None = None, room: int | None = None, **settings: object
    ) -> PriorityHook:
        chosen = HookSettings(address=address, **{"deadline_ms": PATIENT_MS, "gate_in_flight": 0, **settings})
        hook = PriorityHook(chosen, counters=counters, link=link, room=room, wall_ms=lambda: NOW_MS, monotonic_s=clock)
        hooks.append(hook)
        hook.start()
        return hook

    yield make
    for hook in hooks:
        await hook.close()


@pytest.fixture
def connected(hooked: Callable[..., PriorityHook], ranker: ScriptedRanker) -> Callable[..., Awaitable[PriorityHook]]:
    """Makes hooks that are connected to `ranker`."""

    async def make(**settings: object) -> PriorityHook:
        hook = hooked(ranker.address, **settings)
        await until(lambda: hook.connected)
        ranker.requests.clear()
        return hook

    return make


@pytest.fixture
async def linked() -> AsyncIterator[Callable[..., Link]]:
    """Makes links, started; closes them."""
    links = []

    def make(address: str, **settings: object) -> Link:
        link = Link(HookSettings(address=address, **{"deadline_ms": PATIENT_MS, **settings}))
        links.append(link)
        link.start()
        return link

    yield make
    for link in links:
        await link.close()


@pytest.fixture
async def link(linked: Callable[..., Link], ranker: ScriptedRanker) -> Link:
    """Connected to `ranker`."""
    link = linked(ranker.address)
    await until(lambda: link.connected)
    return link


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Lines of the log at WARNING or above, so far."""
    caplog.set_level(logging.INFO, logger="vllm_client")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
