"""One run of one arm on a real vLLM, from engine start to engine stop; and what the engine can do at most."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.arms import Arm
from benchmarks.bench_vllm.bench_serve import Load, run_bench
from benchmarks.bench_vllm.metrics import by_label, difference, total
from benchmarks.bench_vllm.process import VllmInstallation, VllmServer
from benchmarks.bench_vllm.queue import QueueSampler
from benchmarks.bench_vllm.rankers import served_ranker
from benchmarks.bench_vllm.requests import CLIENT, KEPT, client_of, estimates_of, requests_of
from benchmarks.replay import Replay
from vllm_client import RankerClientError

WARM_UP_REQUESTS, WARM_UP_TOKENS = 8, 8
"""Of the workload's own prompts, sent before anything is counted: a first request pays for what is loaded late."""

DRAIN_S = 300.0
"""For the queue to empty, beside the time that the requests take to arrive and the engine to serve them."""

SLOWEST_STEP = 2.0
"""A run whose steps take longer than this many padded ones is given up: its machine had no time for it."""

CALIBRATION_WAVES = 4


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Of all runs. deadline_ms: the hook's; the encoder shares two cores with vLLM, its clients and the bench client."""

    max_num_seqs: int
    step_ms: float
    deadline_ms: int


def run_arm(vllm: VllmInstallation, arm: Arm, settings: LoadSettings, bundle: Path, load: Load) -> dict[str, Any]:
    """What happened in one engine start; see figures for what is made of it. Raises ProcessError."""
    with served_ranker(arm.ranker, bundle, load.replay, load.seed) as address:
        hook = {"deadline_ms": str(settings.deadline_ms), **arm.hook}
        attached = {**hook, "address": address} if address else hook
        with VllmServer(vllm, max_num_seqs=settings.max_num_seqs, hook=attached) as server:
            _warm_up(server, load.replay)
            load_average = os.getloadavg()[0]
            before = server.metrics()
            with QueueSampler(server.url) as queue:
                result = run_bench(vllm, server.url, load, _timeout_s(load, settings))
            added = difference(server.metrics(), before)
        prompts = [request.prompt for request in load.replay.requests[: load.requests]]
        estimates: dict[str, list[float]] = {}
        # Afterwards, with nobody else on the cores: the same bundle says the same again. It would say so another day as well, so a run
        # of minutes is not lost for it.
        with contextlib.suppress(RankerClientError):
            estimates = estimates_of(address, prompts, hook.get("tier", "any")) if address else {}
    return {
        "hook": hook,
        "engine_start_s": server.start_s,
        "load_average_1_min_before": load_average,
        "load_average_1_min_after": os.getloadavg()[0],
        CLIENT: client_of(result),
        "preemptions": int(total(added, "vllm:num_preemptions_total")),
        "hook_outcomes": _counts(by_label(added, "pars_hook_requests_total", "outcome")),
        "hook_asks": int(total(added, "pars_hook_ask_seconds_count")),
        "hook_ask_s": total(added, "pars_hook_ask_seconds_sum"),
        "queue": queue.samples(min(result["start_times"], default=0.0)),
        KEPT: requests_of(result) | estimates,
    }


def measure_capacity(vllm: VllmInstallation, settings: LoadSettings, replay: Replay, seed: int) -> dict[str, Any]:
    """The full engine, with responses of the workload's mean length, so that no wave has a long tail."""
    tokens = round(replay.mean_output_tokens)
    load = Load(replay, CALIBRATION_WAVES * settings.max_num_seqs, float("inf"), seed, tokens)
    with VllmServer(vllm, max_num_seqs=settings.max_num_seqs, hook=None) as server:
        _warm_up(server, replay)
        result = run_bench(vllm, server.url, load, _timeout_s(load, settings))
    return {CLIENT: client_of(result), KEPT: requests_of(result)}


def _timeout_s(load: Load, settings: LoadSettings) -> float:
    tokens = sum(request.output_tokens for request in load.replay.requests[: load.requests])
    serving_s = tokens * settings.step_ms / 1000 / settings.max_num_seqs
    return SLOWEST_STEP * serving_s + load.requests / load.request_rate + DRAIN_S


def _warm_up(server: VllmServer, replay: Replay) -> None:
    for request in replay.requests[:WARM_UP_REQUESTS]:
        server.chat(request.prompt, WARM_UP_TOKENS)


def _counts(samples: Mapping[str, float]) -> dict[str, int]:
    return {name: int(count) for name, count in sorted(samples.items()) if count}
