"""What is compared: the arms, each a hook setting and somebody who ranks; and one run of one arm, from engine start to engine stop."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.process import LineProcess
from benchmarks.replay import Replay
from benchmarks.served import ServedSidecar
from benchmarks.vllm_bench_serve import Load, run_bench
from benchmarks.vllm_figures import figures_of
from benchmarks.vllm_metrics import by_label, difference, total
from benchmarks.vllm_process import VllmInstallation, VllmServer
from benchmarks.vllm_requests import KEPT, estimates_of, requests_of

RANKER_START_S = 60.0

WARM_UP_REQUESTS, WARM_UP_TOKENS = 8, 8
"""Of the workload's own prompts, sent before anything is counted: a first request pays for what is loaded late."""

DRAIN_S = 300.0
"""For the queue to empty, beside the time in which the requests arrive."""

CALIBRATION_WAVES = 4

Ranker = Literal["sidecar", "oracle", "shuffled", "none"]


@dataclass(frozen=True, slots=True)
class Arm:
    """hook: settings beside the common ones, by name. ranker: who answers the hook."""

    name: str
    what: str
    ranker: Ranker
    hook: Mapping[str, str] = field(default_factory=dict)


ARMS = (
    Arm("equal", "first come, first served: the hook gives everybody the same priority", "none", {"policy": "equal"}),
    Arm("ours", "the shipped ranker, served by the sidecar", "sidecar"),
    Arm("ours-ngram", "its cheap n-gram tier", "sidecar", {"tier": "ngram"}),
    Arm("oracle", "the recorded lengths themselves", "oracle"),
    Arm("random", "the recorded lengths, dealt out anew: a ranker that knows nothing", "shuffled"),
    Arm("oracle-shortest", "the recorded lengths, shortest first, without ageing: the bound", "oracle", {"policy": "shortest"}),
)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Of all runs. deadline_ms: the hook's; the encoder shares two cores with vLLM, its clients and the bench client."""

    requests: int
    offered_load: float
    """Share of what the engine can do that arrives. Above 1, a queue builds up as long as requests arrive."""
    max_num_seqs: int
    step_ms: float
    deadline_ms: int


@contextlib.contextmanager
def served_ranker(ranker: Ranker, bundle: Path, replay: Replay, seed: int) -> Iterator[str | None]:
    """The address of whoever ranks, while it serves; None for nobody."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-")))
        address = f"unix:{folder / 'pars.sock'}"
        if ranker == "sidecar":
            sidecar = ServedSidecar(bundle, address, "cpu", ())
            stack.callback(sidecar.process.close)
        elif ranker != "none":
            replay.write(folder / "workload.jsonl")
            deal = ["--shuffle", str(seed)] if ranker == "shuffled" else []
            stack.enter_context(oracle(address, "--workload", str(folder / "workload.jsonl"), *deal))
        yield None if ranker == "none" else address


@contextlib.contextmanager
def oracle(address: str, *flags: str) -> Iterator[LineProcess]:
    """A running `benchmarks.oracle_ranker`."""
    command = [sys.executable, "-m", "benchmarks.oracle_ranker", "--address", address, *flags]
    with LineProcess(command, merge_stderr=True) as process:
        process.line_like("serving address=", RANKER_START_S)
        yield process


def run_arm(vllm: VllmInstallation, arm: Arm, settings: LoadSettings, bundle: Path, load: Load) -> dict[str, Any]:
    """Figures of one engine start. Raises ProcessError."""
    with served_ranker(arm.ranker, bundle, load.replay, load.seed) as address:
        hook = {"deadline_ms": str(settings.deadline_ms), **arm.hook}
        attached = {**hook, "address": address} if address else hook
        with VllmServer(vllm, max_num_seqs=settings.max_num_seqs, hook=attached) as server:
            _warm_up(server, load.replay)
            load_average = os.getloadavg()[0]
            before = server.metrics()
            result = run_bench(vllm, server.url, load, load.requests / load.request_rate + DRAIN_S)
            added = difference(server.metrics(), before)
        # Afterwards, with nobody else on the cores: the same bundle says the same again.
        prompts = [request.prompt for request in load.replay.requests[: load.requests]]
        estimates = estimates_of(address, prompts, hook.get("tier", "any")) if address else {}
    asked = total(added, "pars_hook_ask_seconds_count")
    return {
        "hook": hook,
        "engine_start_s": server.start_s,
        "load_average_1_min_before": load_average,
        "load_average_1_min_after": os.getloadavg()[0],
        "figures": figures_of(result),
        "preemptions": int(total(added, "vllm:num_preemptions_total")),
        "hook_outcomes": _counts(by_label(added, "pars_hook_requests_total", "outcome")),
        "hook_ask_mean_ms": 1000 * total(added, "pars_hook_ask_seconds_sum") / asked if asked else None,
        KEPT: requests_of(result) | estimates,
    }


def measure_capacity(vllm: VllmInstallation, settings: LoadSettings, replay: Replay, seed: int) -> float:
    """Tokens per second of the full engine, with responses of the workload's mean length, so that no wave has a long tail."""
    tokens = round(replay.mean_output_tokens)
    load = Load(replay, CALIBRATION_WAVES * settings.max_num_seqs, float("inf"), seed, tokens)
    with VllmServer(vllm, max_num_seqs=settings.max_num_seqs, hook=None) as server:
        _warm_up(server, replay)
        return float(run_bench(vllm, server.url, load, DRAIN_S)["output_throughput"])


def _warm_up(server: VllmServer, replay: Replay) -> None:
    for request in replay.requests[:WARM_UP_REQUESTS]:
        server.chat(request.prompt, WARM_UP_TOKENS)


def _counts(samples: Mapping[str, float]) -> dict[str, int]:
    return {name: int(count) for name, count in sorted(samples.items()) if count}
