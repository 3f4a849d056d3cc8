"""Requests for generations, and servers with a queue in front: what the tests of order are made of."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from http_wire import JSON, WAIT_S, Reply, Wire, head
from vllm_server import MODEL, VllmServer

ENDLESS_TOKENS = 30_000
"""A minute at least: no test sees such a request end."""
EXACTLY: dict[str, Any] = {"model": MODEL, "ignore_eos": True, "temperature": 0}
"""Makes `max_tokens` the length of the answer."""


class Request(NamedTuple):
    path: str
    content: dict[str, Any]
    headers: Mapping[str, str] = MappingProxyType({})


def completion(prompt: object, tokens: int = 12, **fields: Any) -> Request:
    return Request("/v1/completions", EXACTLY | {"prompt": prompt, "max_tokens": tokens} | fields)


def chat(text: str, tokens: int = 12, **fields: Any) -> Request:
    return Request("/v1/chat/completions", EXACTLY | {"messages": [user(text)], "max_tokens": tokens} | fields)


def batch(text: str, tokens: int = 12, **fields: Any) -> Request:
    content = EXACTLY | {"messages": [[user(text)], [user(text)]], "max_tokens": tokens}
    return Request("/v1/chat/completions/batch", content | fields)


def response(text: object, tokens: int = 12, **fields: Any) -> Request:
    content = {"model": MODEL, "temperature": 0, "input": text, "max_output_tokens": tokens, "store": False}
    return Request("/v1/responses", content | fields)


def message(text: str, tokens: int = 12, **fields: Any) -> Request:
    content = {"model": MODEL, "temperature": 0, "messages": [user(text)], "max_tokens": tokens}
    return Request("/v1/messages", content | fields)


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def ask(server: VllmServer, request: Request) -> Reply:
    """Send it and return the answer, which must be a 200."""
    reply = await server.post(request.path, request.content, request.headers)
    assert reply.status == 200, reply.body
    return reply


@asynccontextmanager
async def saturated(server: VllmServer, places: int = 1) -> AsyncIterator[None]:
    """Inside, requests without an end hold all `places` of the server; leaving lets go of them."""
    blocker = completion("nothing else runs", ENDLESS_TOKENS, stream=True)
    content = json.dumps(blocker.content).encode()
    start = head("POST", blocker.path, server.headers() | JSON | {"content-length": str(len(content))}) + content
    wires = [Wire(server.port) for _ in range(places)]
    try:
        for wire in wires:
            await wire.__aenter__()
            await wire.write(start)
            while b"data: " not in await wire.piece():
                continue
        # Whoever does not read makes the server hold what it streams, so each is read until the end.
        readers = [asyncio.create_task(_drain(wire)) for wire in wires]
        yield
        assert not any(reader.done() for reader in readers), "a blocker ended by itself: the test took too long"
    finally:
        for wire in wires:
            await wire.__aexit__(None, None, None)
    await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), WAIT_S)


async def _drain(wire: Wire) -> None:
    while await wire.piece():
        continue


async def finishing_order(server: VllmServer, waves: Sequence[dict[str, Request]], places: int = 1) -> list[str]:
    """Queue all requests behind a saturated server, let it go, and return their names in the order in which they were answered.

    Within a wave they are sent together; a wave is sent when vLLM says that all before it are waiting.
    """
    order: list[str] = []
    tasks: list[Awaitable[None]] = []

    async def answered(name: str, request: Request) -> None:
        await ask(server, request)
        order.append(name)

    await server.until_idle()
    async with saturated(server, places):
        engine_requests = 0
        for wave in waves:
            tasks += [asyncio.create_task(answered(name, request)) for name, request in wave.items()]
            engine_requests += sum(engine_request_count(request) for request in wave.values())
            await server.until(lambda metrics, count=engine_requests: metrics.waiting == count)  # type: ignore[misc]
        assert not order
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)
    return order


def engine_request_count(request: Request) -> int:
    """How many requests the engine gets for it."""
    prompts = request.content.get("prompt")
    if request.path.endswith("/batch"):
        return len(request.content["messages"])
    if isinstance(prompts, list) and isinstance(prompts[0], str):
        return len(prompts)
    return 1


def one_by_one(requests: dict[str, Request]) -> list[dict[str, Request]]:
    """Waves of one request each, so that the order of arrival is certain."""
    return [{name: request} for name, request in requests.items()]
