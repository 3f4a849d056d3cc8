"""End to end: a real sidecar on a unix socket, called by processes of their own."""

import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.job import Job
from benchmarks.gpu.memory import GpuMemory, gpu_memory
from benchmarks.gpu.open_loop import Arrivals, ArrivalsJob
from benchmarks.gpu.outcome import Outcome, reason
from benchmarks.jobs import CallsJob, Contender
from benchmarks.measurement import added, measure, percentile
from benchmarks.process import LineProcess, ProcessError
from benchmarks.process_tree import tree_of
from benchmarks.served import ServedSidecar
from benchmarks.workload import write_prompts
from sidecar.cores import allotted_cores
from vllm_client import RankerClientError

CORES_PER_CALLER_PROCESS, MAX_CALLER_PROCESSES = 4, 4
"""The callers take cores from the sidecar's tokenizer, and one process can neither send 1,000 calls a second without being late now and
then nor read 50,000 scores a second."""

READY_S, GRACE_S = 60.0, 60.0

LEAD_S = 0.2
"""Between handing out jobs and the first call: all processes are to begin at the same time."""


def measure_rpc(job: Job, outcome: Outcome) -> None:
    """By precision: `single`, one prompt a call at a given rate; `batches`, closed loops; `gpu_memory`. Failed calls are failures."""
    processes = min(max(allotted_cores() // CORES_PER_CALLER_PROCESS, 1), MAX_CALLER_PROCESSES)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-gpu-")))
        prompts = folder / "prompts.jsonl"
        write_prompts(prompts, job.prompts)

        def child(module: str) -> LineProcess:
            command = [sys.executable, "-m", module, "--prompts", str(prompts)]
            return stack.enter_context(LineProcess(command, merge_stderr=False))

        senders = [child("benchmarks.gpu.open_loop") for _ in range(processes)]
        for sender in senders:
            sender.line(READY_S)
        callers = [Contender(child("benchmarks.caller")) for _ in range(processes)]
        for precision, bundle in job.bundles.items():
            before = gpu_memory([])
            try:
                sidecar = ServedSidecar(bundle, f"unix:{folder / precision}.sock", job.device, ())
            except (ProcessError, RankerClientError) as error:
                # The last lines of its log say why, the first that it ended.
                outcome.failures[f"{precision}: start"] = " | ".join(str(error).splitlines()[-3:])
                outcome.keep()
                continue
            try:
                figures: dict[str, Any] = {
                    "provider": sidecar.execution_provider,
                    "workers": int(sidecar.says["workers"]),
                }
                loaded = gpu_memory(tree_of(sidecar.process.process.pid))
                figures["single"] = _single(job, sidecar.address, senders)
                # Not before: a sidecar that merely started is nothing measured.
                outcome.figures[precision] = figures
                outcome.keep()
                figures["batches"] = [_batches(job, sidecar, callers, size) for size in job.plan.batches]
                figures["gpu_memory"] = memory_figures(before, loaded, gpu_memory(tree_of(sidecar.process.process.pid)))
                failed = added([figures["single"]["failures"], *(each["failures"] for each in figures["batches"])])
                if failed:
                    outcome.failures[f"{precision}: calls"] = f"failed calls: {failed}"
            except ProcessError as error:
                outcome.failures[f"{precision}: calls"] = reason(error)
            finally:
                sidecar.process.close()
                outcome.keep()


def _single(job: Job, address: str, senders: Sequence[LineProcess]) -> dict[str, Any]:
    begin_s = time.monotonic() + LEAD_S
    counted_s = begin_s + job.plan.warm_up_s
    end_s = counted_s + job.plan.calls_s
    for number, sender in enumerate(senders):
        arrivals = ArrivalsJob(address, job.plan.calls_per_s / len(senders), begin_s, counted_s, end_s, number)
        sender.say(json.dumps(dataclasses.asdict(arrivals)))
    answers = [Arrivals(**json.loads(sender.line(end_s - begin_s + GRACE_S))) for sender in senders]
    took_ms = [each for answer in answers for each in answer.took_ms]
    late_ms = [each for answer in answers for each in answer.late_ms]
    return {
        "calls_per_s": job.plan.calls_per_s,
        "answered_calls": len(took_ms),
        "p50_ms": percentile(took_ms, 50),
        "p99_ms": percentile(took_ms, 99),
        "max_ms": max(took_ms, default=None),
        "sent_late_p99_ms": percentile(late_ms, 99),
        "caller_processes": len(senders),
        "failures": added([answer.failures for answer in answers]),
    }


def _batches(job: Job, sidecar: ServedSidecar, callers: Sequence[Contender], prompts_per_call: int) -> dict[str, Any]:
    callers = callers[: job.plan.batch_callers]
    begin_s = time.monotonic() + LEAD_S + job.plan.warm_up_s
    end_s = begin_s + job.plan.calls_s
    for number, caller in enumerate(callers):
        share = job.plan.batch_callers // len(callers) + (number < job.plan.batch_callers % len(callers))
        # Far from each other in the list, so that two processes do not send the same prompts at the same time.
        first = number * 97 * prompts_per_call
        caller.give(CallsJob(sidecar.address, "asyncio", share, prompts_per_call, False, begin_s, end_s, first))
    measured = measure([caller.take(end_s - time.monotonic()) for caller in callers])
    return {
        "prompts_per_call": prompts_per_call,
        "callers": job.plan.batch_callers,
        "prompts_per_s": measured.prompts_per_s,
        "p50_ms": measured.p50_ms,
        "p99_ms": measured.p99_ms,
        "failures": measured.failures,
    }


def memory_figures(before: GpuMemory | None, loaded: GpuMemory | None, after: GpuMemory | None) -> dict[str, Any] | None:
    """MiB, of the process as nvidia-smi knows it and by what the whole device's use grew; None without nvidia-smi."""
    if before is None or loaded is None or after is None:
        return None
    return {
        "process_loaded_mib": loaded.process_mib,
        "process_after_load_mib": after.process_mib,
        "device_growth_loaded_mib": _growth_mib(before, loaded),
        "device_growth_after_load_mib": _growth_mib(before, after),
    }


def _growth_mib(before: GpuMemory, after: GpuMemory) -> float | None:
    return None if before.device_mib is None or after.device_mib is None else after.device_mib - before.device_mib
