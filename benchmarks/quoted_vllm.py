"""The figures about vLLM that README and docs/vllm.md quote, as Markdown. See quoted.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Figures = Mapping[str, Any]

_ARMS = {
    "equal": "first come, first served (`equal`)",
    "ours": "the shipped ranker",
    "ours-ngram": "its n-gram tier",
    "oracle": "recorded lengths (oracle)",
}
_FIGURES = {
    "per_token_mean_ms": ".0f",
    "per_token_p90_ms": ".0f",
    "per_token_max_ms": ".0f",
    "e2e_mean_s": ".1f",
    "e2e_p50_s": ".1f",
    "e2e_p90_s": ".1f",
    "e2e_p99_s": ".1f",
    "e2e_max_s": ".1f",
    "output_tokens_per_s": ".0f",
}
_COSTS = {
    "gated": "few in flight, nothing asked",
    "unconnected": "no sidecar",
    "scored": "scored, one at a time",
    "scored_32": "scored, 32 at a time",
}


def gain(load: Figures, more: str) -> list[str]:
    """Lines for README: what order brings under load. more: the document that says all."""
    ratio, settings = load["ratios_to_equal"]["ours"]["per_token_mean_ms"], load["settings"]
    starts = load["summary"]["ours"]["clean_engine_starts"]
    return [
        f"On a real vLLM (CPU, tiny model, recorded response lengths replayed, {settings['offered_load']:g} times what it can serve,",
        f"{settings['max_num_seqs']} sequences at a time), mean latency per token falls to {ratio[0]:.2f} of first come, first served",
        f"({ratio[1]:.2f} to {ratio[2]:.2f}, {starts} engine starts each). More, and what it costs the longest: [{more}]({more}).",
    ]


def attached(results: Figures) -> str:
    """docs/vllm.md: order under load, added latency without load, the hook's own cost."""
    lines = [
        *_under_load(results["vllm"]["load"]),
        "",
        *_at_low_load(results["vllm"]["low_load"]),
        "",
        *_own_cost(results["hook"]),
    ]
    lines += [
        "",
        "Machine, versions, commits and commands are in [vllm.json](../benchmarks/results/vllm.json) and",
        "[hook.json](../benchmarks/results/hook.json); `make bench-vllm` and `make bench-hook` measure them again. Two shared CPU",
        "cores: the ratios are what to keep.",
    ]
    return "\n".join(lines)


def _under_load(load: Figures) -> list[str]:
    settings, workload, summary = load["settings"], load["workloads"][0], load["summary"]
    lines = [
        f"Under load. {workload['requests']} requests of {workload['source'].partition(',')[0]} with their recorded response lengths, sent",
        f"by `vllm bench serve` at {settings['offered_load']:g} times what the engine can serve, {settings['max_num_seqs']} sequences at a",
        f"time, engine steps padded to {settings['step_ms']:g} ms, deadline {settings['deadline_ms']} ms (the encoder shares",
        f"two cores with everything else). Medians over {summary['equal']['clean_engine_starts']} engine starts of each row:",
        "",
        "| order | ms per token: mean | p90 | max | end to end, s: mean | p50 | p90 | p99 | max | tokens/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, label in _ARMS.items():
        if name in summary:
            cells = [format(summary[name][figure][0], shown) for figure, shown in _FIGURES.items()]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _at_low_load(low: Figures) -> list[str]:
    summary, starts = low["summary"], len(low["starts"])
    over = f"; lowest and highest over {starts} starts" if starts > 1 else ", one start of each"
    lines = [
        "Without load. Added end-to-end latency of a lone request, engines with and without the hook side by side: median of the",
        f"differences{over}. Without the hook such a request takes {summary['e2e_ms']['without'][0]:.0f} ms.",
        "",
        "| | added ms |",
        "|---|---|",
    ]
    for name, variant in low["variants"].items():
        if name in summary["added_ms"]:
            median, lowest, highest = summary["added_ms"][name]
            spread = f" ({lowest:.1f} to {highest:.1f})" if starts > 1 else ""
            lines.append(f"| {variant['what']} | {median:.1f}{spread} |")
    return lines


def _own_cost(hook: Figures) -> list[str]:
    lines = [
        "The hook's own cost for a request of 1 kB, with a ranker that answers at once, in microseconds. The time holds the round",
        "trip; the CPU time is the hook's process alone.",
        "",
        "| | time p50 | time p99 | CPU |",
        "|---|---|---|---|",
    ]
    rows = {row["name"]: row for row in hook["rows"]}
    for name, label in _COSTS.items():
        cells = [f"{rows[name][figure][0]:,.0f}" for figure in ("wall_p50_us", "wall_p99_us", "cpu_us")]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines
