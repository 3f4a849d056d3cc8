"""The figures about vLLM that README and docs/vllm.md quote, as Markdown. See quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bench_hook.labels import LABELS
from benchmarks.bench_vllm.arms import ARM_LABELS

Figures = Mapping[str, Any]

_FIGURES = {
    "per_token_mean_ms": ".0f",
    "per_token_p90_ms": ".0f",
    "e2e_mean_s": ".1f",
    "e2e_p50_s": ".1f",
    "e2e_p90_s": ".1f",
    "e2e_p99_s": ".1f",
    "ttft_mean_s": ".1f",
    "worst_slowdown": ".0f",
    "output_tokens_per_s": ".0f",
    "waiting_mean": ".0f",
}
_LOADS = ("0.3", "0.7", "1.0", "1.2", "1.5", "burst")
_COSTS = ("gated", "unconnected", "scored", "scored_32")


def gain(vllm: Figures, more: str) -> list[str]:
    """Lines for README: what order brings under load. more: the document that says all."""
    name = "per_token_mean_fcfs_over_ours"
    gains, ranges = vllm["ratios"][name], vllm["ratio_ranges"][name]
    starts = {row["load"]: row["starts"] for row in vllm["rows"] if row["arm"] == "ours"}
    shown = [
        f"{gains[load]:.1f} times lower ({_over(ranges[load], starts[load])}) at {float(load):g} times what it can serve"
        for load in gains
        if gains[load] is not None
    ]
    if not shown:
        return [f"What order brings a real vLLM has not been measured yet; [{more}]({more}) has what there is."]
    return [
        f"On a real vLLM (CPU, tiny model, recorded response lengths replayed, {vllm['settings']['max_num_seqs']} sequences at a time)",
        f"mean latency per token is {' and '.join(shown)}",
        f"than first come, first served. More, and what it costs the longest: [{more}]({more}).",
    ]


def attached(results: Figures) -> str:
    """docs/vllm.md: order under load, added latency without load, the hook's own cost."""
    vllm = results["vllm"]
    lines = [*_under_load(vllm), ""]
    if "low_load" in vllm:
        lines += [*_at_low_load(vllm["low_load"]), ""]
    lines += [
        *_own_cost(results["hook"]),
        "",
        "Machine, versions, commits and commands are in [vllm.json](../benchmarks/results/vllm.json) and",
        "[hook.json](../benchmarks/results/hook.json); `make bench-vllm` and `make bench-hook` measure them again. Two shared CPU",
        "cores: the ratios are what to keep.",
    ]
    return "\n".join(lines)


def _under_load(vllm: Figures) -> list[str]:
    settings, workloads = vllm["settings"], vllm["workloads"]
    source = next(iter(workloads.values()))["source"].partition(",")[0] if workloads else "nothing"
    lines = [
        f"Under load. Requests of {source} with their recorded response lengths, sent by `vllm bench serve`,",
        f"{settings['max_num_seqs']} sequences at a time, engine steps padded to {settings['step_ms']:g} ms, deadline",
        f"{settings['deadline_ms']} ms (the encoder shares two cores with everything else). Medians over the engine starts of each row.",
        "Worst slowdown: the longest time over the time alone. Waiting: requests in vLLM's queue, mean.",
        "",
        "| order | starts | ms per token: mean | p90 | end to end, s: mean | p50 | p90 | p99 | TTFT, s | worst slowdown | tokens/s | "
        "waiting |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = {(row["load"], row["arm"]): row for row in vllm["rows"] if row["starts"]}
    for load in _LOADS:
        if any(its_load == load for its_load, _ in rows):
            lines.append(f"| **{_load_name(load, workloads)}** |{' |' * 11}")
        for arm, label in ARM_LABELS.items():
            if row := rows.get((load, arm)):
                cells = [format(row[figure][0], shown) if figure in row else "" for figure, shown in _FIGURES.items()]
                lines.append(f"| {label} | {row['starts']} | {' | '.join(cells)} |")
    return [*lines, "", *_bounds(rows), *_ratios(vllm)]


def _load_name(load: str, workloads: Figures) -> str:
    requests = next((each["requests"] for name, each in workloads.items() if name.rpartition("-")[0] == load), 0)
    return f"{requests:,} at once" if load == "burst" else f"load {float(load):g}, {requests:,} requests"


def _bounds(rows: Mapping[tuple[str, str], Figures]) -> list[str]:
    """Against what the policy promises: by how much the p99 is later than first come, first served, at the load where most."""
    found = []
    for arm, label in ARM_LABELS.items():
        over = [
            (row["p99_over_bound"][0], row, load)
            for (load, its_arm), row in rows.items()
            if its_arm == arm and arm.startswith("ours") and "p99_over_bound" in row
        ]
        if over:
            _, row, load = max(over, key=lambda each: each[0])
            found.append(f"| {label} | {row['bound_s']:g} | {row['p99_over_fcfs_s'][0]:+.1f} | {load} |")
    if not found:
        return []
    head = ["The longest waits beside the policy's bound, at the load where they are worst:", ""]
    return [*head, "| order | bound, s | p99 end to end above first come, s | load |", "|---|---|---|---|", *found, ""]


def _ratios(vllm: Figures) -> list[str]:
    """One line for each ratio that there is."""
    labels = {
        "per_token_mean_fcfs_over_ours": "mean latency per token, first come over ours",
        "oracle_gain_share": "share of the oracle's gain",
        "p99_ours_over_fcfs": "p99 end to end, ours over first come",
        "low_load_loss": "end to end at load 0.3, ours over first come, less 1",
        "added_latency_share": "time held for a score, share of end to end",
    }
    lines = []
    for name, label in labels.items():
        value, place = vllm["ratios"][name], vllm["ratio_ranges"][name]
        for load in value if isinstance(value, dict) else (None,):
            one, its_range = (value, place) if load is None else (value[load], place[load])
            if one is not None:
                at = "" if load is None else f" at load {float(load):g}"
                lines.append(f"| {label}{at} | {one:.3f} | {its_range[0]:.3f} to {its_range[1]:.3f} |")
    return (
        ["| within a repetition | median | range |", "|---|---|---|", *lines] if lines else ["No ratio has been measured yet."]
    )


def _over(span: list[float], starts: int) -> str:
    return "one engine start" if starts == 1 else f"{span[0]:.1f} to {span[1]:.1f} over {starts} engine starts"


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
    for name in _COSTS:
        cells = [f"{rows[name][figure][0]:,.0f}" for figure in ("wall_p50_us", "wall_p99_us", "cpu_us")]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    return lines
