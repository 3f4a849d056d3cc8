"""What arrives in a study: published traces of production services, or made-up requests where the files are not there.

The traces have arrivals and token counts and no prompts, so a ranker is simulated too (rankers.ranker_of_tau).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulator.arrivals import from_rates, poisson
from benchmarks.simulator.request import Request

Workload = Callable[[int], Sequence[Request]]
"""Requests, made when called with a seed."""

TRACES = ("azure2023_conv", "azure2023_code", "mooncake_conversation")

MADE_UP_MEDIAN_TOKENS, MADE_UP_SIGMA = (300, 100), (1.2, 0.9)
"""Of prompts and responses: lognormal, not far from what chat services see."""

SERVEGEN_MODELS = ("deepseek-r1", "m-large")
SERVEGEN_HOURS = (14, 16)
"""Of the first day: working hours, in which the rate changes from window to window."""
SERVEGEN_WINDOW_S = 600.0


def made_up(count: int, seed: int = 0) -> list[Request]:
    """Poisson arrivals, one a second on average; lognormal lengths."""
    rng = np.random.default_rng(seed)
    prompt, response = (
        np.maximum(rng.lognormal(np.log(median), sigma, count), 1).astype(int)
        for median, sigma in zip(MADE_UP_MEDIAN_TOKENS, MADE_UP_SIGMA, strict=True)
    )
    times_ms = poisson(count, 1.0, seed + 1)
    return [Request(*row) for row in zip(times_ms, prompt.tolist(), response.tolist(), strict=True)]


def trace(path: Path, count: int, seed: int = 0) -> list[Request]:
    """The first `count` requests of a file with arrival_s, prompt_tokens and response_tokens. Nothing of them is drawn: the same ones for
    every seed."""
    rows = _columns(path, ("arrival_s", "prompt_tokens", "response_tokens"))
    return [
        Request(1000 * arrival_s, max(int(prompt), 1), max(int(response), 1))
        for arrival_s, prompt, response in list(zip(*rows, strict=True))[:count]
    ]


def servegen(wanted_model: str, rates: Path, lengths: Path, count: int, seed: int = 0) -> list[Request]:
    """Arrivals drawn from the published rates, the same share of them everywhere, so that about `count` come; lengths drawn from the
    published distributions, prompt and response independently, since how they belong together is not published."""
    start_s, end_s = (hour * 3600.0 for hour in SERVEGEN_HOURS)
    model, window_s, rate = _columns(rates, ("model", "window_start_s", "requests_per_s"))
    chosen = [
        float(each)
        for name, begin_s, each in zip(model, window_s, rate, strict=True)
        if name == wanted_model and start_s <= begin_s < end_s
    ]
    share = count / (sum(chosen) * SERVEGEN_WINDOW_S)
    times_ms = from_rates([share * each for each in chosen], SERVEGEN_WINDOW_S, seed)
    rng = np.random.default_rng(seed + 1)
    drawn = []
    model, field, value, weight = _columns(lengths, ("model", "field", "value", "requests"))
    for wanted in ("input_tokens", "output_tokens"):
        rows = [(v, w) for m, f, v, w in zip(model, field, value, weight, strict=True) if (m, f) == (wanted_model, wanted)]
        values, weights = (np.asarray(column, dtype=float) for column in zip(*rows, strict=True))
        drawn.append(np.maximum(rng.choice(values, len(times_ms), p=weights / weights.sum()), 1).astype(int))
    return [Request(*row) for row in zip(times_ms, drawn[0].tolist(), drawn[1].tolist(), strict=True)]


def workloads(folder: Path | None, count: int) -> Mapping[str, Workload]:
    """By name: those of a folder with the traces; without, made-up ones."""
    if folder is None:
        return {"made up": functools.partial(made_up, count)}
    rates, lengths = (folder / f"trace_servegen_{kind}.parquet" for kind in ("rates", "lengths"))
    return {
        **{f"servegen {model}": functools.partial(servegen, model, rates, lengths, count) for model in SERVEGEN_MODELS},
        **{name: functools.partial(trace, folder / f"trace_{name}.parquet", count) for name in TRACES},
    }


def at_rate(requests: Sequence[Request], requests_per_s: float) -> list[Request]:
    """The same requests with all their times stretched or squeezed alike, to this rate on average."""
    span_ms = requests[-1].arrival_ms - requests[0].arrival_ms
    stretch = 1000 * (len(requests) - 1) / requests_per_s / span_ms
    first_ms = requests[0].arrival_ms
    return [dataclasses.replace(each, arrival_ms=stretch * (each.arrival_ms - first_ms)) for each in requests]


def _columns(path: Path, names: Sequence[str]) -> list[list[Any]]:
    import pyarrow.parquet as parquet  # slow to import, and not needed for the rest

    table = parquet.read_table(path, columns=list(names))
    return [table[name].to_pylist() for name in names]
