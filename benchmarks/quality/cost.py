"""How much training our method needs to be as good as the reference: read off the two histories of one experiment, data set and seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.quality.results import Result

REFERENCE, OURS = "reference", "ours"
"""The reference is set beside every other encoder of the same experiment, data set and seed; the ratios are those of `OURS`."""

EXPERIMENT = "cost"
"""Where there is such an experiment, only its runs are compared: it evaluates often, so that the time is known well."""

Point = Mapping[str, float]
Curve = list[list[float]]


@dataclass(frozen=True)
class SideBySide:
    """tau: the best validation tau-b of the reference. The method reaches it at the first evaluation that is as good; None: never.

    …cpu_seconds, …forwards: CPU time of training and prompts encoded up to the reference's best evaluation, and up to that of the method.
    whole_cpu_seconds: of the reference's whole training, which has to end before it is known which evaluation was the best.
    curves: [CPU seconds, encoded prompts, validation tau-b] of every evaluation.
    """

    experiment: str
    dataset: str
    method: str
    seed: int
    tau: float
    reference_cpu_seconds: float
    reference_forwards: float
    whole_cpu_seconds: float
    cpu_seconds: float | None
    forwards: float | None
    time_ratio: float | None
    whole_time_ratio: float | None
    reference_curve: Curve
    curve: Curve


def side_by_side(results: Sequence[Result]) -> list[SideBySide]:
    """One per experiment, data set, seed and method other than the reference, in the order of the results."""
    trained = [result.figures for result in results if result.figures.get("history")]
    reference_of = {_key(figures): figures for figures in trained if figures["method"] == REFERENCE}
    compared = [
        _compare(reference_of[_key(figures)], figures)
        for figures in trained
        if figures["method"] != REFERENCE and _key(figures) in reference_of
    ]
    return [each for each in compared if each.experiment == EXPERIMENT] or compared


def cost_json(compared: Sequence[SideBySide]) -> list[dict[str, Any]]:
    return [asdict(each) for each in compared]


def cost_ratios(compared: Sequence[SideBySide]) -> dict[str, float | None]:
    """Of `OURS`: medians over data sets and seeds, and how many there are. A run that never reaches the reference counts as infinitely
    slow; a median among those is null.

    time_to_reference_tau: CPU seconds until our validation tau-b is the reference's best, over the reference's CPU seconds at its best.
    time_to_reference_tau_of_whole: the same over the CPU seconds of the reference's whole training.
    reference_forwards_over_ours: encoded prompts, the other way round: how many times more the reference encodes.
    """
    compared = [each for each in compared if each.method == OURS]
    if not compared:
        return {}
    times = [math.inf if each.time_ratio is None else each.time_ratio for each in compared]
    whole = [math.inf if each.whole_time_ratio is None else each.whole_time_ratio for each in compared]
    # The median of the inverse, so that never is infinite here as well.
    forwards = [math.inf if each.forwards is None else each.forwards / each.reference_forwards for each in compared]
    return {
        "time_to_reference_tau": _finite(median(times)),
        "time_to_reference_tau_best": _finite(min(times)),
        "time_to_reference_tau_worst": _finite(max(times)),
        "time_to_reference_tau_of_whole": _finite(median(whole)),
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


def _compare(reference: Mapping[str, Any], other: Mapping[str, Any]) -> SideBySide:
    best = best_point(reference["history"])
    reached = first_reaching(other["history"], best["validation_tau_b"])
    seconds = reached["train_cpu_seconds"] if reached else None
    whole = reference["history"][-1]["train_cpu_seconds"]
    return SideBySide(
        experiment=reference["experiment"],
        dataset=reference["dataset"],
        method=other["method"],
        seed=reference["seed"],
        tau=best["validation_tau_b"],
        reference_cpu_seconds=best["train_cpu_seconds"],
        reference_forwards=best["encoded_prompts"],
        whole_cpu_seconds=whole,
        cpu_seconds=seconds,
        forwards=reached["encoded_prompts"] if reached else None,
        time_ratio=None if seconds is None else seconds / best["train_cpu_seconds"],
        whole_time_ratio=None if seconds is None else seconds / whole,
        reference_curve=_curve(reference["history"]),
        curve=_curve(other["history"]),
    )


def _curve(history: Sequence[Point]) -> Curve:
    return [[point["train_cpu_seconds"], point["encoded_prompts"], point["validation_tau_b"]] for point in history]


def _key(figures: Mapping[str, Any]) -> tuple[str, str, int]:
    return figures["experiment"], figures["dataset"], figures["seed"]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None
