"""The simulated engine against vLLM's own scheduler: each request's first token, last token and preemptions, which say who is admitted,
read in pieces and thrown out, and when it ends."""

import json
import random
from pathlib import Path
from typing import Any

from vllm_programs import run_program

from benchmarks.simulator.disciplines import StaticPriority
from benchmarks.simulator.engine import Engine
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.job import Job
from benchmarks.simulator.request import Request
from benchmarks.simulator.step_model import StepModel, milliseconds, ticks

CASES = 400


def random_case(seed: int) -> dict[str, Any]:
    """Small and crowded: few slots, little budget, hardly more blocks than the longest request needs."""
    rng = random.Random(seed)
    slots, block_tokens = rng.randint(1, 5), rng.choice([2, 4, 16])
    rows = [
        (
            rng.randint(0, rng.choice([0, 5, 40])),
            rng.randint(1, rng.choice([2, 20])),
            rng.randint(1, rng.choice([2, 30])),
            rng.randint(0, 2),
        )
        for _ in range(rng.randint(1, 9))
    ]
    return {
        "slots": slots,
        "budget": slots + rng.choice([0, 1, 3, 20, 100]),
        "blocks": max(-(-(row[1] + row[2] - 1) // block_tokens) for row in rows) + rng.choice([0, 0, 1, 2, 5, 50]),
        "block_tokens": block_tokens,
        "asynchronous": seed % 2 == 1,
        "requests": sorted(rows, key=lambda row: row[0]),
    }


def simulated(case: dict[str, Any]) -> list[tuple[float, float, int]]:
    """First token, last token and preemptions of each request."""
    settings = EngineSettings(case["slots"], case["budget"], case["blocks"], case["block_tokens"], case["asynchronous"])
    engine = Engine(settings, StepModel(1.0), StaticPriority())
    jobs = []
    for index, (arrival, prompt_tokens, output_tokens, priority) in enumerate(case["requests"]):
        jobs.append(Job(index, Request(arrival, prompt_tokens, output_tokens), priority, None, ticks(arrival)))
        engine.run_until(jobs[-1].entered)
        engine.submit(jobs[-1])
    engine.run_until(None)
    return [(milliseconds(job.first_token or 0), milliseconds(job.finished or 0), job.preemptions) for job in jobs]


def test_it_schedules_as_vllm_does(vllm_bin: Path, tiny_model: Path, tmp_path: Path) -> None:
    cases = [random_case(seed) for seed in range(CASES)]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    found = run_program(vllm_bin, "scheduler_program.py", tiny_model, tmp_path, str(tmp_path / "cases.json"))
    preemptions = 0
    for case, requests in zip(cases, found["cases"], strict=True):
        assert [len(came) for came, _ in requests] == [row[2] for row in case["requests"]]
        assert simulated(case) == [(came[0], came[-1], preempted) for came, preempted in requests], case
        preemptions += sum(preempted for _, preempted in requests)
    assert preemptions > CASES / 4, "the cases are not crowded enough to show anything"
