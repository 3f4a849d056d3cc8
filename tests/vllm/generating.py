"""Requests for generations, and servers with a queue in front: what the tests of order are made of."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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


def invocation(text: str, tokens: int = 12, **fields: Any) -> Request:
    """SageMaker's endpoint, which takes any of the shapes."""
    return chat(text, tokens, **fields)._replace(path="/invocations")


def user(content: object) -> dict[str, Any]:
    return {"role": "user", "content": content}


async def ask(server: VllmServer, request: Request) -> Reply:
    """Send it and return the answer, which must be a 200."""
    reply = await server.post(request.path, request.content, request.headers)
    assert reply.status == 200, reply.body
    return reply


@asynccontextmanager
async def saturated(server: VllmServer) -> AsyncIterator[int]:
    """Inside, requests without an end hold every place of the server; leaving lets go of them all at once.

    Gives how many of them wait: with several engines, one may have got more than it has places.
    """
    blocker = completion("nothing else runs", ENDLESS_TOKENS)
    content = json.dumps(blocker.content).encode()
    start = head("POST", blocker.path, server.headers() | JSON | {"content-length": str(len(content))}) + content
    async with AsyncExitStack() as wires:
        metrics = await server.until_idle()
        blockers = 0
        while metrics.running < server.places:
            assert blockers < 4 * server.places, "the engines cannot be filled"
            wire = await wires.enter_async_context(Wire(server.port))
            await wire.write(start)
            blockers += 1
            # One engine runs what it gets. Of several, one may get two while another has none.
            metrics = await server.until(
                lambda metrics, sent=blockers: metrics.running + (metrics.waiting if server.engines > 1 else 0) == sent
            )
        yield metrics.waiting


async def finishing_order(server: VllmServer, waves: Sequence[dict[str, Request]]) -> list[str]:
    """Queue all requests behind a saturated server, let it go, and return their names in the order in which they were answered.

    Within a wave they are sent together; a wave is sent when vLLM says that all before it are waiting.
    """
    order: list[str] = []

    async def answered(name: str, request: Request) -> None:
        await ask(server, request)
        order.append(name)

    async with asyncio.timeout(3 * WAIT_S), asyncio.TaskGroup() as tasks, saturated(server) as waiting:
        for wave in waves:
            for name, request in wave.items():
                tasks.create_task(answered(name, request))
            waiting += sum(engine_request_count(request) for request in wave.values())
            await server.until(lambda metrics, waiting=waiting: metrics.waiting == waiting)
        assert not order
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
