"""PrioritizedAsyncLLM around an engine of the tests' own, with a real gRPC server as the sidecar."""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from hook_rig import GROWN_MS
from scripted_ranker import TIMEOUT_S, ScriptedRanker

from vllm_client.hook.async_llm import PrioritizedAsyncLLM
from vllm_client.hook.decision import Outcome
from vllm_client.hook.scoring import PriorityHook
from vllm_client.hook.settings import HookSettings

PARAMS = SimpleNamespace(max_tokens=20, n=1)
WINDOW_MS = 40_000
NOW_MS = 1_700_000_000_000
OUTPUTS = ("first", "second", "third")


class FakeEngine:
    """Has AsyncLLM's generate, of which it writes down every call, and how each ended."""

    errored = False

    def __init__(self, policy: str = "priority") -> None:
        scheduler = SimpleNamespace(policy=policy, max_num_seqs=8)
        self.vllm_config = SimpleNamespace(scheduler_config=scheduler)
        self.calls: list[dict[str, Any]] = []
        self.ends: list[str] = []

    async def generate(self, prompt, sampling_params, request_id, *, prompt_text=None, lora_request=None, priority=0):
        self.calls.append(
            {"prompt": prompt, "params": sampling_params, "id": request_id, "lora": lora_request, "priority": priority}
        )
        try:
            for output in OUTPUTS:
                yield output
                if prompt == "breaks":
                    raise LookupError("the engine's own")
            self.ends.append("done")
        except GeneratorExit:
            self.ends.append("aborted")
            raise

    async def abort(self, request_id):
        return f"{request_id} aborted"


def settings(address: str, **others: Any) -> HookSettings:
    return HookSettings(address=address, **{"deadline_ms": TIMEOUT_S * 1000, "gate_in_flight": 0, **others})


@pytest.fixture(autouse=True)
def _standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request arrives at NOW_MS, however slow the machine is."""
    monkeypatch.setattr("vllm_client.hook.scoring.time", SimpleNamespace(time=lambda: NOW_MS / 1000))


@pytest.fixture
async def prioritised(ranker: ScriptedRanker):
    """Makes an engine with priorities, connected; closes it."""
    made = []

    async def make(engine: FakeEngine | None = None, **others: Any) -> PrioritizedAsyncLLM:
        llm = PrioritizedAsyncLLM(engine or FakeEngine(), settings(ranker.address, **others))
        made.append(llm)
        await llm.__aenter__()
        async with asyncio.timeout(TIMEOUT_S):
            while not llm.hook.connected:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.002)
        return llm

    yield make
    for llm in made:
        await llm.aclose()


async def delay_ms(llm: PrioritizedAsyncLLM, prompt: object, **arguments: Any) -> int:
    """Run one request; return how much later than its arrival it counts."""
    assert [output async for output in llm.generate(prompt, PARAMS, "id", **arguments)] == list(OUTPUTS)
    priority = llm.engine.calls[-1]["priority"]
    assert type(priority) is int
    return priority - NOW_MS


async def test_short_before_long(prioritised) -> None:
    llm = await prioritised()
    assert await delay_ms(llm, "x" * 10) == WINDOW_MS // 10
    assert await delay_ms(llm, {"prompt": "x" * 75}) == WINDOW_MS * 3 // 4


async def test_who_finds_a_queue_has_a_longer_window(told_backlog, prioritised) -> None:
    llm = await prioritised()
    assert await delay_ms(llm, "x" * 10) == GROWN_MS
    assert (told_backlog.rooms, told_backlog.arrivals) == ([8], [(0, 1)])


async def test_a_prompt_without_text_is_middling(prioritised) -> None:
    llm = await prioritised()
    assert await delay_ms(llm, [1, 2, 3]) == WINDOW_MS // 2
    assert llm.hook.counters.counts[Outcome.NO_TEXT] == 1
    assert await delay_ms(llm, [1, 2, 3], prompt_text="x" * 10) == WINDOW_MS // 10


async def test_without_a_sidecar_everything_is_served(nobody: str) -> None:
    async with PrioritizedAsyncLLM(FakeEngine(), settings(nobody)) as llm:
        assert await delay_ms(llm, "x" * 10) == WINDOW_MS // 2
        assert llm.hook.counters.counts[Outcome.UNCONNECTED] == 1


async def test_the_call_arrives_as_it_was_made(prioritised) -> None:
    llm = await prioritised()
    outputs = llm.generate("question", sampling_params=PARAMS, request_id="r", lora_request="lora")
    assert [output async for output in outputs] == list(OUTPUTS)
    (call,) = llm.engine.calls
    assert call == {"prompt": "question", "params": PARAMS, "id": "r", "lora": "lora", "priority": call["priority"]}


async def test_arguments_the_engine_does_not_know_are_its_to_refuse(prioritised) -> None:
    llm = await prioritised()
    with pytest.raises(TypeError, match="session_id"):
        await anext(llm.generate("question", PARAMS, "r", session_id="s"))


async def test_it_is_an_async_generator_like_the_original(prioritised) -> None:
    llm = await prioritised()
    assert inspect.isasyncgenfunction(llm.generate)
    outputs = llm.generate("question", PARAMS, "r")
    assert not llm.engine.calls, "nothing begins before the first output is asked for"
    await outputs.aclose()


async def test_leaving_reaches_the_engines_generator(prioritised) -> None:
    llm = await prioritised()
    outputs = llm.generate("question", PARAMS, "r")
    assert await anext(outputs) == "first"
    await outputs.aclose()
    assert llm.engine.ends == ["aborted"]
    assert llm.hook.counters.gauges["in_flight"] == 0


async def test_a_cancelled_caller_reaches_it_too(prioritised) -> None:
    llm = await prioritised()
    begun = asyncio.Event()

    async def consume() -> None:
        async for _ in llm.generate("question", PARAMS, "r"):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(begun.wait(), TIMEOUT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The loop closes a generator that nobody holds any more, in a task of its own.
    async with asyncio.timeout(TIMEOUT_S):
        while not llm.engine.ends:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert llm.engine.ends == ["aborted"]


async def test_the_engines_errors_come_through(prioritised) -> None:
    llm = await prioritised()
    outputs = llm.generate("breaks", PARAMS, "r")
    assert await anext(outputs) == "first"
    with pytest.raises(LookupError, match="the engine's own"):
        await anext(outputs)
    assert llm.hook.counters.gauges["in_flight"] == 0


@pytest.mark.parametrize("own", [7, -3, True])
async def test_a_priority_of_the_callers_own_is_kept(prioritised, own: int) -> None:
    llm = await prioritised()
    assert [output async for output in llm.generate("question", PARAMS, "r", priority=own)] == list(OUTPUTS)
    assert llm.engine.calls[-1]["priority"] == own
    assert type(llm.engine.calls[-1]["priority"]) is int
    assert llm.hook.counters.counts[Outcome.CLIENT_PRIORITY] == 1


async def test_or_overridden_or_combined(prioritised) -> None:
    assert await delay_ms(await prioritised(client_priority="override"), "x" * 10, priority=7) == WINDOW_MS // 10
    combined = await prioritised(client_priority="combine", client_step_ms=400)
    assert await delay_ms(combined, "x" * 10, priority=7) == WINDOW_MS // 10 + 2800


@pytest.mark.parametrize("own", [1.0, "1", None])
async def test_a_priority_that_would_hang_the_engine_is_refused(prioritised, own: Any) -> None:
    llm = await prioritised()
    with pytest.raises(TypeError):
        await anext(llm.generate("question", PARAMS, "r", priority=own))
    assert not llm.engine.calls


async def test_one_that_no_engine_can_hold_is_cut(prioritised) -> None:
    llm = await prioritised()
    await anext(llm.generate("question", PARAMS, "r", priority=2**70))
    assert llm.engine.calls[-1]["priority"] == 2**63 - 1


async def test_an_fcfs_engine_is_left_alone_and_said_to_be_one(ranker: ScriptedRanker, caplog) -> None:
    async with PrioritizedAsyncLLM(FakeEngine(policy="fcfs"), settings(ranker.address)) as llm:
        await anext(llm.generate("question", PARAMS, "r"))
        assert llm.engine.calls[-1]["priority"] == 0
        assert llm.hook.counters.counts[Outcome.FCFS_ENGINE] == 1
    assert caplog.text.count("--scheduling-policy priority, and vLLM then ignores") == 1


async def test_the_gate_knows_the_engines_size(ranker: ScriptedRanker) -> None:
    async with PrioritizedAsyncLLM(FakeEngine(), settings(ranker.address, gate_in_flight=-1)) as llm:
        assert llm.hook.gate_in_flight == 2
        await anext(llm.generate("question", PARAMS, "r"))
        assert llm.hook.counters.counts[Outcome.GATED] == 1


class Hostile(dict):
    """A prompt that raises when it is looked into."""

    def get(self, name, default=None):
        raise ZeroDivisionError("se" + "cret")


async def test_a_bug_of_ours_costs_the_request_nothing(prioritised, caplog) -> None:
    llm = await prioritised()
    assert await delay_ms(llm, Hostile()) == WINDOW_MS // 2
    assert llm.hook.counters.counts[Outcome.HOOK_FAULT] == 1
    assert "a bug: ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def test_everything_else_is_the_engines_own(prioritised) -> None:
    llm = await prioritised()
    assert await llm.abort("r") == "r aborted"
    assert llm.vllm_config is llm.engine.vllm_config
    assert llm.errored is False
    with pytest.raises(AttributeError, match="no_such_thing"):
        llm.no_such_thing  # noqa: B018
    with pytest.raises(AttributeError, match="engine"):
        PrioritizedAsyncLLM.__new__(PrioritizedAsyncLLM).errored  # noqa: B018


async def test_a_hook_of_the_callers_is_started_and_not_closed(ranker: ScriptedRanker) -> None:
    hook = PriorityHook(settings(ranker.address))
    try:
        async with PrioritizedAsyncLLM(FakeEngine(), hook) as one, PrioritizedAsyncLLM(FakeEngine(), hook) as other:
            assert one.hook is other.hook is hook
            async with asyncio.timeout(TIMEOUT_S):
                while not hook.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
        assert hook.connected
    finally:
        await hook.close()


async def test_generate_starts_the_hook_where_nobody_did(ranker: ScriptedRanker) -> None:
    llm = PrioritizedAsyncLLM(FakeEngine(), settings(ranker.address))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while llm.hook.counters.counts[Outcome.SCORED] == 0:
                await anext(llm.generate("question", PARAMS, "r"))
                await asyncio.sleep(0.002)
    finally:
        await llm.aclose()
        await llm.aclose()
