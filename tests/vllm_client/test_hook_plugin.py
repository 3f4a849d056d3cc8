"""The general plugin around an AsyncLLM of the tests' own, with a real gRPC server as the sidecar."""

import asyncio
import inspect
import multiprocessing
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hook_rig import GROWN_MS
from scripted_ranker import TIMEOUT_S, ScriptedRanker

from vllm_client.hook import plugin
from vllm_client.hook.add_request import ENGINE_MODULE
from vllm_client.hook.host import TESTED_MAX, TESTED_MIN
from vllm_client.hook.settings import HookSettingsError

WINDOW_MS = 40_000
NOW_MS = 1_700_000_000_000
NEUTRAL = NOW_MS + WINDOW_MS // 2
PARAMS = SimpleNamespace(max_tokens=20, n=1)


class OutputProcessor:
    unfinished = 0

    def get_num_unfinished_requests(self) -> int:
        return self.unfinished


def engine_class() -> Any:
    """A fresh one, as a wrapped one stays wrapped. The parameters are those of vLLM 0.32.0, in their order."""

    class AsyncLLM:
        def __init__(self, policy: str = "priority", max_num_seqs: int = 8) -> None:
            scheduler = SimpleNamespace(policy=policy, max_num_seqs=max_num_seqs)
            self.vllm_config = SimpleNamespace(scheduler_config=scheduler)
            self.output_processor = OutputProcessor()
            self.added: list[dict[str, Any]] = []

        async def add_request(
            self,
            request_id,
            prompt,
            params,
            arrival_time=None,
            lora_request=None,
            tokenization_kwargs=None,
            trace_headers=None,
            priority=0,
            data_parallel_rank=None,
            session_id=None,
            prompt_text=None,
        ):
            """The original."""
            if request_id == "breaks":
                raise LookupError("the engine's own")
            self.added.append({name: value for name, value in locals().items() if name != "self"})
            return f"queue of {request_id}"

    return AsyncLLM


@pytest.fixture
def engine_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """vLLM as far as the plugin looks at it."""
    vllm, module = ModuleType("vllm"), ModuleType(ENGINE_MODULE)
    vllm.__version__ = TESTED_MAX
    module.AsyncLLM = engine_class()
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, ENGINE_MODULE, module)
    return module


@pytest.fixture
def register(engine_module: ModuleType, ranker: ScriptedRanker, monkeypatch: pytest.MonkeyPatch):
    """register(**settings): with the plugin on; returns the class."""
    for name in [name for name in os.environ if name.startswith("PARS_HOOK_")]:
        monkeypatch.delenv(name)

    def switch_on(**chosen: object) -> Any:
        given = {"plugin": 1, "address": ranker.address, "deadline_ms": TIMEOUT_S * 1000, "gate_in_flight": 0, **chosen}
        for name, value in given.items():
            monkeypatch.setenv(f"PARS_HOOK_{name.upper()}", str(value))
        plugin.register()
        return engine_module.AsyncLLM

    return switch_on


@pytest.fixture(autouse=True)
def _standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request arrives at NOW_MS, however slow the machine is."""
    monkeypatch.setattr("vllm_client.hook.scoring.time", SimpleNamespace(time=lambda: NOW_MS / 1000))


async def priority_of(engine: Any, prompt: object, **arguments: Any) -> int:
    assert await engine.add_request("r", prompt, PARAMS, **arguments) == "queue of r"
    priority = engine.added[-1]["priority"]
    assert type(priority) is int
    return priority


async def connected(engine: Any) -> Any:
    """The engine, once a request of it was scored: the first one makes the hook."""
    async with asyncio.timeout(TIMEOUT_S):
        while await priority_of(engine, "x") == NEUTRAL:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)
    engine.added.clear()
    return engine


# Whether it comes in at all.


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "off"])
def test_off_unless_switched_on(engine_module: ModuleType, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("PARS_HOOK_PLUGIN", raising=False)
    if value is not None:
        monkeypatch.setenv("PARS_HOOK_PLUGIN", value)
    monkeypatch.setenv("PARS_HOOK_ADDRESS", "wrong, and none of its business")
    original = engine_module.AsyncLLM.add_request
    plugin.register()
    assert engine_module.AsyncLLM.add_request is original


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_on_wraps_once(register, value: str) -> None:
    wrapper = register(plugin=value).add_request
    plugin.register()
    assert register().add_request is wrapper
    assert wrapper.__doc__ == "The original."
    assert inspect.iscoroutinefunction(wrapper)
    assert list(inspect.signature(wrapper).parameters)[:4] == ["self", "request_id", "prompt", "params"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"plugin": "perhaps"}, "PARS_HOOK_PLUGIN is 'perhaps'"),
        ({"window_ms": "long"}, "PARS_HOOK_WINDOW_MS is 'long'"),
        ({"typo": 1}, "PARS_HOOK_TYPO is not a setting"),
        ({"address": "nowhere"}, "PARS_HOOK_ADDRESS must be"),
    ],
)
def test_settings_that_cannot_be_used_stop_the_start(register, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(HookSettingsError, match=message):
        register(**wrong)


def test_both_distributions_bring_the_entry_point() -> None:
    root = Path(plugin.__file__).parents[2]
    for file in (root / "pyproject.toml", root / "vllm_client/pyproject.toml"):
        entry_points = tomllib.loads(file.read_text())["project"]["entry-points"]
        assert entry_points == {"vllm.general_plugins": {"pars": f"{plugin.__name__}:{plugin.register.__name__}"}}


PROBE = """
import sys
import vllm_client
before = set(sys.modules)
from vllm_client.hook.plugin import register
register()
print(*sorted(set(sys.modules) - before))
"""


def test_switched_off_it_loads_nothing() -> None:
    """Beside what the package brings anyway: it is called in every process of vLLM. Switched on it would load add_request."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PARS_HOOK_")}
    answer = subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S * 3, check=True
    )
    assert answer.stdout.split() == []


def without(parameter: str) -> Any:
    async def add_request(self, request_id, prompt, params, priority=0):
        raise AssertionError("not called")

    chosen = [one for one in inspect.signature(add_request).parameters.values() if one.name != parameter]
    add_request.__signature__ = inspect.Signature(chosen)
    return add_request


@pytest.mark.parametrize("parameter", ["request_id", "prompt", "params", "priority"])
def test_other_parameters_keep_it_out(register, engine_module: ModuleType, caplog, parameter: str) -> None:
    original = engine_module.AsyncLLM.add_request = without(parameter)
    assert register().add_request is original
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"stays out, requests go without priorities: AsyncLLM.add_request has no parameter {parameter}" in record.message


@pytest.mark.parametrize("version", ["0.20.2", "0.99.0", "0.1.dev1+g123", None])
def test_other_versions_keep_it_out(register, engine_module: ModuleType, caplog, version: str | None) -> None:
    sys.modules["vllm"].__version__ = version
    original = engine_module.AsyncLLM.add_request
    assert register().add_request is original
    (record,) = caplog.records
    assert f"not among the tested ones, {TESTED_MIN} to {TESTED_MAX}" in record.message


def test_processes_that_vllm_starts_do_not_repeat_it(register, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["vllm"].__version__ = "0.99.0"
    monkeypatch.setattr(multiprocessing, "parent_process", multiprocessing.current_process)
    register()
    assert not caplog.records


# What it does with requests.


async def test_short_before_long(register) -> None:
    engine = await connected(register()())
    assert await priority_of(engine, "x" * 10) == NOW_MS + WINDOW_MS // 10
    assert await priority_of(engine, {"type": "token", "prompt_token_ids": [1], "prompt": "x" * 50}) == NEUTRAL
    assert (
        await priority_of(engine, {"type": "token", "prompt_token_ids": [1], "prompt": "x" * 75}) == NOW_MS + WINDOW_MS * 3 // 4
    )


async def test_token_ids_alone_are_middling(register, ranker: ScriptedRanker) -> None:
    engine = await connected(register()())
    ranker.requests.clear()
    assert await priority_of(engine, {"type": "token", "prompt_token_ids": [1, 2, 3]}) == NEUTRAL
    assert not ranker.requests


async def test_every_other_argument_arrives_as_it_was(register) -> None:
    engine = await connected(register()())
    assert await engine.add_request("r", "x" * 10, PARAMS, 1.5, "lora", priority=0, session_id="s") == "queue of r"
    (added,) = engine.added
    assert added == {
        "request_id": "r",
        "prompt": "x" * 10,
        "params": PARAMS,
        "arrival_time": 1.5,
        "lora_request": "lora",
        "tokenization_kwargs": None,
        "trace_headers": None,
        "priority": NOW_MS + WINDOW_MS // 10,
        "data_parallel_rank": None,
        "session_id": "s",
        "prompt_text": None,
    }


@pytest.mark.parametrize("client_priority", ["keep", "override", "combine"])
async def test_a_priority_that_is_set_stays(register, client_priority: str) -> None:
    """It may be the middleware's, which has taken care of the client's."""
    engine = await connected(register(client_priority=client_priority)())
    assert await priority_of(engine, "x" * 10, priority=NOW_MS) == NOW_MS
    await engine.add_request("r", "x" * 10, PARAMS, None, None, None, None, -5)
    assert engine.added[-1]["priority"] == -5


async def test_shadow_mode_leaves_requests_alone(register, ranker: ScriptedRanker) -> None:
    engine = register(shadow=1)()
    async with asyncio.timeout(TIMEOUT_S):
        while not any(getattr(request, "request", None) and "asked" in request.request.prompts for request in ranker.requests):
            assert await priority_of(engine, "asked") == 0
            await asyncio.sleep(0.002)


async def test_without_a_sidecar_everything_is_served(register, nobody: str) -> None:
    engine = register(address=nobody)()
    assert await priority_of(engine, "x" * 10) == NEUTRAL


async def test_an_fcfs_engine_is_left_alone_and_said_to_be_one(register, caplog) -> None:
    engine = register()(policy="fcfs")
    assert await priority_of(engine, "x" * 10) == 0
    assert await priority_of(engine, "x" * 10) == 0
    assert caplog.text.count("DOES NOTHING") == 1


async def test_pooling_and_ready_made_requests_are_left_alone(register) -> None:
    engine = await connected(register()())
    await engine.add_request("r", "x" * 10, SimpleNamespace(task="embed"))
    assert engine.added[-1]["priority"] == 0
    assert await priority_of(engine, SimpleNamespace(priority=3, prompt_token_ids=[1])) == 0


async def test_the_gate_counts_what_the_engine_has_unfinished(register, ranker: ScriptedRanker) -> None:
    engine = register(gate_in_flight=3)()
    engine.output_processor.unfinished = 2
    await connected(engine)
    ranker.requests.clear()
    engine.output_processor.unfinished = 1
    assert await priority_of(engine, "x" * 10) == NEUTRAL
    assert not ranker.requests
    engine.output_processor.unfinished = 2
    assert await priority_of(engine, "x" * 10) == NOW_MS + WINDOW_MS // 10


async def test_who_finds_a_queue_has_a_longer_window(told_backlog, register) -> None:
    """The engine counts each of n samples, and so are they counted that come."""
    engine = await connected(register()())
    told_backlog.arrivals.clear()
    engine.output_processor.unfinished = 9
    assert await priority_of(engine, "x" * 10) == NOW_MS + GROWN_MS
    await engine.add_request("r", "x" * 10, SimpleNamespace(max_tokens=20, n=4))
    await engine.add_request("r", "x" * 10, PARAMS, priority=5)
    assert (told_backlog.rooms, told_backlog.arrivals) == ([8], [(9, 1), (9, 4), (9, 1)])


async def test_an_engine_that_does_not_count_has_no_gate(register) -> None:
    engine = register(gate_in_flight=3)()
    del engine.output_processor
    await connected(engine)
    assert await priority_of(engine, "x" * 10) == NOW_MS + WINDOW_MS // 10


async def test_the_engines_errors_come_through_and_bad_calls_are_its_to_refuse(register, caplog) -> None:
    engine = await connected(register()())
    caplog.clear()
    with pytest.raises(LookupError, match="the engine's own"):
        await engine.add_request("breaks", "x", PARAMS)
    with pytest.raises(TypeError, match="no_such"):
        await engine.add_request("r", "x", PARAMS, no_such=1)
    assert not caplog.records


class Hostile:
    """A prompt whose every attribute raises what no one expects."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError("se" + "cret")


async def test_a_bug_of_ours_costs_the_request_nothing(register, caplog) -> None:
    engine = await connected(register()())
    assert await priority_of(engine, Hostile()) == 0
    assert "a bug: ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_caller_that_leaves_while_the_sidecar_is_asked(register, ranker: ScriptedRanker) -> None:
    """The engine never hears of the request."""
    engine = await connected(register()())
    ranker.answer_item = lambda item: None
    ranker.requests.clear()
    task = asyncio.create_task(engine.add_request("r", "x" * 10, PARAMS))
    async with asyncio.timeout(TIMEOUT_S):
        while not ranker.requests:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not engine.added


async def test_each_engine_has_its_own_hook(register) -> None:
    made = register()
    one, other = await connected(made()), made(policy="fcfs")
    assert await priority_of(one, "x" * 10) == NOW_MS + WINDOW_MS // 10
    assert await priority_of(other, "x" * 10) == 0
