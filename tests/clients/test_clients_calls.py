"""Every language gets from a real sidecar what the Python client gets."""

import subprocess
import sys
from typing import Any

import numpy as np
from example_clients import DEADLINE_MS, EXAMPLES, WAIT_S, run
from sidecar_process import Sidecar

from vllm_client import ClientConfig, PromptScore, RankerClient

PROMPTS = {
    "English": "Write a long and detailed essay about rivers and bridges",
    "empty": "",
    "Chinese": "请写一首关于长江的长诗",
    "emoji": "👩‍🚀🎉 was heißt das?",
    "right to left": "اكتب قصة طويلة",
    "control characters": "one\ttwo\nthree\x01",
    "quotes": """'single' "double" \\\\ {"json": null}""",
    "long": "word " * 5_000,
}


def python_client(address: str) -> RankerClient:
    return RankerClient(ClientConfig(address=address, deadline_ms=DEADLINE_MS))


def as_printed(score: PromptScore) -> dict[str, Any]:
    """A score as the clients print it: the names of the .proto file, the numbers in 32 bits."""
    return {
        "score": np.float32(score.score),
        "quantile": np.float32(score.quantile),
        "expected_tokens": np.float32(score.expected_tokens),
        "expected_tokens_p90": np.float32(score.expected_tokens_p90),
        "prompt_tokens": score.prompt_tokens,
        "truncated": score.truncated,
        "tier": f"TIER_{score.tier.name}",
    }


def in_32_bits(printed: Any) -> Any:
    """What a client printed, its fractions as 32-bit floats: some languages print the shortest digits, some all of them."""
    if isinstance(printed, dict):
        floats = ("score", "quantile", "expected_tokens", "expected_tokens_p90", "expected_tokens_difference")
        return {name: np.float32(value) if name in floats else in_32_bits(value) for name, value in printed.items()}
    return printed


def test_score(language: str, sidecar: Sidecar) -> None:
    """1. every kind of prompt in one call 2. the same call from Python 3. the same numbers, in the same order."""
    reply = run(language, sidecar.address, "score", *PROMPTS.values()).reply()
    with python_client(sidecar.address) as client:
        expected = client.score(list(PROMPTS.values()))
    assert [in_32_bits(score) for score in reply["scores"]] == [as_printed(score) for score in expected.scores]
    assert reply["bundle_id"] == expected.bundle_id
    assert set(reply["timing"]) == {"tokenize_time_ns", "queue_time_ns", "infer_time_ns"}
    assert int(reply["timing"]["infer_time_ns"]) > 0


def test_the_prompts_of_these_tests_can_be_told_apart(sidecar: Sidecar) -> None:
    """So that a client that mixes them up, or garbles one, fails; and the ranker's scores need all their 32 bits."""
    with python_client(sidecar.address) as client:
        scores = client.score(list(PROMPTS.values())).scores
    assert len({(score.score, score.prompt_tokens) for score in scores}) == len(PROMPTS)
    assert any(score.truncated for score in scores)
    assert all(np.float32(f"{score.score:.5g}") != np.float32(score.score) for score in scores)


def test_compare(language: str, sidecar: Sidecar) -> None:
    texts = PROMPTS["English"], PROMPTS["Chinese"]
    reply = run(language, sidecar.address, "compare", *texts).reply()
    with python_client(sidecar.address) as client:
        expected = client.compare([texts])
    (comparison,) = expected.comparisons
    assert reply["bundle_id"] == expected.bundle_id
    assert [in_32_bits(one) for one in reply["comparisons"]] == [
        {
            "longer": f"LONGER_{comparison.longer.name}",
            "score_a": as_printed(comparison.score_a),
            "score_b": as_printed(comparison.score_b),
            "expected_tokens_difference": np.float32(comparison.expected_tokens_difference),
        }
    ]


def test_health(language: str, sidecar: Sidecar) -> None:
    assert run(language, sidecar.address, "health").reply() == {"status": "SERVING"}


def test_a_unix_socket(language: str, sidecar_on_a_socket: Sidecar) -> None:
    assert sidecar_on_a_socket.address.startswith("unix:/")
    assert run(language, sidecar_on_a_socket.address, "health").reply() == {"status": "SERVING"}


def test_reflection_lists_the_services(sidecar: Sidecar) -> None:
    command = [sys.executable, str(EXAMPLES / "reflection" / "client.py"), sidecar.address, str(DEADLINE_MS), "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert {"pars.v1.RankerService", "grpc.health.v1.Health"} < set(done.stdout.split())
