"""Clients that leave, in every phase of a request: vLLM forgets the request, with the middleware as without."""

import json

import pytest
from generating import ENDLESS_TOKENS, ask, completion, saturated
from http_wire import JSON, Wire, head
from quantile_ranker import QuantileRanker, prompt
from shared_servers import HOOKED, PLAIN, Fleet
from vllm_server import VllmServer, until_scoring

BOTH = pytest.mark.parametrize("name", [PLAIN, HOOKED])


def start_of(server: VllmServer, content: bytes) -> bytes:
    return head("POST", "/v1/completions", server.headers() | JSON | {"content-length": str(len(content))})


def endless(*, stream: bool = False) -> bytes:
    return json.dumps(completion(prompt(0.5, "for ever"), ENDLESS_TOKENS, stream=stream).content).encode()


async def still_serves(server: VllmServer) -> None:
    await server.until(lambda metrics: metrics.running == metrics.waiting == metrics.total("pars_hook_in_flight") == 0)
    await ask(server, completion("and now?", 2))


@BOTH
@pytest.mark.parametrize("sent", [0.0, 0.5], ids=["before the body", "in the body"])
async def test_a_client_leaves_while_it_sends(fleet: Fleet, ranker: QuantileRanker, name: str, sent: float) -> None:
    """1. send the head and a part of the body 2. hang up 3. nothing was asked, nothing runs or waits, and the next is served."""
    server = fleet(name)
    questions = len(ranker.questions)
    content = endless()
    async with Wire(server.port) as wire:
        await wire.write(start_of(server, content) + content[: int(sent * len(content))])
    assert len(ranker.questions) == questions
    await still_serves(server)


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole answer", "streamed answer"])
async def test_a_client_leaves_while_it_waits(fleet: Fleet, ranker: QuantileRanker, name: str, stream: bool) -> None:
    """1. saturate 2. queue a request 3. its client hangs up 4. it waits no more, while the others run on."""
    server = fleet(name)
    content = endless(stream=stream)
    async with saturated(server):
        async with Wire(server.port) as wire:
            await wire.write(start_of(server, content) + content)
            await server.until(lambda metrics: metrics.waiting == 1)
        await server.until(lambda metrics: metrics.waiting == 0 and metrics.running == 1)
    await still_serves(server)


@BOTH
@pytest.mark.parametrize("stream", [False, True], ids=["whole answer", "streamed answer"])
async def test_a_client_leaves_while_its_request_runs(fleet: Fleet, ranker: QuantileRanker, name: str, stream: bool) -> None:
    """1. send a request without an end 2. see it run; if it is streamed, read its first token 3. hang up 4. it runs no more."""
    server = fleet(name)
    await server.until_idle()
    content = endless(stream=stream)
    async with Wire(server.port) as wire:
        await wire.write(start_of(server, content) + content)
        await server.until(lambda metrics: metrics.running == 1)
        while stream and b"data: " not in await wire.piece():
            continue
    await still_serves(server)


async def test_a_client_leaves_while_its_prompt_is_scored(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. the sidecar takes its time 2. a client sends its request and hangs up while it is scored 3. the request never reaches the
    engine or leaves it at once, and the hook holds nothing."""
    server = fleet(HOOKED)
    before = await until_scoring(server)
    content = endless()
    ranker.delay_s = 0.5
    try:
        async with Wire(server.port) as wire:
            questions = len(ranker.questions)
            await wire.write(start_of(server, content) + content)
            await server.until(lambda metrics: len(ranker.questions) > questions and metrics.total("pars_hook_in_flight") == 1)
    finally:
        ranker.delay_s = 0.0
    await still_serves(server)
    assert set((await server.metrics()).outcomes_since(before)) <= {"scored", "deadline"}
