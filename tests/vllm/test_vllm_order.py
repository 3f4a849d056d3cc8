"""A saturated vLLM with the middleware: whom it answers first."""

from generating import Request, batch, chat, completion, finishing_order, invocation, message, one_by_one, response
from quantile_ranker import QuantileRanker, prompt
from shared_servers import HOOKED, Fleet
from vllm_server import until_scoring

ENDPOINTS = {
    "completion": completion,
    "chat": chat,
    "batch": batch,
    "response": response,
    "message": message,
    "invocation": invocation,
}


async def test_short_requests_behind_long_ones_finish_first(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue three long requests 3. queue three short ones 4. let go: the short ones finish first, each group in the
    order of its arrival 5. all six were scored."""
    server = fleet(HOOKED)
    before = await until_scoring(server)
    long = {f"long {number}": completion(prompt(1.0, "a novel"), 30) for number in range(3)}
    short = {f"short {number}": completion(prompt(0.0, "a word"), 6) for number in range(3)}
    assert await finishing_order(server, one_by_one(long | short)) == [*short, *long]
    # The blocker was the seventh.
    assert (await server.metrics()).outcome("scored") - before.outcome("scored") == 7


async def test_every_endpoint_gets_its_priority(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue a long request by each endpoint 3. queue a short one by each 4. let go: every short one finishes before
    every long one. A long one without a priority would have 0, and finish first of all."""
    server = fleet(HOOKED)
    await until_scoring(server)
    long = {f"long {name}": make(prompt(1.0, "a novel")) for name, make in ENDPOINTS.items()}
    short = {f"short {name}": make(prompt(0.0, "a word")) for name, make in ENDPOINTS.items()}
    order = await finishing_order(server, [long, short])
    assert set(order[: len(short)]) == set(short)


async def test_streaming_lists_parts_and_tools_get_theirs(fleet: Fleet, ranker: QuantileRanker) -> None:
    """As above, by the form of the request instead of its endpoint."""
    server = fleet(HOOKED)
    await until_scoring(server)
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}

    def forms(quantile: float) -> dict[str, Request]:
        text = prompt(quantile, "text")
        parts = [{"type": "text", "text": "before"}, {"type": "text", "text": text}]
        turns = [{"role": "user", "content": prompt(1 - quantile)}, {"role": "assistant", "content": "so"}]
        return {
            f"{quantile} streaming": completion(text, stream=True),
            f"{quantile} streaming chat": chat(text, stream=True),
            # The longest decides.
            f"{quantile} list": completion([prompt(0.0), text]),
            f"{quantile} parts": chat(text, messages=[{"role": "user", "content": parts}]),
            f"{quantile} last turn": chat(text, messages=[*turns, {"role": "user", "content": text}]),
            f"{quantile} tools": chat(text, tools=[tool], tool_choice="none"),
            f"{quantile} response items": response([{"role": "user", "content": [{"type": "input_text", "text": text}]}]),
        }

    long, short = forms(1.0), forms(0.0)
    order = await finishing_order(server, [long, short])
    assert set(order[: len(short)]) == set(short)


async def test_equal_quantiles_are_first_come_first_served(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue eight requests of one quantile, of various lengths 3. let go: they finish as they came."""
    server = fleet(HOOKED)
    await until_scoring(server)
    requests = {str(number): completion(prompt(0.25, "same"), 5 + 7 * (number % 3)) for number in range(8)}
    assert await finishing_order(server, one_by_one(requests)) == list(requests)


async def test_what_cannot_be_scored_is_middling(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue a long request, token ids, a body too large to read, a short request 3. let go: short, then the two
    unscored in the order of arrival, then long."""
    server = fleet(HOOKED)
    await until_scoring(server)
    requests = {
        "long": completion(prompt(1.0)),
        "token ids": completion([1, 2, 3, 4]),
        "large": completion(prompt(0.0), user="x" * 1_200_000),
        "short": completion(prompt(0.0)),
    }
    assert await finishing_order(server, one_by_one(requests)) == ["short", "token ids", "large", "long"]


async def test_a_priority_of_the_clients_own_is_kept(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue a short request 3. queue long ones, with their client's priority in the header and in the body 4. let go:
    theirs are milliseconds since 1970, so they go first."""
    server = fleet(HOOKED)
    before = await until_scoring(server)
    requests = {
        "short": completion(prompt(0.0)),
        "body": completion(prompt(1.0), priority=2),
        "header": completion(prompt(1.0))._replace(headers={"x-vllm-priority": "1"}),
    }
    assert await finishing_order(server, one_by_one(requests)) == ["header", "body", "short"]
    assert (await server.metrics()).outcome("client_priority") - before.outcome("client_priority") == 2
