"""A vLLM with the middleware and hardly any memory: requests are evicted, clients leave at random, the sidecar is in trouble."""

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import Iterator

import pytest
from generating import ask, completion
from http_wire import JSON, WAIT_S, Wire, head
from quantile_ranker import QuantileRanker, prompt
from shared_servers import TIGHT, TIGHT_DEADLINE_MS, TIGHT_PLACES, Fleet
from troubled_sidecars import TROUBLES
from vllm_server import VllmServer, until_scoring

EVICTED_TOKENS = 300
"""Of each answer: all of them together want twice what the cache holds."""
STORM_REQUESTS = 1000
STORM_AT_A_TIME = 32
SLACK_MS = 50
"""What a busy machine may add to the deadline."""
SAMPLES = 20


@pytest.fixture
def ranker(fleet: Fleet) -> Iterator[QuantileRanker]:
    server = QuantileRanker(fleet.ranker_address)
    yield server
    server.stop()


async def test_eviction_loses_nothing(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. ask for each answer alone 2. ask for all at once, more than the cache holds 3. vLLM evicts requests 4. every answer has its
    exact length, and is the one that the prompt got alone."""
    server = fleet(TIGHT)
    await until_scoring(server)
    requests = [completion(prompt(number / 10, f"story {number}"), EVICTED_TOKENS) for number in range(TIGHT_PLACES)]
    alone = [(await ask(server, request)).json() for request in requests]
    before = await server.metrics()
    together = [reply.json() for reply in await asyncio.gather(*(ask(server, request) for request in requests))]
    after = await server.until_idle()
    assert after.total("vllm:num_preemptions_total") > before.total("vllm:num_preemptions_total")
    assert [answer["usage"]["completion_tokens"] for answer in together] == [EVICTED_TOKENS] * TIGHT_PLACES
    assert [answer["choices"][0]["text"] for answer in together] == [answer["choices"][0]["text"] for answer in alone]


async def test_a_thousand_rude_clients_leave_nothing_behind(fleet: Fleet, ranker: QuantileRanker) -> None:
    """1. send a thousand requests, of which most are left in a phase drawn by lot 2. nothing runs, waits or is held by the hook
    3. those that stayed were answered whole 4. the second half took hardly any memory 5. the server still answers."""
    server = fleet(TIGHT)
    before = await until_scoring(server)
    lot = random.Random(3)
    resident_bytes = [server.resident_bytes()]
    phases: Counter[str] = Counter()
    for _ in range(2):
        await storm(server, lot, phases, STORM_REQUESTS // 2)
        await server.until(lambda metrics: metrics.running == metrics.waiting == metrics.total("pars_hook_in_flight") == 0)
        resident_bytes.append(server.resident_bytes())
    assert phases.total() == STORM_REQUESTS
    assert min(phases.values()) > STORM_REQUESTS / 10
    # Whoever left later than at once had its priority decided.
    counted = sum((await server.metrics()).outcomes_since(before).values())
    assert counted >= phases["after a while"] + phases["while it streams"] + phases["never"]
    assert resident_bytes[2] - resident_bytes[1] < 32 * 1024 * 1024, resident_bytes
    await ask(server, completion("and now?", 2))


async def storm(server: VllmServer, lot: random.Random, phases: Counter[str], requests: int) -> None:
    places = asyncio.Semaphore(STORM_AT_A_TIME)

    async def one(phase: str, tokens: int, patience_s: float) -> None:
        phases[phase] += 1
        request = completion(prompt(lot.random(), "a story"), tokens, stream=phase == "while it streams")
        content = json.dumps(request.content).encode()
        start = head("POST", request.path, server.headers() | JSON | {"content-length": str(len(content))})
        async with places, Wire(server.port) as wire:
            if phase == "before the body":
                await wire.write(start)
            elif phase == "in the body":
                await wire.write(start + content[: len(content) // 2])
            else:
                await wire.write(start + content)
            if phase == "while it streams":
                while b"data: " not in await wire.piece():
                    continue
            elif phase == "after a while":
                await asyncio.sleep(patience_s)  # Anywhere between being scored, waiting and running.
            elif phase == "never":
                reply = await wire.reply()
                assert reply.status == 200
                assert reply.json()["usage"]["completion_tokens"] == tokens

    choices = ("before the body", "in the body", "at once", "after a while", "while it streams", "never")
    work = [one(lot.choice(choices), lot.randint(2, 60), lot.uniform(0, 0.1)) for _ in range(requests)]
    await asyncio.wait_for(asyncio.gather(*work), 4 * WAIT_S)


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "overloaded"])
async def test_trouble_costs_a_request_the_deadline_at_most(fleet: Fleet, name: str) -> None:
    """1. time requests while the sidecar answers 2. it gets into trouble 3. time requests again, from the first one on 4. the median
    has grown by less than deadline and slack, and so has the slowest, but for the worst of a busy machine."""
    server = fleet(TIGHT)
    with TROUBLES[name].sidecar(fleet.ranker_address) as befall:
        await until_scoring(server)
        healthy_ms = await times_ms(server)
        befall()
        troubled_ms = await times_ms(server)
    assert statistics.median(troubled_ms) - statistics.median(healthy_ms) < TIGHT_DEADLINE_MS + SLACK_MS
    assert max(troubled_ms) - max(healthy_ms) < TIGHT_DEADLINE_MS + 10 * SLACK_MS


async def times_ms(server: VllmServer) -> list[float]:
    """Milliseconds that single requests take, one after the other."""
    return [1000 * (await ask(server, completion(prompt(0.5), 1))).took_s for _ in range(SAMPLES)]
