"""Pure: what `vllm bench serve` says of a run → figures; figures of all runs → one line per arm, and ratios to first come, first served."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measurement import Spread, percentile, spread_of
from benchmarks.report import aligned

BASELINE = "equal"

RATIO_FIGURES = (
    "e2e_mean_s",
    "e2e_p50_s",
    "e2e_p90_s",
    "e2e_p99_s",
    "e2e_max_s",
    "per_token_mean_ms",
    "per_token_p90_ms",
    "per_token_max_ms",
    "longest_wait_s",
    "output_tokens_per_s",
)

SHOWN_FIGURES = {
    "e2e_mean_s": "e2e mean s",
    "e2e_p50_s": "p50",
    "e2e_p90_s": "p90",
    "e2e_p99_s": "p99",
    "e2e_max_s": "max",
    "per_token_mean_ms": "ms/token mean",
    "per_token_p90_ms": "p90",
    "per_token_max_ms": "max",
    "longest_wait_s": "longest wait s",
    "output_tokens_per_s": "tokens/s",
    "step_p50_ms": "step ms",
}

Figures = Mapping[str, Any]


def figures_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of one detailed result. Times of the completed requests; those that failed are counted.

    e2e: from sending to the last token. per_token: that divided by the response's tokens, so waiting counts most for short ones.
    longest_wait: the longest time to a first token; the step in which the prompt is read is part of it. step: between two tokens of
    a response, its median per response; with padded steps it says whether the padding held.
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


def arm_summary(runs: Sequence[Figures]) -> dict[str, Any]:
    """Each figure of one arm's clean runs as [median, lowest, highest] over the engine starts. A run with failures is left out."""
    clean = [run["figures"] for run in runs if not run["figures"]["failed"]]
    spreads = {name: spread_of([figures[name] for figures in clean]) for name in (clean[0] if clean else {})}
    return {
        "engine_starts": len(runs),
        "clean_engine_starts": len(clean),
        "failed_requests": sum(run["figures"]["failed"] for run in runs),
        **{name: list(spread) for name, spread in spreads.items() if spread is not None},
    }


def ratios_to_baseline(runs: Sequence[Figures]) -> dict[str, dict[str, Spread | None]]:
    """arm → figure → ratio to BASELINE, taken within a repetition, which has the same requests at the same times. Below 1: less."""
    clean = {(run["arm"], run["repetition"]): run["figures"] for run in runs if not run["figures"]["failed"]}
    arms = dict.fromkeys(arm for arm, _ in clean if arm != BASELINE)
    return {
        arm: {
            name: spread_of(
                [
                    figures[name] / clean[BASELINE, repetition][name]
                    for (own, repetition), figures in clean.items()
                    if own == arm and (BASELINE, repetition) in clean
                ]
            )
            for name in RATIO_FIGURES
        }
        for arm in arms
    }


def arms_table(summaries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines: the medians of each arm, failures marked."""
    lines = []
    for arm, summary in summaries.items():
        medians = [f"{summary[name][0]:.4g}" if name in summary else "" for name in SHOWN_FIGURES]
        lines.append((arm, str(summary["clean_engine_starts"]), *medians, str(summary["failed_requests"] or "")))
    return aligned(("", "starts", *SHOWN_FIGURES.values(), "failed"), lines)


def _summary(name: str, unit: str, values: Sequence[float]) -> dict[str, float | None]:
    return {
        f"{name}_mean_{unit}": sum(values) / len(values) if values else None,
        **{f"{name}_p{percent}_{unit}": percentile(values, percent) for percent in (50, 90, 99)},
        f"{name}_max_{unit}": max(values, default=None),
    }
