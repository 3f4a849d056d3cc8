"""The general plugin in a real vLLM without the middleware, beside it, and switched off."""

from collections.abc import Iterator
from typing import Any

import pytest
from generating import ask, chat, completion, finishing_order, message, one_by_one, response, user
from quantile_ranker import QuantileRanker, prompt
from shared_servers import MIDDLEWARE, ONE_AT_A_TIME, PLAIN, PRIORITY, Fleet
from vllm_server import VllmServer, until_scoring

PLUGIN = {"PARS_HOOK_PLUGIN": "1"}
SETTINGS = {"DEADLINE_MS": 20_000, "WINDOW_MS": 3_600_000, "GATE_IN_FLIGHT": 0}
"""Nothing here is about lateness, and a busy machine may take its time to queue a test's requests."""
REGISTERED = "PARS hook: sidecar"
"""Begins the line of a hook that has found its server."""


def environment(fleet: Fleet) -> dict[str, str]:
    return PLUGIN | {f"PARS_HOOK_{name}": str(value) for name, value in ({"ADDRESS": fleet.ranker_address} | SETTINGS).items()}


@pytest.fixture(scope="module")
def plugged(serve: Any, fleet: Fleet) -> Iterator[VllmServer]:
    with serve(*ONE_AT_A_TIME, *PRIORITY, **environment(fleet)) as server:
        yield server


async def scoring(server: VllmServer) -> None:
    """The plugin's hook is made by the first request."""
    await ask(server, completion("anything", 1))
    await until_scoring(server)


async def test_short_requests_behind_long_ones_finish_first(plugged: VllmServer, ranker: QuantileRanker) -> None:
    """1. saturate 2. queue a long request by each endpoint 3. queue a short one by each 4. let go: the short ones finish first, each
    group in the order of its arrival."""
    await scoring(plugged)
    endpoints = {"completion": completion, "chat": chat, "response": response, "message": message}
    long = {f"long {name}": make(prompt(1.0, "a novel")) for name, make in endpoints.items()}
    short = {f"short {name}": make(prompt(0.0, "a word")) for name, make in endpoints.items()}
    assert await finishing_order(plugged, one_by_one(long | short)) == [*short, *long]


async def test_each_prompt_of_a_list_has_its_own_priority(plugged: VllmServer, ranker: QuantileRanker) -> None:
    """Where the middleware has one for the whole request. 1. saturate 2. queue a list of a long and a short prompt, then a middling
    request 3. let go: the middling one finishes first, for the list waits for its longest 4. all three prompts were asked about alone."""
    await scoring(plugged)
    requests = {"list": completion([prompt(1.0), prompt(0.0)]), "middling": completion(prompt(0.5))}
    ranker.questions.clear()
    assert await finishing_order(plugged, one_by_one(requests)) == ["middling", "list"]
    assert sorted(ranker.questions[1:]) == [("[q=0.5]",), ("[q=0]",), ("[q=1]",)]


async def test_the_ranker_reads_the_last_user_message(plugged: VllmServer, ranker: QuantileRanker) -> None:
    """Found in what the chat template made of the conversation."""
    await scoring(plugged)
    ranker.questions.clear()
    turns = [{"role": "system", "content": "Be brief. " * 200}, user("Hello"), {"role": "assistant", "content": "Hi!"}]
    await ask(plugged, chat("", messages=[*turns, user("How long is\n\nthe Nile?")]))
    assert ranker.questions == [("How long is\n\nthe Nile?",)]


async def test_token_ids_are_middling_and_a_priority_of_the_clients_own_is_kept(
    plugged: VllmServer, ranker: QuantileRanker
) -> None:
    """1. saturate 2. queue long, token ids, short, one with a small priority of its client 3. let go."""
    await scoring(plugged)
    before = await plugged.metrics()
    requests = {
        "long": completion(prompt(1.0)),
        "token ids": completion([1, 2, 3, 4]),
        "short": completion(prompt(0.0)),
        "own": completion(prompt(1.0), priority=1),
    }
    order = await finishing_order(plugged, one_by_one(requests))
    assert (await plugged.metrics()).outcomes_since(before) == {"scored": 3, "no_text": 1, "client_priority": 1}
    assert order == ["own", "short", "token ids", "long"]


async def test_a_stream_that_is_left_leaves_nothing_behind(plugged: VllmServer, ranker: QuantileRanker) -> None:
    """finishing_order leaves its blocker, an endless stream, in the middle."""
    await scoring(plugged)
    await finishing_order(plugged, [{"one": completion(prompt(0.5), stream=True)}])
    await plugged.until_idle()


def test_one_hook_and_no_warning(plugged: VllmServer, ranker: QuantileRanker) -> None:
    """Of three processes that load the plugin, only the API server makes a hook."""
    lines = plugged.log().splitlines()
    assert len([line for line in lines if REGISTERED in line]) == 1
    assert not [line for line in lines if "PARS" in line and ("WARNING" in line or "ERROR" in line)]


async def test_without_its_variable_it_is_not_there(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate a server that has the plugin installed 2. queue requests, the longest first 3. let go: they finish as they came."""
    server = fleet(PLAIN)
    questions = len(ranker.questions)
    requests = {str(number): completion(prompt(1 - number / 10)) for number in range(5)}
    assert await finishing_order(server, one_by_one(requests)) == list(requests)
    assert len(ranker.questions) == questions
    assert "PARS" not in server.log()
    assert "pars_hook" not in (await server.metrics()).text


async def test_beside_the_middleware_it_keeps_the_middlewares_word(serve: Any, fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. saturate a server with both 2. queue long, then short requests 3. let go: short ones first 4. each was scored once, by the
    middleware, and kept, by the plugin; so was the list, which has one priority then."""
    with serve(*ONE_AT_A_TIME, *PRIORITY, *MIDDLEWARE, **environment(fleet)) as server:
        await until_scoring(server)
        before = await server.metrics()
        ranker.questions.clear()
        requests = {"long": chat(prompt(1.0)), "list": completion([prompt(0.5), prompt(0.25)]), "short": chat(prompt(0.0))}
        assert await finishing_order(server, one_by_one(requests)) == ["short", "list", "long"]
        # The blocker makes a fourth request, the list a fifth call of the engine.
        assert (await server.metrics()).outcomes_since(before) == {"scored": 4, "client_priority": 5}
        assert len(ranker.questions) == 4


def test_a_wrong_setting_keeps_the_server_from_starting(serve: Any) -> None:
    """1. start a server with the plugin on and a wrong setting 2. it ends by itself, soon, and the log says which."""
    with serve(*PRIORITY, wait=False, PARS_HOOK_PLUGIN="1", PARS_HOOK_WINDOW_MS="long") as server:
        assert server.exit_code() != 0
        assert "PARS_HOOK_WINDOW_MS is 'long', a whole number is wanted" in server.log()
