"""From runs to rows: the seeds of one method on one set become one row with an interval that holds the luck of the seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.quality.results import Result
from trainer.errors import DataError
from trainer.intervals import tau_interval_over_seeds

_MEANS = ("pair_accuracy", "filtered_pair_accuracy")
_COSTS = ("validation_tau", "train_seconds", "train_cpu_seconds", "encoder_forwards")


def rows_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per experiment, data set and method, in the order of the results."""
    return [_row(seeds) for seeds in _grouped(results)]


def transfers_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row per method, set it learned from and set it was judged on besides its own; intervals are means over seeds."""
    rows = []
    for seeds in _grouped(results):
        first = seeds[0].figures
        for name in first.get("transfer") or {}:
            judged = [seed.figures["transfer"][name] for seed in seeds]
            figures = ("tau", "tau_low", "tau_high", *_MEANS)
            rows.append(
                {
                    **{key: first[key] for key in ("experiment", "method", "model")},
                    "trained_on": first["dataset"],
                    "tested_on": name,
                    "seeds": len(seeds),
                    "prompts": judged[0]["prompts"],
                    **{key: _mean([each[key] for each in judged]) for key in figures},
                    "own_tau": _mean(
                        [each.get("own_tau", seed.figures["tau"]) for each, seed in zip(judged, seeds, strict=True)]
                    ),
                }
            )
    return rows


def _grouped(results: Sequence[Result]) -> list[list[Result]]:
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        key = (result.figures["experiment"], result.figures["dataset"], result.figures["method"])
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _row(seeds: Sequence[Result]) -> dict[str, Any]:
    first = seeds[0].figures
    if any(seed.figures["prompts"] != first["prompts"] for seed in seeds):
        raise DataError(f"{seeds[0].name}: its seeds were judged on different numbers of prompts")
    low, high = _interval(seeds)
    ceiling = first.get("ceiling") or {}
    return {
        **{key: first[key] for key in ("experiment", "dataset", "model", "method")},
        "kind": first.get("kind", "encoder"),
        "seeds": len(seeds),
        "tau": _mean([seed.figures["tau"] for seed in seeds]),
        "tau_low": low,
        "tau_high": high,
        **{key: _mean([seed.figures[key] for seed in seeds]) for key in _MEANS},
        "min_gap": first["min_gap"],
        "recalibration": first.get("recalibration"),
        "ceiling": ceiling.get("value"),
        "ceiling_low": ceiling.get("low"),
        "ceiling_high": ceiling.get("high"),
        "ceiling_how": ceiling.get("how"),
        **{key: _mean([seed.figures[key] for seed in seeds]) if key in first else None for key in _COSTS},
        **{f"{part}_prompts": first["prompts"][part] for part in ("train", "validation", "test")},
    }


def _interval(seeds: Sequence[Result]) -> tuple[float, float]:
    if len(seeds) == 1:
        return seeds[0].figures["tau_low"], seeds[0].figures["tau_high"]
    scores, lengths = zip(*(seed.scores() for seed in seeds), strict=True)
    if any(not np.array_equal(each, lengths[0]) for each in lengths):
        raise DataError(f"{seeds[0].name}: its seeds were judged on different prompts")
    interval = tau_interval_over_seeds(scores, lengths[0])
    return interval.low, interval.high


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
