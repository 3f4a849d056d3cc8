"""Pure: a kept run on a real vLLM → its figures, and whether it counts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import kendalltau

from benchmarks.bench_vllm.requests import KEPT, result_of
from benchmarks.measurement import percentile
from benchmarks.report import plain

STEP_P50_WITHIN, STEP_P99_ABOVE = 0.05, 0.5
"""A run is clean when no request failed and the padding held: of the responses' mean steps the median is within 5% of what steps are padded
to, and the 99th percentile at most 50% above. Stated before any run was made; what misses it was a machine too busy to say anything."""

Figures = Mapping[str, Any]

FIGURES = "figures"
"""Where a run in a report has its own."""


def run_figures(run: Figures, step_ms: float) -> dict[str, Any]:
    """All figures of a kept run: those of `figures_of`, and

    worst_slowdown: the largest, over the requests, of the time from end to end over the time that the request would take alone, which
    is one step for each token of its response and one more, in which it is found and its prompt begun. waiting, running: requests in
    vLLM's queue and in its batch, mean and most over looks a second apart, from the first request's sending to the last one's end.
    hook_ask_mean_ms: how long the hook held a request that it asked about. hook_ask_share: all that time over all the time from end to
    end. scored_share: of the requests, how many were scored. tau_b: Kendall's, of what the ranker says of the completed requests and how
    many tokens their responses had; None where nobody was asked.
    """
    result, queue, asks = result_of(run), run["queue"], run["hook_asks"]
    figures, outcomes = figures_of(result), run["hook_outcomes"]
    done = [index for index, error in enumerate(result["errors"]) if not error]
    ended_s = max((run[KEPT]["sent_s"][index] + result["latencies"][index] for index in done), default=0.0)
    looks = [index for index, at_s in enumerate(queue["at_s"]) if 0 <= at_s <= ended_s]
    waiting, running = ([queue[name][index] for index in looks] for name in ("waiting", "running"))
    said = run[KEPT].get("quantile")
    slowdowns = [1000 * result["latencies"][index] / (step_ms * (result["output_lens"][index] + 1)) for index in done]
    return figures | {
        "worst_slowdown": max(slowdowns, default=None),
        "preemptions": run["preemptions"],
        "waiting_mean": _mean(waiting),
        "waiting_max": max(waiting, default=None),
        "running_mean": _mean(running),
        "hook_ask_mean_ms": 1000 * run["hook_ask_s"] / asks if asks else None,
        "hook_ask_share": run["hook_ask_s"] / sum(result["latencies"][index] for index in done) if done else None,
        "scored_share": outcomes.get("scored", 0) / sum(outcomes.values()) if outcomes else None,
        "tau_b": _tau_b([said[index] for index in done], [result["output_lens"][index] for index in done]) if said else None,
    }


def later_than(run: Figures, baseline: Figures | None) -> dict[str, float | None]:
    """By how much later the same requests got their first tokens than in another run: 99th percentile and most, in seconds; below 0 where
    none was later. Empty without a baseline, and where the single requests were not kept. Of requests that were answered in both."""
    if baseline is None or any(KEPT not in each for each in (run, baseline)):
        return {}
    (own, its_errors), (other, other_errors) = ((each[KEPT]["ttft_s"], each[KEPT]["errors"]) for each in (run, baseline))
    later_s = [
        mine - theirs for mine, theirs, *errors in zip(own, other, its_errors, other_errors, strict=True) if not any(errors)
    ]
    return {"later_p99_s": percentile(later_s, 99), "later_max_s": max(later_s, default=None)}


def why_not_clean(figures: Figures, step_ms: float) -> str | None:
    """None for a clean run; else the first thing that is wrong with it."""
    if figures["failed"]:
        return f"{figures['failed']} requests failed"
    p50_ms, p99_ms = plain(figures["step_p50_ms"]), plain(figures["step_p99_ms"])
    if p50_ms is None or abs(p50_ms / step_ms - 1) > STEP_P50_WITHIN:
        return f"the median step took {p50_ms} ms instead of {step_ms}"
    if p99_ms > (1 + STEP_P99_ABOVE) * step_ms:
        return f"the 99th percentile of the steps was {p99_ms} ms, {step_ms} are right"
    return None


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one detailed result. Times of the completed requests; those that failed are counted.

    e2e: from sending to the last token. per_token: that divided by the response's tokens, so waiting counts most for short ones.
    longest_wait: the longest time to a first token; the step in which the prompt is read is part of it. step: between two tokens, on
    average over a response; its percentiles are over the responses. With padded steps it says whether the padding held.
    """
    failed = [bool(error) for error in result["errors"]]
    done = [index for index, gone in enumerate(failed) if not gone]
    e2e_s = [result["latencies"][index] for index in done]
    first_s = [result["ttfts"][index] for index in done]
    tokens = [result["output_lens"][index] for index in done]
    per_token_ms = [1000 * whole / count for whole, count in zip(e2e_s, tokens, strict=True)]
    step_ms = [
        1000 * (whole - first) / (count - 1) for whole, first, count in zip(e2e_s, first_s, tokens, strict=True) if count > 1
    ]
    return {
        "completed": len(done),
        "failed": len(failed) - len(done),
        "duration_s": result["duration"],
        "output_tokens": sum(tokens),
        "output_tokens_per_s": result["output_throughput"],
        "requests_per_s": result["request_throughput"],
        "most_in_flight": result["max_concurrent_requests"],
        **_summary("e2e", "s", e2e_s),
        **_summary("per_token", "ms", per_token_ms),
        **_summary("ttft", "s", first_s),
        "longest_wait_s": max(first_s, default=None),
        "step_p50_ms": percentile(step_ms, 50),
        "step_p99_ms": percentile(step_ms, 99),
    }


def _tau_b(said: Sequence[float], tokens: Sequence[int]) -> float | None:
    """None where all are alike."""
    tau_b = float(kendalltau(said, tokens).statistic)
    return None if math.isnan(tau_b) else tau_b


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _summary(name: str, unit: str, values: Sequence[float]) -> dict[str, float | None]:
    return {
        f"{name}_mean_{unit}": _mean(values),
        **{f"{name}_p{percent}_{unit}": percentile(values, percent) for percent in (50, 90, 99)},
        f"{name}_max_{unit}": max(values, default=None),
    }
