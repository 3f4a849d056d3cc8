"""How far the simulator is off: each real run against itself simulated, with a step model that was fitted on other runs alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.report import aligned
from benchmarks.simulator.figures import simulated_figures
from benchmarks.simulator.fit import Fitted, fitted_on, run_with, telling
from benchmarks.simulator.recorded import RealRun

TARGET = 0.10

COMPARED_FIGURES = (
    "duration_s",
    "output_tokens_per_s",
    "most_in_flight",
    "e2e_mean_s",
    "e2e_p50_s",
    "e2e_p90_s",
    "e2e_p99_s",
    "e2e_max_s",
    "per_token_mean_ms",
    "per_token_p50_ms",
    "per_token_p90_ms",
    "per_token_p99_ms",
    "per_token_max_ms",
    "ttft_mean_s",
    "ttft_p50_s",
    "ttft_p90_s",
    "ttft_p99_s",
    "longest_wait_s",
    "step_p50_ms",
)
QUEUE_FIGURES = {"queue_mean": "waiting_mean", "queue_max": "waiting_max"}
"""As they are called here → in a real run, which looks at vLLM's queue once a second. The simulator misses no moment: its deepest queue
may well be deeper."""

SHOWN = (
    "duration_s",
    "e2e_mean_s",
    "e2e_p90_s",
    "per_token_mean_ms",
    "per_token_p90_ms",
    "ttft_mean_s",
    "longest_wait_s",
    *QUEUE_FIGURES,
)

Errors = Mapping[str, float]


def validated(runs: Sequence[RealRun]) -> dict[str, Any]:
    """Each run's row, and their summary."""
    fits: dict[tuple[str, ...], Fitted] = {}
    rows = []
    for run in runs:
        others = fitting_runs(run, runs)
        names = tuple(each.name for each in others)
        if names and names not in fits:
            fits[names] = fitted_on(others)
        if names:
            rows.append(_row(run, fits[names], names))
    return {
        "target": TARGET,
        "rows": rows,
        "summary": summary_of([row["error"] for row in rows]),
        "summary_fitted_on_itself": summary_of([row["fitted_on_itself"]["error"] for row in rows]),
        "left_out": {run.name: "no other run to fit on" for run in runs if not fitting_runs(run, runs)},
    }


def fitting_runs(run: RealRun, runs: Sequence[RealRun]) -> list[RealRun]:
    """The runs of the same report with other requests, that is of other repetitions; where there are none, all other runs. Of these
    the ones that a fit takes something from."""
    others = [each for each in runs if each.report == run.report and each is not run]
    others = [each for each in others if each.repetition != run.repetition] or others
    return telling(others)


def errors_of(real: Mapping[str, Any], simulated: Mapping[str, Any]) -> dict[str, float]:
    """figure → simulated / real - 1. Of the queue only where there was one."""
    queued = (name for name in QUEUE_FIGURES if real.get(name))
    return {name: simulated[name] / real[name] - 1 for name in (*COMPARED_FIGURES, *queued)}


def summary_of(errors: Sequence[Errors]) -> dict[str, Any]:
    """Over the rows that have a figure: the median size of its error, the largest, and the share of rows within TARGET."""
    found = {}
    for name in (*COMPARED_FIGURES, *QUEUE_FIGURES):
        sizes = np.abs([row[name] for row in errors if name in row])
        if len(sizes):
            found[name] = {
                "median": float(np.median(sizes)),
                "largest": float(sizes.max()),
                "within_target": float(np.mean(sizes <= TARGET)),
            }
    return found


def errors_table(validation: Mapping[str, Any]) -> list[str]:
    """Lines: the errors of each row in per cent, for people."""
    lines = [
        (
            row["name"],
            f"{row['fitted'].step_model.constant_ms:.2f}",
            *(f"{100 * row['error'][name]:+.1f}" if name in row["error"] else "" for name in SHOWN),
        )
        for row in validation["rows"]
    ]
    return aligned(("simulated against real, %", "step ms", *SHOWN), lines)


def _row(run: RealRun, fitted: Fitted, fitted_names: Sequence[str]) -> dict[str, Any]:
    """fitted_on_itself is no validation: it tells a machine whose steps took longer in this run from an order that is not the engine's."""
    real = {name: run.figures[name] for name in (*COMPARED_FIGURES, "preemptions", "step_p99_ms")}
    real |= {name: run.figures.get(theirs) for name, theirs in QUEUE_FIGURES.items()}
    simulated, own = _simulated(run, fitted), fitted_on([run])
    return {
        "name": run.name,
        "fitted_on": list(fitted_names),
        "fitted": fitted,
        "error": errors_of(real, simulated),
        "real": real,
        "simulated": {name: simulated[name] for name in (*COMPARED_FIGURES, "preemptions", *QUEUE_FIGURES)},
        "fitted_on_itself": {"fitted": own, "error": errors_of(real, _simulated(run, own))},
    }


def _simulated(run: RealRun, fitted: Fitted) -> Mapping[str, Any]:
    return simulated_figures(run_with(fitted, run), fitted.step_model)
