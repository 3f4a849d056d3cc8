"""A vLLM plugin used only for measuring on a small shared machine: steps of equal length, and waiting without spinning.

Unpaced, the engine's processes spin while they wait for each other, and so fight each other, the sidecar and the client for the
cores. Here a step takes `PARS_BENCH_STEP_MS`, unless the machine is too busy for that, and readers sleep. What is measured then is
the order of the requests, not the speed of the model. Every report of such a run says so, and gives the steps' percentiles: where
p99 is far above the median, the machine was too busy and the run says nothing.

Runs in vLLM's environment: standard library only, vLLM's own modules when it is called. `plugin_folder` writes what makes vLLM load
it from a folder on PYTHONPATH, so that nothing is installed.
"""

import importlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

STEP_VARIABLE = "PARS_BENCH_STEP_MS"
"""Milliseconds each step of the worker takes at least. 0: as long as it takes."""

MODULE = "pars_bench_pacing"

READER_SLEEP_S = 0.0005
"""Between two looks at the shared memory: far below a step, and next to no CPU."""

CATCH_UP_SHARE = 0.25
"""Of a step. A pause up to this long between two steps is taken off the next one, so that the rate stays what it is meant to be."""


def install() -> None:
    """The entry point, called in each of vLLM's processes. Twice is harmless."""
    shared_memory: Any = importlib.import_module("vllm.distributed.device_communicators.shm_broadcast")
    worker: Any = importlib.import_module("vllm.v1.worker.worker_base")
    if hasattr(worker.WorkerWrapperBase, "sample_tokens"):
        return
    shared_memory.sched_yield = lambda: time.sleep(READER_SLEEP_S)
    pace(worker.WorkerWrapperBase, float(os.environ[STEP_VARIABLE]) / 1000)


def pace(wrapper: Any, step_s: float) -> None:
    """Make each step of a worker last `step_s` seconds: from `execute_model` to the end of `sample_tokens`."""
    execute_model = wrapper.execute_model
    began_s = ended_s = 0.0

    def execute(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal began_s
        began_s = time.monotonic()
        return execute_model(self, *arguments, **named)

    # The class has no such method, it passes on to its worker.
    def sample(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal ended_s
        output = self.worker.sample_tokens(*arguments, **named)
        follows = began_s - ended_s <= CATCH_UP_SHARE * step_s
        due_s = (ended_s if follows else began_s) + step_s
        now_s = time.monotonic()
        time.sleep(max(0.0, due_s - now_s))
        # When it was due, not when it woke up: small delays must not add up.
        ended_s = max(due_s, now_s)
        return output

    wrapper.execute_model = execute
    wrapper.sample_tokens = sample


def plugin_folder(folder: Path) -> Path:
    """Write the plugin into `folder`, to be put on PYTHONPATH; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(__file__, folder / f"{MODULE}.py")
    about = folder / f"{MODULE}-0.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{MODULE} = {MODULE}:install\n", encoding="utf-8")
    return folder
