"""PrioritizedAsyncLLM around a real AsyncLLM, saturated, in vLLM's environment."""

from pathlib import Path
from typing import Any

import pytest
from vllm_programs import run_program


@pytest.fixture(scope="module")
def found(vllm_bin: Path, tiny_model: Path, socket_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What embedded_program.py saw; it is run once."""
    environment = {"VLLM_CACHE_ROOT": str(tmp_path_factory.getbasetemp() / "vllm-cache")}
    address = f"unix:{socket_folder / 'embedded.sock'}"
    folder = tmp_path_factory.mktemp("embedded")
    return run_program(vllm_bin, "embedded_program.py", tiny_model, folder, address, **environment)


def test_short_requests_behind_long_ones_finish_first(found: dict[str, Any]) -> None:
    """Six requests queued behind one without an end, long ones first: short ones finish first, each group as it arrived."""
    assert found["length"] == ["short 0", "short 1", "short 2", "long 0", "long 1", "long 2"]


def test_prompts_of_every_form(found: dict[str, Any]) -> None:
    """A caller's own priority is kept and goes before all clocks, token ids are middling, a rendered chat is its last message."""
    assert found["forms"] == ["own priority", "short", "rendered chat", "token ids", "long dict"]
    assert found["last user text"] == "[q=0.2]"


def test_the_engine_gets_whole_numbers_only(found: dict[str, Any]) -> None:
    assert found["types"] == ["int"]


def test_closing_the_generator_aborts_the_request(found: dict[str, Any]) -> None:
    """Or no queue behind a blocker would ever have moved; and nothing is left in the engine's books."""
    assert found["aborted"] == 0


def test_with_the_sidecar_killed_all_are_served_as_they_came(found: dict[str, Any]) -> None:
    assert found["killed"] == ["long 0", "long 1", "long 2", "short 0", "short 1", "short 2"]
    assert found["answers"] == [1, 7]


def test_every_request_is_counted_by_cause(found: dict[str, Any]) -> None:
    """Three blockers; six and then three scored; one of token ids, one with its own priority; then nobody to ask."""
    outcomes = found["outcomes"]
    unserved = outcomes.pop("unconnected")
    assert outcomes == {"scored": 11, "no_text": 1, "client_priority": 1}
    assert unserved == 9
