"""The figures about overload and the soak that docs/operations.md quotes, as Markdown. See quoted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import table

Figures = Mapping[str, Any]

_OVERLOAD = (
    *("load", "deadline", "fallback", "encoder", "n-gram", "refused", "late", "lost"),
    *("answers p50 / p99", "refusals p50", "encoder's answers / capacity"),
)
_SOAK = (
    *("over", "calls and items", "unanswered", "wrong", "swapped / refused / same"),
    *("memory after warm-up → end", "descriptors", "threads", "exit code"),
)


def promised(results: Figures) -> str:
    """docs/operations.md: overload, then the soak."""
    return "\n".join((*_overload(results["overload"]), "", *_soak(results["soak"])))


def _overload(report: Figures) -> list[str]:
    """Which tier answers under load, how late, what refusals take."""
    return [
        "Open-loop arrivals at multiples of what the encoder can do, one prompt per call, the caller on the same cores; shares of all",
        "calls:",
        "",
        *table(_OVERLOAD, (_arm(arm) for arm in report["arms"])),
        "",
        "`late` is as the caller saw it, its own wait for a core included: a reply after the deadline, or a status less than 2 ms",
        "before it.",
        "Machine, versions, commit and command are in [overload.json](../benchmarks/results/overload.json); `make bench-overload`",
        "measures it again.",
    ]


def _arm(arm: Figures) -> list[str]:
    share = arm["shares"]
    return [
        f"{arm['load']:g}x",
        f"{arm['deadline_ms']:g} ms",
        "on" if arm["tier_fallback"] else "off",
        *(f"{share[what]:.1%}" for what in ("encoder", "ngram", "refused")),
        f"{share['late']:.2%}",
        f"{arm['lost']}",
        f"{arm['answer_ms'][0]:.0f} / {arm['answer_ms'][1]:.0f} ms" if arm["answer_ms"] else "",
        f"{arm['refusal_ms'][0]:.0f} ms" if arm["refusal_ms"] else "",
        f"{arm['goodput']:.2f}",
    ]


def _soak(report: Figures) -> list[str]:
    """What half an hour of everything at once left behind."""
    broken = report["broken_promises"]
    return [
        f"{report['settings']['minutes']:g} minutes of everything at once (`make soak`): two sidecars with two rankers each,",
        f"deadlines from hopeless to none, cancellations, {report['killed_callers']} killed callers, wrong requests, bursts above",
        "capacity, swaps to good and broken bundles, at the end SIGTERM under load:",
        "",
        *table(_SOAK, (_soaked(sidecar) for sidecar in report["sidecars"])),
        "",
        "Broken promises: " + "; ".join(broken) + "." if broken else "No promise was broken.",
        f"A machine that stands still takes its callers with it: they themselves were held up for {_stall_s(report):.1f} s at most, and an",
        "answer counts as missing 15 s after its deadline.",
        "Counts by status, tier and deadline are in [soak.json](../benchmarks/results/soak.json).",
    ]


def _stall_s(report: Figures) -> float:
    return max(float(sidecar["callers"]["worst_own_lag_s"]) for sidecar in report["sidecars"])


def _soaked(sidecar: Figures) -> list[str]:
    callers, grown, reloads = sidecar["callers"], sidecar["growth"], sidecar["reloads"]
    growth = ["not measured"] * 3
    if grown:
        rss_before, rss_after = grown["rss_mib"]
        memory = f"{rss_before:.0f} → {rss_after:.0f} MiB ({grown['rss_ratio'] - 1:+.1%})"
        growth = [memory, *(" → ".join(map(str, grown[what])) for what in ("fds", "threads"))]
    return [
        sidecar["over"],
        f"{sum(sum(codes.values()) for codes in callers['calls'].values()):,}",
        f"{callers['unanswered']}",
        f"{callers['wrong']}",
        " / ".join(str(reloads.get(outcome, 0)) for outcome in ("swapped", "refused", "same")),
        *growth,
        f"{sidecar['exit_code']}",
    ]
