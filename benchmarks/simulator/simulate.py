"""Requests through hooks and engines: one engine, or a fleet behind a balancer. Deterministic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.simulator.disciplines import Discipline, StaticPriority
from benchmarks.simulator.engine import Engine
from benchmarks.simulator.engine_settings import EngineSettings
from benchmarks.simulator.hook import Hook
from benchmarks.simulator.job import Job
from benchmarks.simulator.request import Estimate, Outcome, Request
from benchmarks.simulator.step_model import StepModel, milliseconds, ticks
from vllm_client.hook.backlog import Backlog

Balancer = Literal["round-robin", "least-loaded"]


@dataclass(frozen=True, slots=True)
class Setup:
    """What serves the requests. before_ms: from the client to the engine and back: HTTP, tokenizing, a busy machine.

    Each engine has an API server, and so a hook, of its own.
    """

    engine: EngineSettings
    step_model: StepModel
    discipline: Discipline = field(default_factory=StaticPriority)
    hook: Hook = field(default_factory=Hook)
    engines: int = 1
    balancer: Balancer = "round-robin"
    before_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """outcomes: in the order of the requests. steps and preemptions: of all engines. deepest_queue: of any engine."""

    outcomes: tuple[Outcome, ...]
    steps: int
    preemptions: int
    deepest_queue: int


def simulate(
    setup: Setup, requests: Sequence[Request], estimates: Sequence[Estimate | None] | None = None, *, fast_forward: bool = True
) -> Run:
    """Send the requests at their times; they must be in the order of arrival. Raises ValueError for one that fits into no engine."""
    engines = [
        Engine(setup.engine, setup.step_model, setup.discipline, fast_forward=fast_forward) for _ in range(setup.engines)
    ]
    backlogs = {engine: Backlog(setup.engine.max_num_seqs) for engine in engines}
    choose = _round_robin(engines) if setup.balancer == "round-robin" else _least_loaded(engines)
    jobs = []
    for index, request in enumerate(requests):
        estimate = None if estimates is None else estimates[index]
        arrival = ticks(request.arrival_ms)
        engine = choose(arrival)
        engine.run_until(arrival)
        before = engine.unfinished(arrival)
        backlog_ms = backlogs[engine].arrived(before, 1, request.arrival_ms / 1000)
        priority, held_ms = setup.hook.place(request, estimate, before + 1, backlog_ms)
        jobs.append(Job(index, request, priority, estimate, ticks(request.arrival_ms + setup.before_ms + held_ms)))
        engine.submit(jobs[-1])
    for engine in engines:
        engine.run_until(None)
    return Run(
        outcomes=tuple(_outcome(job) for job in jobs),
        steps=sum(engine.steps for engine in engines),
        preemptions=sum(engine.preemptions for engine in engines),
        deepest_queue=max(engine.deepest_queue for engine in engines),
    )


def _round_robin(engines: Sequence[Engine]) -> Callable[[int], Engine]:
    turn = 0

    def choose(arrival: int) -> Engine:
        nonlocal turn
        turn += 1
        return engines[(turn - 1) % len(engines)]

    return choose


def _least_loaded(engines: Sequence[Engine]) -> Callable[[int], Engine]:
    def choose(arrival: int) -> Engine:
        for engine in engines:
            engine.run_until(arrival)
        return min(engines, key=lambda engine: engine.unfinished(arrival))

    return choose


def _outcome(job: Job) -> Outcome:
    assert job.first_token is not None, "bug in ours: a request was lost"
    assert job.finished is not None, "bug in ours: a request was lost"
    return Outcome(
        request=job.request,
        first_token_ms=milliseconds(job.first_token),
        finished_ms=milliseconds(job.finished),
        queued_ms=milliseconds(job.queued),
        preemptions=job.preemptions,
    )
