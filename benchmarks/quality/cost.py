"""How much training our method needs to be as good as the reference: read off the two histories of one experiment, data set and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.quality.results import Result

REFERENCE, OURS = "reference", "ours"
"""The methods that are set side by side wherever an experiment has both."""

Point = Mapping[str, float]
Curve = list[list[float]]


@dataclass(frozen=True)
class SideBySide:
    """tau: the best validation tau-b of the reference. Ours reaches it at the first evaluation that is as good; None: never.

    …_cpu_seconds, …_forwards: CPU time of training and prompts encoded up to the reference's best evaluation, and up to ours.
    curves: [CPU seconds, encoded prompts, validation tau-b] of every evaluation.
    """

    experiment: str
    dataset: str
    seed: int
    tau: float
    reference_cpu_seconds: float
    reference_forwards: float
    our_cpu_seconds: float | None
    our_forwards: float | None
    time_ratio: float | None
    reference_curve: Curve
    our_curve: Curve


def side_by_side(results: Sequence[Result]) -> list[SideBySide]:
    """One per experiment, data set and seed that has both methods."""
    by_run = {_key(result, result.figures["method"]): result.figures for result in results}
    return [
        _compare(result.figures, by_run[ours])
        for result in results
        if result.figures["method"] == REFERENCE and (ours := _key(result, OURS)) in by_run
    ]


def cost_json(compared: Sequence[SideBySide]) -> list[dict[str, Any]]:
    return [asdict(each) for each in compared]


def cost_ratios(compared: Sequence[SideBySide]) -> dict[str, float | None]:
    """Medians over data sets and seeds, and how many there are. A run that never reaches the reference counts as infinitely slow;
    a median among those is null.

    time_to_reference_tau: CPU seconds until our validation tau-b is the reference's best, over the reference's CPU seconds at its best.
    reference_forwards_over_ours: encoded prompts, the other way round: how many times more the reference encodes.
    """
    if not compared:
        return {}
    times = [math.inf if each.time_ratio is None else each.time_ratio for each in compared]
    # The median of the inverse, so that never is infinite here as well.
    forwards = [math.inf if each.our_forwards is None else each.our_forwards / each.reference_forwards for each in compared]
    return {
        "time_to_reference_tau": _finite(median(times)),
        "time_to_reference_tau_best": _finite(min(times)),
        "time_to_reference_tau_worst": _finite(max(times)),
        "reference_forwards_over_ours": _inverse(_finite(median(forwards))),
        "time_compared_runs": len(compared),
        "time_never_reached": sum(math.isinf(time) for time in times),
    }


def best_point(history: Sequence[Point]) -> Point:
    """The first evaluation with the highest validation tau-b."""
    return max(history, key=lambda point: point["validation_tau_b"])


def first_reaching(history: Sequence[Point], tau: float) -> Point | None:
    """The first evaluation that is at least as good."""
    return next((point for point in history if point["validation_tau_b"] >= tau), None)


def _compare(reference: Mapping[str, Any], ours: Mapping[str, Any]) -> SideBySide:
    best = best_point(reference["history"])
    reached = first_reaching(ours["history"], best["validation_tau_b"])
    return SideBySide(
        experiment=reference["experiment"],
        dataset=reference["dataset"],
        seed=reference["seed"],
        tau=best["validation_tau_b"],
        reference_cpu_seconds=best["train_cpu_seconds"],
        reference_forwards=best["encoded_prompts"],
        our_cpu_seconds=reached and reached["train_cpu_seconds"],
        our_forwards=reached and reached["encoded_prompts"],
        time_ratio=reached and reached["train_cpu_seconds"] / best["train_cpu_seconds"],
        reference_curve=_curve(reference["history"]),
        our_curve=_curve(ours["history"]),
    )


def _curve(history: Sequence[Point]) -> Curve:
    return [[point["train_cpu_seconds"], point["encoded_prompts"], point["validation_tau_b"]] for point in history]


def _key(result: Result, method: str) -> tuple[str, str, str, int]:
    return result.figures["experiment"], result.figures["dataset"], method, result.figures["seed"]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None
