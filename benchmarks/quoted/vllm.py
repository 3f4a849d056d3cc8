"""The figures about vLLM that README and docs/vllm.md quote, as Markdown. See quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.bench_hook.labels import LABELS
from benchmarks.bench_vllm.arms import ARM_LABELS
from benchmarks.bench_vllm.plan import BURST, LASTING, by_rate, multiple, name_of

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
_TOLD = {
    "1.0": "at what it can serve",
    "1.2": "at 1.2 times as much for less than a minute",
    LASTING: "at 1.2 times as much for four minutes",
    BURST: "in a burst of thousands at once",
}
"""Loads that README tells of."""
_COSTS = ("gated", "unconnected", "scored", "scored_32")


def gain(results: Figures, more: str) -> list[str]:
    """Lines for README: what order brings under load. results: by the name of the file. more: the document that says all."""
    vllm = results["vllm"]
    name = "per_token_mean_fcfs_over_ours"
    gains, ranges = vllm["ratios"][name], vllm["ratio_ranges"][name]
    starts = {row["load"]: row["starts"] for row in vllm["rows"] if row["arm"] == "ours"}
    shown = [
        f"- {gains[load]:.1f} times {of} ({_over(ranges[load], starts[load])})"
        for load, of in _TOLD.items()
        if gains.get(load) is not None
    ]
    if not shown:
        return [f"What order brings a real vLLM has not been measured yet; [{more}]({more}) has what there is."]
    return [
        f"On a real vLLM (CPU, tiny model, recorded response lengths replayed, {vllm['settings']['max_num_seqs']} sequences at a time)",
        "mean latency per token is lower than with first come, first served:",
        "",
        *shown,
        "",
        *_own_gain(results),
        f"What that costs the longest, which wait for the others, and everything else that was measured: [{more}]({more}).",
    ]


def _own_gain(results: Figures) -> list[str]:
    """The shipped ranker and one of the traffic's own, where both were run beside each other."""
    shares = [results.get(name, {}).get("ratios", {}).get("oracle_gain_share", {}) for name in ("vllm_shipped", "vllm_own")]
    loads = [load for load in _TOLD if all(share.get(load) is not None for share in shares)]
    if not loads:
        return []
    shipped, its_own = (" and ".join(f"{share[load]:.0%}" for load in loads) for share in shares)
    return [
        "Of what knowing the lengths would bring, a ranker that `make train` made in minutes of other prompts of the same traffic",
        f"has {its_own} at {' and '.join(map(name_of, loads))}, and the shipped one, beside it, {shipped}.",
        "",
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
        "Ms per token: from sending to the last token, over the response's tokens; to first come: as a ratio, where both had the same",
        "requests, which rows with fewer starts than others otherwise had not. Worst slowdown: the longest time over the time alone.",
        "Waiting: requests in vLLM's queue, mean. Above load 1 the queue grows as long as requests come.",
        "",
        "| order | starts | ms per token: to first come | mean | p90 | end to end, s: mean | p50 | p90 | p99 | TTFT, s | worst slowdown | "
        "tokens/s | waiting |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = {(row["load"], row["arm"]): row for row in vllm["rows"] if row["starts"]}
    for load in sorted({load for load, _ in rows}, key=by_rate):
        lines.append(f"| **{_load_name(load, workloads)}** |{' |' * 12}")
        for arm, label in ARM_LABELS.items():
            if row := rows.get((load, arm)):
                cells = [format(row[figure][0], shown) if figure in row else "" for figure, shown in _FIGURES.items()]
                to_first = row.get("ratios_to_equal", {}).get("per_token_mean_ms")
                ratio = f"{to_first[0]:.2f}" if to_first else ""
                lines.append(f"| {label} | {row['starts']} | {ratio} | {' | '.join(cells)} |")
    return [*lines, "", *_bounds(rows), *_ratios(vllm)]


def _load_name(load: str, workloads: Figures) -> str:
    """With how many requests, and in how long they come."""
    workload = next((each for name, each in workloads.items() if name.rpartition("-")[0] == load), None)
    if workload is None:
        return name_of(load)
    requests, rate, its_multiple = workload["requests"], workload["requests_per_s"], multiple(load)
    if its_multiple is None or rate is None:
        return f"{requests:,} at once"
    return f"load {its_multiple:g}, {requests:,} requests in {requests / rate:.0f} s"


def _bounds(rows: Mapping[tuple[str, str], Figures]) -> list[str]:
    """What it costs the longest, at the load where that is most: beside what the policy promises."""
    found = []
    for arm, label in ARM_LABELS.items():
        later = [
            (row["later_max_s"][0], row, load)
            for (load, its_arm), row in rows.items()
            if its_arm == arm and arm.startswith("ours") and "later_max_s" in row and "p99_over_fcfs_s" in row
        ]
        if later:
            most_s, row, load = max(later, key=lambda each: each[0])
            window = "no bound" if row["window_s"] is None else f"{row['window_s']:g}"
            cells = (f"{row['p99_over_fcfs_s'][0]:+.1f}", f"{row['later_p99_s'][0]:+.1f}", f"{most_s:+.1f}", name_of(load))
            found.append(f"| {label} | {window} | {' | '.join(cells)} |")
    if not found:
        return []
    return [
        "What it costs the longest, in seconds beside first come, first served, at the load where that is most. The window bounds",
        "overtaking: no request that arrives so much later goes first. It is that of a short queue; it grows where nothing says it stays.",
        "How much later a request was is known of the starts whose single requests were kept, which may be fewer than above.",
        "",
        "| order | window | p99 end to end | first token of the same request, later by: p99 | most | load |",
        "|---|---|---|---|---|---|",
        *found,
        "",
    ]


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
                at = "" if load is None else f" at {name_of(load)}"
                span = f"{its_range[0]:.3f} to {its_range[1]:.3f}" if its_range[0] != its_range[1] else ""
                lines.append(f"| {label}{at} | {one:.3f} | {span} |")
    return (
        ["| within a repetition | median | range |", "|---|---|---|", *lines] if lines else ["No ratio has been measured yet."]
    )


def _over(span: list[float], starts: int) -> str:
    return "one engine start" if starts == 1 else f"{span[0]:.1f} to {span[1]:.1f} over {starts} engine starts"


def _at_low_load(low: Figures) -> list[str]:
    summary, starts = low["summary"], len(low["starts"])
    over = f"; lowest and highest over {starts} starts" if starts > 1 else ", one start of each, with the middle half of them"
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
            if starts == 1:
                quartiles = low["starts"][0]["added_ms"][name]
                lowest, highest = quartiles["p25"], quartiles["p75"]
            lines.append(f"| {variant['what']} | {median:.1f} ({lowest:.1f} to {highest:.1f}) |")
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
