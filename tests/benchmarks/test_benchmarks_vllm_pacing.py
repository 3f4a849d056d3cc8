"""Padded steps of the benchmarks on a real vLLM, at a clock that only passes when told."""

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.bench_vllm import pacing


class Clock:
    """Time that only passes when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pacing, "time", made)
    return made


def paced_step(clock: Clock, step_s: float) -> Callable[[float], float]:
    """A step of a paced worker: seconds of work → when it ended."""

    class Wrapper:
        worker = SimpleNamespace(sample_tokens=lambda grammar: f"sampled {grammar}")

        def execute_model(self, work_s: float) -> str:
            clock.now_s += work_s
            return "executed"

    pacing.pace(Wrapper, step_s)
    wrapper: Any = Wrapper()

    def step(work_s: float) -> float:
        assert wrapper.execute_model(work_s) == "executed"
        assert wrapper.sample_tokens("grammar") == "sampled grammar"
        return clock.now_s

    return step


def test_steps_follow_each_other_at_the_padded_rate(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    assert step(0.003) == pytest.approx(100.020)
    clock.now_s += 0.002  # between two steps
    assert step(0.003) == pytest.approx(100.040)
    clock.now_s += 0.004
    assert step(0.015) == pytest.approx(100.060)


def test_a_step_after_a_pause_is_a_whole_one(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    step(0.003)
    clock.now_s += 5.0
    assert step(0.001) == pytest.approx(105.040)


def test_a_step_that_takes_longer_is_not_made_up_for(clock: Clock) -> None:
    step = paced_step(clock, 0.020)
    assert step(0.050) == pytest.approx(100.050)
    assert step(0.001) == pytest.approx(100.070)


def test_no_padding_takes_no_time(clock: Clock) -> None:
    step = paced_step(clock, 0.0)
    assert step(0.003) == pytest.approx(100.003)
    assert step(0.004) == pytest.approx(100.007)


def test_the_plugin_is_found_in_its_folder_and_installs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WorkerWrapperBase:
        def execute_model(self) -> str:
            return "executed"

    shared_memory = SimpleNamespace(sched_yield=None)
    monkeypatch.setitem(sys.modules, "vllm.distributed.device_communicators.shm_broadcast", shared_memory)
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.worker_base", SimpleNamespace(WorkerWrapperBase=WorkerWrapperBase))
    monkeypatch.setenv(pacing.STEP_VARIABLE, "20")
    folder = pacing.plugin_folder(tmp_path / "plugin")
    monkeypatch.syspath_prepend(folder)
    (found,) = importlib.metadata.entry_points(group="vllm.general_plugins", name=pacing.MODULE)
    install = found.load()
    install()
    wrapped = WorkerWrapperBase.execute_model
    install()
    assert WorkerWrapperBase.execute_model is wrapped
    assert shared_memory.sched_yield is not None
