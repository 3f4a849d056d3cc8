"""The figures that docs/simulator.md quotes, as Markdown: errors against real runs, and what is simulated. See quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.page.serving import simulated_ratio

Figures = Mapping[str, Any]

_ERRORS = {
    "duration_s": "duration",
    "e2e_mean_s": "end to end: mean",
    "e2e_p90_s": "p90",
    "per_token_mean_ms": "per token: mean",
    "per_token_p90_ms": "p90",
    "ttft_mean_s": "first token: mean",
    "longest_wait_s": "longest wait",
    "queue_mean": "queue: mean",
    "queue_max": "deepest",
}
_RATIOS = {
    "e2e_mean_s": "end to end: mean",
    "e2e_p90_s": "p90",
    "e2e_p99_s": "p99",
    "per_token_mean_ms": "per token: mean",
    "longest_wait_s": "longest wait",
}


def simulated(results: Figures) -> str:
    """docs/simulator.md."""
    document = results["simulator"]
    lines = _against_real_runs(document["validation"])
    for name, study in document["studies"].items():
        for workload, found in study["workloads"].items():
            lines += ["", *_study(name, workload, found)]
    return "\n".join([*lines, "", "All of it, with stamps: [simulator.json](../benchmarks/results/simulator.json)."])


def _against_real_runs(validation: Figures) -> list[str]:
    """A run that had no queue has empty cells; where no run had one, there are no columns for it."""
    columns = [figure for figure in _ERRORS if figure in validation["summary"]]
    lines = [
        "Simulated against real, in per cent; each row's step was fitted on other runs:",
        "",
        f"| run | step ms | {' | '.join(_ERRORS[figure] for figure in columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for row in validation["rows"]:
        errors = " | ".join(f"{100 * row['error'][figure]:+.1f}" if figure in row["error"] else "" for figure in columns)
        lines.append(f"| {row['name']} | {row['fitted']['step_model']['constant_ms']:.2f} | {errors} |")
    lines.append(_summary_line("median size", validation["summary"], "median"))
    lines.append(_summary_line("largest", validation["summary"], "largest"))
    lines.append(
        _summary_line("median size, each step fitted on the run itself", validation["summary_fitted_on_itself"], "median")
    )
    return lines


def _summary_line(label: str, summary: Figures, name: str) -> str:
    return f"| {label} | | {' | '.join(f'{100 * summary[figure][name]:.1f}' for figure in _ERRORS if figure in summary)} |"


def _study(name: str, workload: str, found: Figures) -> list[str]:
    first = found["rows"][0]
    seeds = found.get("seeds", 1)
    several = f", median of {seeds} seeds (lowest to highest)" if seeds > 1 else ""
    lines = [
        f"**{name}**, simulated: {workload}, {found['requests']:,.0f} requests of {found['prompt_tokens_mean']:,.0f} and",
        f"{found['output_tokens_mean']:,.0f} tokens on average. Ratios to first come, first served{several}:",
        "",
        f"| order | load | {' | '.join(_RATIOS.values())} | preemptions |",
        f"|---|---|{'---|' * len(_RATIOS)}---|",
    ]
    for row in found["rows"]:
        ratios = " | ".join(simulated_ratio(row, figure) for figure in _RATIOS)
        lines.append(f"| {row['order']} | {row['offered_load']:g} | {ratios} | {row['figures']['preemptions']:,.0f} |")
    absolute = first["figures"]
    lines += [
        "",
        f"First come, first served at load {first['offered_load']:g}: {absolute['e2e_mean_s']:.1f} s end to end on average,",
        f"{absolute['per_token_mean_ms']:.0f} ms per token, {absolute['queue_mean']:.0f} requests in the queue.",
    ]
    return lines
