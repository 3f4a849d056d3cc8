"""`vllm_client.offline` and a real LLM, in vLLM's environment: who is answered first, and whose answer is whose."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from quantile_ranker import QuantileRanker
from vllm_programs import run_program


@pytest.fixture(scope="module")
def programs(vllm_bin: Path, tiny_model: Path, socket_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """programs(scheduling_policy, multiprocessing=False): what offline_program.py found; each is run once."""
    ranker = QuantileRanker(f"unix:{socket_folder / 'offline.sock'}")

    @functools.cache
    def run(policy: str, multiprocessing: bool = False) -> dict[str, Any]:
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(multiprocessing)),
            "VLLM_CACHE_ROOT": str(tmp_path_factory.getbasetemp() / "vllm-cache"),
        }
        arguments = (policy, ranker.address, f"unix:{socket_folder / 'nobody.sock'}")
        folder = tmp_path_factory.mktemp("offline")
        return run_program(vllm_bin, "offline_program.py", tiny_model, folder, *arguments, **environment)

    yield run
    ranker.stop()


Program = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", ["plan", "shortest", "longest", "chat", "nobody"])
@pytest.mark.parametrize("policy", ["priority", "fcfs"])
def test_answers_are_in_the_callers_order(programs: Program, policy: str, name: str) -> None:
    found = programs(policy)
    assert found["runs"][name]["answers"] == found["tokens"]


@pytest.mark.parametrize("name", ["plan", "shortest", "chat"])
@pytest.mark.parametrize("policy", ["priority", "fcfs"])
def test_the_shortest_are_answered_first(programs: Program, policy: str, name: str) -> None:
    """Under fcfs the sorted list does it alone."""
    found = programs(policy)
    assert found["runs"][name]["finished"] == sorted(found["tokens"])


@pytest.mark.parametrize("policy", ["priority", "fcfs"])
def test_or_the_longest(programs: Program, policy: str) -> None:
    found = programs(policy)
    assert found["runs"]["longest"]["finished"] == sorted(found["tokens"], reverse=True)


@pytest.mark.parametrize("policy", ["priority", "fcfs"])
def test_without_a_sidecar_they_run_as_given_and_the_log_says_so(programs: Program, policy: str) -> None:
    found = programs(policy)
    assert found["runs"]["nobody"]["finished"] == found["tokens"]
    assert found["log"].count("6 of 6 prompts have no score") == 1


def test_token_ids_count_as_middling(programs: Program) -> None:
    found = programs("priority")
    long, short, *_ = found["tokens"]
    assert found["runs"]["forms"] == {"answers": [found["middling"], long, short], "finished": [short, found["middling"], long]}


def test_priorities_order_what_is_queued(programs: Program) -> None:
    """The same list, longest first: priorities turn it round, and fcfs does not look at them."""
    obeying, ignoring = programs("priority"), programs("fcfs")
    assert obeying["runs"]["priorities alone"]["finished"] == sorted(obeying["tokens"])
    assert ignoring["runs"]["priorities alone"]["finished"] == sorted(ignoring["tokens"], reverse=True)


def test_with_the_engine_in_a_process_of_its_own(programs: Program) -> None:
    """As vLLM runs by default, and after a plan was made: what gRPC left behind does not disturb the new process."""
    found = programs("priority", multiprocessing=True)
    assert found["runs"]["plan"] == {"answers": found["tokens"], "finished": sorted(found["tokens"])}
    assert found["runs"]["chat"] == {"answers": found["tokens"], "finished": sorted(found["tokens"])}
