"""The same request to a vLLM with the middleware and to one without: the answers must be the same, and the hook must have seen it."""

from collections.abc import Awaitable, Callable

import pytest
from http_wire import Reply, Wire
from quantile_ranker import QuantileRanker
from rude_requests import CASES, essence, reply_to
from shared_servers import HOOKED, PLAIN, Fleet
from vllm_server import VllmServer, until_scoring

ON_ONE_CONNECTION = (
    "a completion",
    "half a body",
    "a streamed chat",
    "2 MB in pieces",
    "pieces of nonsense",
    "health",
    "a message",
)


@pytest.mark.parametrize("name", CASES)
async def test_the_answer_is_the_same(
    fleet: Fleet, ranker: QuantileRanker, plain_reply: Callable[[str], Awaitable[Reply]], name: str
) -> None:
    """1. ask the server without the hook 2. ask the one with it, whose sidecar answers 3. the answers agree 4. the hook counted what
    it should have, and asked for one score at most."""
    case = CASES[name]
    expected = await plain_reply(name)
    server = fleet(HOOKED)
    before = await until_scoring(server)
    questions = len(ranker.questions)
    reply = await reply_to(server, case)
    assert essence(reply) == essence(expected)
    assert (await server.metrics()).outcomes_since(before) == ({case.outcome: 1} if case.outcome else {})
    assert len(ranker.questions) - questions == (1 if case.outcome == "scored" else 0)


def test_the_cuts_of_a_stream_are_no_difference_and_its_framing_is() -> None:
    """1. two choices, one word a chunk 2. joined by a busy engine, the choices in another order: the same 3. another word, an empty line
    too few, an end too few: different."""

    def stream(*events: str) -> Reply:
        body = "".join(f"data: {event}\n\n" for event in events)
        return Reply(200, {"content-type": "text/event-stream"}, body.encode(), 0.0)

    def chunk(index: int, text: str, reason: str) -> str:
        return f'{{"id":"cmpl-0","choices":[{{"index":{index},"text":"{text}","finish_reason":{reason}}}]}}'

    end = chunk(0, "b", '"length"'), chunk(1, "y", '"length"'), "[DONE]"
    whole = essence(stream(chunk(0, "a", "null"), chunk(1, "x", "null"), *end))
    joined = stream(chunk(1, "xy", '"length"'), chunk(0, "ab", '"length"'), "[DONE]")
    assert essence(joined) == whole
    assert essence(stream(chunk(0, "z", "null"), chunk(1, "x", "null"), *end)) != whole
    assert essence(Reply(200, joined.headers, joined.body.replace(b"\n\n", b"\n", 1), 0.0)) != whole
    assert essence(stream(chunk(1, "xy", '"length"'), chunk(0, "ab", '"length"'))) != whole


async def test_one_connection_carries_many_requests(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. send good and bad requests one after the other on one connection, as pooled clients do 2. without the hook 3. with it: the
    answers agree, and belong to their requests."""

    async def replies(server: VllmServer) -> list[object]:
        found = []
        async with Wire(server.port) as wire:
            for name in ON_ONE_CONNECTION * 2:
                await wire.write(CASES[name].raw(server.headers()))
                found.append(essence(await wire.reply()))
        return found

    assert await replies(fleet(HOOKED)) == await replies(fleet(PLAIN))


async def test_keys_and_prompts_are_not_logged(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. send a request whose words occur nowhere else 2. the server's log has neither the words nor the key."""
    server = fleet(HOOKED)
    await until_scoring(server)
    reply = await server.post("/v1/completions", {"model": "tiny", "prompt": "xylophone quagmire", "max_tokens": 2})
    assert reply.status == 200
    assert ("xylophone quagmire",) in ranker.questions
    hook_lines = [line for line in server.log().splitlines() if "PARS" in line]
    assert hook_lines
    assert not [line for line in hook_lines if "quagmire" in line or str(server.api_key) in line]
