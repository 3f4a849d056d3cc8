"""The page's sections about everything but the sidecar's own cost: a real vLLM, the hook, the simulator, a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench_hook.labels import LABELS
from benchmarks.bench_vllm.arms import ARM_LABELS
from benchmarks.bench_vllm.plan import by_rate, name_of
from benchmarks.markdown import paragraph, table
from benchmarks.page.targets import shown, target_rows_on_vllm

Figures = Mapping[str, Any]

_VLLM = {
    "per_token_mean_ms": "ms per token: mean",
    "per_token_p90_ms": "p90",
    "e2e_mean_s": "end to end, s: mean",
    "e2e_p50_s": "p50",
    "e2e_p90_s": "p90",
    "e2e_p99_s": "p99",
    "ttft_mean_s": "first token, s: mean",
    "ttft_p99_s": "p99",
    "worst_slowdown": "worst slowdown",
    "output_tokens_per_s": "tokens/s",
    "preemptions": "preemptions",
    "waiting_mean": "queue: mean",
    "waiting_max": "max",
}
_OWN_RATIOS = {
    "per_token_mean_fcfs_over_ours": "mean latency per token, first come over ours",
    "oracle_gain_share": "share of the oracle's gain",
    "p99_ours_over_fcfs": "end-to-end p99, ours over first come",
}
_SIMULATED = ("e2e_mean_s", "e2e_p99_s", "per_token_mean_ms")
_BY_PRECISION = ("p99_ms_at_1000_per_s", "prompts_per_s_in_batches")


def on_vllm(results: Figures) -> list[str]:
    """What order brings on a real engine. results: by the name of the file; one of before `rows` counts as not measured."""
    document = results.get("vllm")
    lines = ["## Order on a real vLLM", ""]
    if document is None or "rows" not in document:
        return [*lines, "Not in this form yet: [vllm.md](vllm.md) has what was measured before."]
    measured = [name for name in _VLLM if any(name in row for row in document["rows"])]
    rows = []
    for row in document["rows"]:
        starts = f"{row['starts']} of {row['planned_starts']}"
        cells = [shown(row[name][0]) if row.get(name) else "" for name in measured]
        to_first = row.get("ratios_to_equal", {}).get("per_token_mean_ms")
        ratio = shown(to_first[0]) if to_first else ""
        rows.append([name_of(row["load"]), ARM_LABELS.get(row["arm"], row["arm"]), starts, ratio, *cells])
    return [
        *lines,
        *paragraph(
            "Medians over engine starts; load in multiples of what the engine can serve. A row with fewer starts than another had in part "
            "other requests; the ratio to first come, first served is taken where both had the same. More, and how: [vllm.md](vllm.md)."
        ),
        *("", "![Mean latency per token by load](benchmarks/vllm.svg)", ""),
        *table(["load", "order", "engine starts", "ms per token, to first come", *(_VLLM[name] for name in measured)], rows),
        "",
        *table(["", "load", "", "lowest and highest", "target", "met"], _with_names(target_rows_on_vllm(document))),
        "",
        *paragraph(
            "In a burst a request is held for its score while it would have to wait for its turn anyway, so that the time held is not time "
            "added."
        ),
        "",
        *_stamped("vllm.json", document),
        "",
        *_own_ranker(results),
    ]


def _own_ranker(results: Figures) -> list[str]:
    """The shipped ranker and one that was trained on other prompts of the same traffic, run beside each other."""
    rankers = {name: results[f"vllm_{name}"] for name in ("shipped", "own") if f"vllm_{name}" in results}
    if not rankers:
        return []
    rows = []
    ours = [(row, name) for name, report in rankers.items() for row in report["rows"] if row["arm"] == "ours"]
    for row, name in sorted(ours, key=lambda each: by_rate(each[0]["load"])):
        ratios = [_at(rankers[name], ratio, row["load"]) for ratio in _OWN_RATIOS]
        starts = f"{row['starts']} of {row['planned_starts']}"
        rows.append(
            [name_of(row["load"]), name, starts, *(_with_range(row[each]) for each in ("step_p50_ms", "tau_b")), *ratios]
        )
    return [
        "### With a ranker of this traffic's own",
        "",
        *paragraph(
            "The same requests, ordered by a ranker that `make train` makes of the records that no run replays, near-duplicates of those "
            "left out, and by the shipped one, against the same runs of first come and the oracle: `make bench-vllm-own DATA=file`. "
            "Ratios within a repetition; the lowest and highest engine start in brackets. Steps are padded to the same time, and longer "
            "ones than another row's, of a busier machine, count against a row; one with fewer starts had in part other requests. Among "
            "the replayed prompts are some that the shipped ranker has learned from, with another model's lengths (HaluEval's are "
            "instructions of the Alpaca set); the traffic's own has learned from none."
        ),
        *("", *table(["load", "ranker", "engine starts", "step, ms", "tau-b", *_OWN_RATIOS.values()], rows), ""),
        *(line for name, report in rankers.items() for line in (*_stamped(f"vllm_{name}.json", report), "")),
    ]


def _at(document: Figures, name: str, load: str) -> str:
    """A ratio at a load, empty where it was not measured."""
    median, span = (document[key].get(name, {}).get(load) for key in ("ratios", "ratio_ranges"))
    return "" if median is None else _with_range([median, *span])


def _with_range(spread: Sequence[float]) -> str:
    """Of median, lowest and highest."""
    median, low, high = map(shown, spread)
    return median if low == high else f"{median} ({low} to {high})"


def _with_names(rows: list[list[str]]) -> list[list[str]]:
    return [[what, name_of(load), *cells] for what, load, *cells in rows]


def hook(document: Figures | None) -> list[str]:
    """What a vLLM request waits for the whole hook."""
    lines = ["## The hook, as a request sees it", ""]
    if document is None:
        return [*lines, "Not measured yet: `make bench-hook`."]
    rows = {row["name"]: row for row in document["rows"]}
    cells = [
        [
            label,
            *(
                shown(rows[name][figure][0]) if figure in rows[name] else ""
                for figure in ("wall_p50_us", "wall_p99_us", "cpu_us")
            ),
        ]
        for name, label in LABELS.items()
        if name in rows
    ]
    return [
        *lines,
        *paragraph(
            "From the middleware's call to its return, in vLLM's environment, for a request of 1 kB and a ranker that answers at once, in "
            "microseconds; the time holds the round trip, the CPU is the hook's process alone."
        ),
        *("", *table(["", "p50 µs", "p99 µs", "CPU µs"], cells), ""),
        *_stamped("hook.json", document),
    ]


def simulated(document: Figures | None) -> list[str]:
    """A few lines; the rest is on a page of its own."""
    lines = ["## Simulated", ""]
    if document is None:
        return [*lines, "Not simulated yet: `make simulate`."]
    rows = []
    for workload, found in document["studies"].get("orders", {"workloads": {}})["workloads"].items():
        for row in found["rows"]:
            if row["order"] == "ageing":
                rows.append([workload, f"{row['offered_load']:g}x", *(simulated_ratio(row, name) for name in _SIMULATED)])
    return [
        *lines,
        *paragraph(
            "Nothing here is measured. Other traffic on another engine, the hook's default policy with a simulated ranker, as ratios to "
            "first come, first served; lowest to highest over seeds in brackets. Everything else, and how far the simulator is off the "
            "real runs: [simulator.md](simulator.md)."
        ),
        *("", *table(["traffic", "load", "end to end: mean", "p99", "per token: mean"], rows)),
    ]


def simulated_ratio(row: Figures, figure: str) -> str:
    """The range only where there is one to see: a trace and an oracle have nothing that a seed changes."""
    ratio = row["ratios_to_first_come"][figure]
    low, high = (f"{each:.2f}" for each in row.get("ratio_ranges", {}).get(figure, (ratio, ratio)))
    return f"{ratio:.2f}" if low == high else f"{ratio:.2f} ({low} to {high})"


def on_gpu(document: Figures | None) -> list[str]:
    """Headline figures of gpu.json, where there is one."""
    lines = ["## On a GPU", ""]
    if document is None:
        return [*lines, "Not measured."]
    precisions = list(dict.fromkeys(precision for name in _BY_PRECISION for precision in document.get(name, {})))
    rows = [[each, *(_value(document.get(name, {}).get(each)) for name in _BY_PRECISION)] for each in precisions]
    targets = [
        [
            f"`{row['figure']}`",
            f"{row['target']:,g}",
            _value(row["value"]),
            row["precision"] or "",
            "" if row["met"] is None else "yes" if row["met"] else "no",
        ]
        for row in document.get("targets", ())
    ]
    failed = [f"- Failed: {what}: {why}" for reasons in document.get("failed", {}).values() for what, why in reasons.items()]
    missing = [f"- Not on this machine: {what}: {why}" for what, why in document.get("not_on_this_machine", {}).items()]
    return [
        *lines,
        *paragraph(f"On {', '.join(document['stamp']['machine']['gpus']) or document.get('provider', 'no GPU')}."),
        *("", *(f"- {note}" for note in document.get("notes", ())), ""),
        *table(["precision", "one prompt each, 1,000/s: p99 ms", "prompts/s in batches"], rows),
        *("", *table(["", "target", "best", "precision", "met"], targets), ""),
        *(*failed, *missing, *([""] if failed or missing else [])),
        *_stamped("gpu.json", document),
    ]


def _value(value: float | None) -> str:
    return "" if value is None else shown(value)


def _stamped(name: str, document: Figures) -> list[str]:
    link = f"[{name}](../benchmarks/results/{name})"
    stamp = document.get("stamp")
    if not stamp:
        return [f"{link} has machine, versions, commits and commands."]
    # A report of many runs: they may have been made on several machines.
    machines = ", ".join(f"{count} runs on {machine}" for machine, count in document.get("machines", {}).items())
    return paragraph(
        f"{link}: {machines or stamp['machine']['cpu_model']}, commit {stamp['commit'][:12]}, {stamp['date'][:10]}, `{stamp['command']}`."
    )
