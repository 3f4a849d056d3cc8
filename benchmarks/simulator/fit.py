"""How long a step takes, and what lies between client and engine: found in real runs by least squares.

Runs that kept their requests tell all of it, see fit_requests. Where too few did, there are figures alone; since their steps were
padded to one length, that length is what can be found, through the simulator.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.simulator.figures import simulated_figures
from benchmarks.simulator.fit_requests import around_times_ms, fit_requests
from benchmarks.simulator.recorded import RealRun
from benchmarks.simulator.simulate import Run, simulate
from benchmarks.simulator.step_model import StepModel

FITTED_FIGURES = ("duration_s", "e2e_mean_s", "e2e_p90_s", "ttft_mean_s", "per_token_mean_ms", "per_token_p90_ms")
"""Sums and high percentiles: a maximum is one request's fate, and a median of waiting times jumps."""

USUAL_AROUND_MS = 10.0
"""From the client to the engine and back, when no requests were kept: what was found in runs that kept them, on the same machine."""

COARSE, FINE = 0.005, 0.001
"""Between two lengths of a step that are tried, as a share, at first and around the best one. Tried and not descended to: a figure
jumps when a tick changes the order, so that there is a valley at every corner."""

SHORTER, LONGER = 0.02, 0.08
"""How far from the median step of the runs it is looked for. A late step is far above the median, an early one hardly below."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """around_ms: from the client to the engine and back. fitted_from: what the runs told it by."""

    step_model: StepModel
    around_ms: float
    fitted_from: Literal["requests", "figures"]


def run_with(fitted: Fitted, real: RealRun) -> Run:
    """The same requests, simulated."""
    setup = dataclasses.replace(real.setup, step_model=fitted.step_model, before_ms=fitted.around_ms)
    return simulate(setup, real.requests, real.estimates)


def telling(runs: Sequence[RealRun]) -> list[RealRun]:
    """Those that a fit is made from: the ones that kept their requests, or all when too few did.

    Single requests tell how long a step takes in the company that they had, and of crowded steps alone nobody learns what an empty one
    takes. So each load must have a run that kept them.
    """
    kept = [run for run in runs if run.kept is not None]
    return kept if {run.load for run in kept} == {run.load for run in runs} else list(runs)


def fitted_on(runs: Sequence[RealRun]) -> Fitted:
    """From the single requests of those that kept them, from figures when too few did. All of one engine's settings."""
    telling_runs = telling(runs)
    kept = [(run.kept, run.setup.hook.ask_ms) for run in telling_runs if run.kept is not None]
    if len(kept) < len(telling_runs):
        return _from_figures(telling_runs)
    step_model = fit_requests([requests for requests, _ in kept])
    slots = runs[0].setup.engine.max_num_seqs
    around_ms = [time - ask_ms for requests, ask_ms in kept for time in around_times_ms(requests, slots, step_model)]
    return Fitted(step_model, max(statistics.median(around_ms), 0.0) if around_ms else USUAL_AROUND_MS, "requests")


def _from_figures(runs: Sequence[RealRun]) -> Fitted:
    """The step that brings FITTED_FIGURES of the runs closest, as ratios."""

    def squares(fitted: Fitted) -> float:
        total = 0.0
        for real in runs:
            figures = simulated_figures(run_with(fitted, real), fitted.step_model)
            total += sum(math.log(figures[name] / real.figures[name]) ** 2 for name in FITTED_FIGURES)
        return total

    def best_of(lengths_ms: Iterable[float]) -> Fitted:
        return min((Fitted(StepModel(length_ms), USUAL_AROUND_MS, "figures") for length_ms in lengths_ms), key=squares)

    middle_ms = sum(real.figures["step_p50_ms"] for real in runs) / len(runs)
    coarse = best_of(middle_ms * (1 + COARSE * place) for place in range(-round(SHORTER / COARSE), round(LONGER / COARSE) + 1))
    around = round(COARSE / FINE)
    return best_of(coarse.step_model.constant_ms * (1 + FINE * place) for place in range(-around, around + 1))
