"""Order under load: every arm on engines of its own, with the same requests at the same times, and again with other requests."""

import datetime
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.replay import Replay
from benchmarks.vllm_arms import Arm, measure_capacity, run_arm
from benchmarks.vllm_bench_serve import Load, bench_flags
from benchmarks.vllm_figures import BASELINE, arm_summary, ratios_to_baseline
from benchmarks.vllm_process import ENVIRONMENT, serve_flags
from benchmarks.vllm_requests import KEPT
from benchmarks.vllm_site import Bench, Site

SMOKE_CAPACITY = 0.95
"""Of what padded steps allow at most: taken for granted in a smoke run instead of measured."""


def under_load(bench: Bench, site: Site) -> dict[str, Any]:
    """The report's part about order. Raises ProcessError, RecordsError."""
    replays = [bench.replay(repetition) for repetition in range(bench.starts)]
    capacity = _capacity(bench, site, replays[0])
    loads = [_load(bench, repetition, replay, capacity["tokens_per_s"]) for repetition, replay in enumerate(replays)]
    runs: list[dict[str, Any]] = []
    for number, load in enumerate(loads, start=1):
        # There and back, so that a machine that slowly fills up favours nobody.
        for arm in bench.arms if number % 2 else bench.arms[::-1]:
            print(f"{arm.name}, engine start {number} of {bench.starts}", file=sys.stderr, flush=True)
            runs.append(_run(bench, site, arm, number, load))
    return {
        "settings": bench.load,
        "vllm_serve": shlex.join(serve_flags(bench.load.max_num_seqs, has_hook=True)),
        "vllm_bench_serve": [shlex.join(bench_flags(load)) for load in loads],
        "environment": ENVIRONMENT,
        "capacity": capacity,
        "workloads": [_workload_json(load) for load in loads],
        "arms": {arm.name: arm.what for arm in bench.arms},
        "summary": {arm.name: arm_summary([run for run in runs if run["arm"] == arm.name]) for arm in bench.arms},
        f"ratios_to_{BASELINE}": ratios_to_baseline(runs),
        "runs": [{key: value for key, value in run.items() if key != KEPT} for run in runs],
    }


def _load(bench: Bench, repetition: int, replay: Replay, tokens_per_s: float) -> Load:
    rate = bench.load.offered_load * tokens_per_s / replay.mean_output_tokens
    return Load(replay, len(replay.requests), rate, bench.seed + repetition)


def _run(bench: Bench, site: Site, arm: Arm, number: int, load: Load) -> dict[str, Any]:
    def measure() -> Mapping[str, Any]:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        figures = run_arm(site.paced, arm, bench.load, bench.bundle, load)
        return {"arm": arm.name, "repetition": number, "date": date, **figures}

    load_json = {"replay": load.replay.sha256, "rate": load.request_rate, "seed": load.seed}
    return site.kept.get(f"{arm.name}-{number}", {**site.common, "settings": bench.load, "arm": arm, **load_json}, measure)


def _capacity(bench: Bench, site: Site, replay: Replay) -> dict[str, Any]:
    settings = bench.load
    if bench.smoke:
        return {"tokens_per_s": SMOKE_CAPACITY * settings.max_num_seqs * 1000 / settings.step_ms, "measured": False}

    def measure() -> Mapping[str, Any]:
        before = os.getloadavg()[0]
        tokens_per_s = measure_capacity(site.paced, settings, replay, bench.seed)
        return {"tokens_per_s": tokens_per_s, "measured": True, "load_average_1_min_before": before}

    print("what the engine can do", file=sys.stderr, flush=True)
    return site.kept.get("capacity", {**site.common, "settings": settings, "replay": replay.sha256}, measure)


def _workload_json(load: Load) -> dict[str, Any]:
    tokens = sorted(request.output_tokens for request in load.replay.requests)
    return {
        "source": load.replay.source,
        "sha256": load.replay.sha256,
        "requests": len(tokens),
        "requests_per_s": load.request_rate,
        "output_tokens": {
            "mean": load.replay.mean_output_tokens,
            "p50": tokens[len(tokens) // 2],
            "p90": tokens[len(tokens) * 9 // 10],
            "max": tokens[-1],
        },
    }
