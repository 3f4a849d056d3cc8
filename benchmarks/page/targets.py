"""What bench_overhead and bench_vllm are to reach, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """name: in `ratios` of overhead.json. bound: to reach, or not to exceed where at_most."""

    name: str
    what: str
    bound: float
    at_most: bool = False

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


TARGETS = (
    Target("throughput_64_vs_limit", "64 callers, one prompt each: throughput / limit", 0.92),
    Target("throughput_stream64_vs_limit", "one stream, 64 calls in flight, as the hook has them: throughput / limit", 0.92),
    Target("throughput_batch32_vs_limit", "4 callers, 32 prompts each: throughput / limit", 0.97),
    Target("p50_1_vs_limit", "one caller: p50 / bare session, tokenisation included", 1.2, at_most=True),
    Target("lowest_throughput_vs_unbatched", "8, 64 or 256 callers, the lowest: throughput / the same, each prompt alone", 1.0),
    Target("throughput_64_vs_reference", "64 callers: throughput / reference-style server, both fp32", 4.0),
    Target("p99_64_vs_reference", "64 callers: p99 / reference-style server, both fp32", 0.1, at_most=True),
    Target("best_throughput_64_vs_reference", "the same with the best bundle: throughput", 12.0),
    Target("best_p99_64_vs_reference", "the same with the best bundle: p99", 0.1, at_most=True),
    Target("best_tau_loss", "what the best bundle loses of tau-b", 0.005, at_most=True),
    Target("cheap_p50_ms", "n-gram tier over a stream, one caller: p50 in ms", 0.3, at_most=True),
)

ON_VLLM = (
    Target("per_token_mean_fcfs_over_ours", "mean latency per token, first come over ours", 2.0),
    Target("oracle_gain_share", "share of the oracle's gain", 0.9),
    Target("p99_over_window", "end-to-end p99 above first come, in windows of 40 s", 1.0, at_most=True),
    Target("low_load_loss", "end-to-end mean at 0.3x, loss to first come", 0.01, at_most=True),
    Target("added_latency_share", "time held for a score, share of all time end to end", 0.01, at_most=True),
)
"""The same of bench_vllm, where a figure has a value for each load."""


def target_rows(document: Figures) -> list[list[str]]:
    """Of those that were measured or failed: what, median, range, target, whether it is met."""
    rows = []
    for target in TARGETS:
        if target.name not in document["ratios"]:
            continue
        value, span = document["ratios"][target.name], document["ratio_ranges"][target.name]
        wanted = f"{'≤' if target.at_most else '≥'} {target.bound:g}"
        if value is None:
            rows.append([target.what, "failed", "", wanted, "no"])
        else:
            low, high = map(shown, span)
            rows.append([target.what, shown(value), f"{low} to {high}", wanted, "yes" if target.is_met(value) else "no"])
    return rows


def target_rows_on_vllm(document: Figures) -> list[list[str]]:
    """For each load: what, load, median, range, target, whether it is met. None where nothing was measured."""
    rows = []
    for target in ON_VLLM:
        for load, (value, span) in _by_load(document, target.name).items():
            wanted = f"{'≤' if target.at_most else '≥'} {target.bound:g}"
            met = "" if value is None else "yes" if target.is_met(value) else "no"
            measured = "not measured" if value is None else shown(value)
            # One start has no range.
            several = "" if span is None or span[0] == span[-1] else " to ".join(map(shown, span))
            rows.append([target.what, load, measured, several, wanted, met])
    return rows


def _by_load(document: Figures, name: str) -> dict[str, tuple[float | None, Sequence[float] | None]]:
    if name in document["ratios"]:
        value, span = document["ratios"][name], document["ratio_ranges"][name]
        return {load: (value[load], span[load]) for load in value} if isinstance(value, Mapping) else {"0.3": (value, span)}
    ours = [row for row in document["rows"] if row["arm"] == "ours" and name in row]
    return {row["load"]: (row[name][0], row[name][1:]) for row in ours}


def shown(value: float) -> str:
    """Three digits, more for what is large."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
