"""What happened → figures: those of the real benchmark, made by its own code, and what only a simulation sees."""

from collections.abc import Mapping
from typing import Any

from benchmarks.bench_vllm.figures import figures_of
from benchmarks.measurement import percentile
from benchmarks.simulator.request import Outcome
from benchmarks.simulator.simulate import Run
from benchmarks.simulator.step_model import StepModel


def simulated_figures(run: Run, step_model: StepModel) -> dict[str, Any]:
    """`figures_of`, and:

    slowdown: time from end to end over the time on an engine that has nothing else to do. queue: requests waiting in the engine, mean
    over the time until the last is done. preemptions: of all requests together.
    """
    figures = figures_of(as_bench_result(run))
    slowdowns = [slowdown(outcome, step_model) for outcome in run.outcomes]
    return figures | {
        "slowdown_mean": sum(slowdowns) / len(slowdowns),
        "slowdown_p99": percentile(slowdowns, 99),
        "slowdown_max": max(slowdowns),
        "queue_mean": sum(outcome.queued_ms for outcome in run.outcomes) / (1000 * figures["duration_s"]),
        "queue_max": run.deepest_queue,
        "preemptions": run.preemptions,
        "steps": run.steps,
    }


def as_bench_result(run: Run) -> Mapping[str, Any]:
    """As `vllm bench serve` would have said it."""
    outcomes = run.outcomes
    # From the beginning of the clock, at which `vllm bench serve` begins to wait for the first arrival.
    duration_s = max(outcome.finished_ms for outcome in outcomes) / 1000
    tokens = [outcome.request.output_tokens for outcome in outcomes]
    return {
        "errors": [""] * len(outcomes),
        "latencies": [(outcome.finished_ms - outcome.request.arrival_ms) / 1000 for outcome in outcomes],
        "ttfts": [(outcome.first_token_ms - outcome.request.arrival_ms) / 1000 for outcome in outcomes],
        "output_lens": tokens,
        "duration": duration_s,
        "output_throughput": sum(tokens) / duration_s,
        "request_throughput": len(outcomes) / duration_s,
        "max_concurrent_requests": _most_at_a_time(run),
    }


def slowdown(outcome: Outcome, step_model: StepModel) -> float:
    """1 for a request that never waited for another. The token budget is left out of the time alone: its prompt is read at once."""
    request = outcome.request
    decoded = request.output_tokens - 1
    context = decoded * request.prompt_tokens + decoded * (decoded + 1) / 2
    alone_ms = (
        step_model.step_ms(1, request.prompt_tokens, 0)
        + decoded * step_model.step_ms(1, 0, 0)
        + step_model.per_context_token_ms * context
    )
    return (outcome.finished_ms - request.arrival_ms) / alone_ms


def _most_at_a_time(run: Run) -> int:
    """As vLLM counts: requests that were there in the same second, not necessarily at the same moment."""
    began_ms = min(outcome.request.arrival_ms for outcome in run.outcomes)
    changes: dict[int, int] = {}
    for outcome in run.outcomes:
        first = int((outcome.request.arrival_ms - began_ms) / 1000)
        last = int((outcome.finished_ms - began_ms) / 1000)
        changes[first] = changes.get(first, 0) + 1
        changes[last + 1] = changes.get(last + 1, 0) - 1
    most = there = 0
    for second in sorted(changes):
        there += changes[second]
        most = max(most, there)
    return most
