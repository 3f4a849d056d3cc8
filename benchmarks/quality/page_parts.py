"""The other sections of docs/quality.md: cost, transfer to other sets and models, chats, precision."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from benchmarks.markdown import paragraph, plural, table
from benchmarks.quality.cost import OURS, REFERENCE
from benchmarks.quality.report import ON_CPUS
from benchmarks.quality.results import Figures
from benchmarks.quality.tables import Row, learner_labels, transfer_table, with_interval


def cost(document: Figures) -> list[str]:
    """Validation tau-b against CPU time."""
    runs = document["cost"]
    if not runs:
        return []
    lines = [
        [
            run["dataset"],
            run["method"],
            str(run["seed"]),
            f"{run['tau']:.3f}",
            f"{run['reference_cpu_seconds']:,.0f}",
            _or_never(run["cpu_seconds"], ",.0f"),
            _or_never(run["time_ratio"], ".3f"),
            f"{run['reference_forwards']:,}",
            _or_never(run["forwards"], ","),
            f"{max(point[2] for point in run['curve']):.3f}",
        ]
        for run in runs
    ]
    head = [
        *("data set", "method", "seed", f"best tau-b of `{REFERENCE}`", "after CPU s", "reached after CPU s", "ratio"),
        *("its forwards", "reached after forwards", "best tau-b of the method"),
    ]
    return [
        "## What training costs",
        "",
        *paragraph(
            *_headline(document["ratios"]),
            f"Both learn from the same prompts on the same machine. The time of `{REFERENCE}` is that of its best validation tau-b; that",
            "of the other method is that of its first evaluation that is at least as good.",
        ),
        "",
        *table(head, lines),
        "",
        "![validation tau-b against CPU seconds of training](quality/cost.svg)",
    ]


def across(document: Figures) -> list[str]:
    """Learned from one set, judged on another: a table per experiment."""
    rows = document["across"]
    if not rows:
        return []
    lines = ["## From one set to another", ""]
    for name in dict.fromkeys(row["experiment"] for row in rows):
        own = [row for row in rows if row["experiment"] == name]
        lines += [*_kept(own), "", *transfer_table(own), ""]
    return [*lines, "![tau-b by the set learned from and the set judged on](quality/across.svg)"]


def models(document: Figures) -> list[str]:
    """Learned from one half of the models, judged on the other."""
    rows = document["models"]
    if not rows:
        return []
    lines = [
        [row["trained_on"], row["method"], row["model"], f"{row['prompts']:,}", f"{row['own_tau']:.3f}", with_interval(row)]
        for row in rows
    ]
    lost = mean([row["own_tau"] - row["tau"] for row in rows])
    return [
        "## From some models to others",
        "",
        *paragraph(
            f"Rankers that learned from half of the models order the typical response of the other half with {abs(lost):.3f} "
            f"{_less(lost)} tau-b than that of their own half, in the mean over {len(rows)} rows; the prompts are held out in both columns."
        ),
        "",
        *table(["data set", "method", "learned from", "prompts", "tau-b, their models", "tau-b, unseen models"], lines),
    ]


def recalibrated(document: Figures) -> list[str]:
    """Expected tokens on a set that the ranker never saw, with its own calibration and with one of a few prompts of that set."""
    rows = [row for row in document["rows"] if row["recalibration"]]
    if not rows:
        return []
    own, anew = ([row["recalibration"][which] for row in rows] for which in ("own", "anew"))
    lines = [
        [
            *(row["dataset"], row["method"], f"{before['factor']:.2f}", f"{after['factor']:.2f}"),
            *(f"{before['covered']:.1%}", f"{after['covered']:.1%}", f"{after['prompts']:,}"),
        ]
        for row, before, after in zip(rows, own, anew, strict=True)
    ]
    factors, covered = ([mean(each[key] for each in of_one) for of_one in (own, anew)] for key in ("factor", "covered"))
    head = [
        "data set",
        "ranker",
        "factor, own calibration",
        "made anew",
        "up to the 90th percentile, own",
        "made anew",
        "from prompts",
    ]
    return [
        "## What a new calibration repairs",
        "",
        *paragraph(
            "A calibration turns a score into expected tokens and leaves the order as it is. `factor` is the typical factor between",
            "expected and real tokens, 1 at best; the expected 90th percentile should hold 90% of the responses. Made anew from a few",
            f"prompts of the set, the factor goes from {factors[0]:.2f} to {factors[1]:.2f} in the mean and the share from",
            f"{covered[0]:.0%} to {covered[1]:.0%}.",
        ),
        "",
        *table(head, lines),
    ]


def chat(document: Figures) -> list[str]:
    """What surrounds a prompt in a chat, and what of it the ranker should read."""
    rows = document["chat"]
    if not rows:
        return []
    lines = [
        "## Chats",
        "",
        *paragraph(
            "What a server sees is a list of messages. Held-out prompts are put into chats that we made up, and the same ranker reads them",
            "in different ways:",
        ),
        "",
        *(f"- {note}" for note in document["chat_notes"]),
    ]
    for question in dict.fromkeys(row["question"] for row in rows):
        own = [row for row in rows if row["question"] == question]
        shown = [
            [
                *(row["dataset"], row["way"], f"{row['prompts']:,}", with_interval(row)),
                f"{row['change']:+.3f} [{row['change_low']:+.3f}, {row['change_high']:+.3f}]",
                f"{row['unread']:.0%}",
            ]
            for row in own
        ]
        head = ["data set", "way", "prompts", "tau-b", "change", "unread"]
        lines += ["", f"### {question[0].upper()}{question[1:]}", "", *paragraph(*_best_way(own)), "", *table(head, shown)]
    return lines


def precision(document: Figures) -> list[str]:
    """What the exported bundle loses in each precision."""
    rows: Sequence[Row] = document["precision"]
    if not rows:
        return []
    losses = {name: document["ratios"].get(f"{name}_tau_loss") for name in ON_CPUS}
    said = [
        f"{name} loses at most {loss:.4f} tau-b against fp32 on any set." for name, loss in losses.items() if loss is not None
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        "## Precision after export",
        "",
        *paragraph(*said),
        "",
        *table([_words(name) for name in names], _cells(rows, names)),
        *_speed(document),
    ]


def _speed(document: Figures) -> list[str]:
    """CPU time of each precision beside fp32's, where it was measured."""
    timed = [bundle for bundle in document.get("bundles", ()) if "times_fp32_batch_1" in bundle]
    if not timed:
        return []
    rows = [
        [bundle["precision"], f"{bundle['bundle_bytes'] / 1e6:.1f}"]
        + [
            f"{bundle[name]:.2f} ({bundle[f'{name}_low']:.2f} to {bundle[f'{name}_high']:.2f})"
            for name in ("times_fp32_batch_1", "times_fp32_batch_8")
        ]
        for bundle in timed
    ]
    machine = document["precision_stamp"]["machine"]["cpu_model"]
    return [
        "",
        *paragraph(
            f"How many times fp32's speed, in CPU time for a prompt on {machine}, alone and in batches of 8: median and range."
        ),
        "",
        *table(["precision", "MB", "alone", "in batches of 8"], rows),
    ]


def _headline(ratios: Figures) -> list[str]:
    if not ratios.get("time_compared_runs"):
        return []
    runs, never = ratios["time_compared_runs"], ratios["time_never_reached"]
    time, forwards = ratios["time_to_reference_tau"], ratios["reference_forwards_over_ours"]
    if time is None or forwards is None:
        return [f"`{OURS}` does not reach the best validation tau-b of `{REFERENCE}` in {never} of {runs} runs."]
    worst = ratios["time_to_reference_tau_worst"]
    spread = f"{ratios['time_to_reference_tau_best']:.3f} to {'never' if worst is None else f'{worst:.3f}'}"
    return [
        f"`{OURS}` reaches the best validation tau-b of `{REFERENCE}` in {time:.3f} of its CPU time (median of {plural(runs, 'run')}; "
        f"{spread}), or {ratios['time_to_reference_tau_of_whole']:.3f} of that of its whole training; "
        f"`{REFERENCE}` encodes {forwards:.1f} times as many prompts for it."
    ]


def _kept(rows: Sequence[Row]) -> list[str]:
    """What is left of the order on sets that a ranker did not learn from, and which ranker is best there."""
    own: dict[str, float] = {}
    others: dict[str, list[float]] = {}
    for row, label in zip(rows, learner_labels(rows), strict=True):
        own[label] = row["own_tau"]
        others.setdefault(label, []).append(row["tau"])
    means = {label: mean(taus) for label, taus in others.items()}
    best = max(means, key=lambda label: means[label])
    first = rows[0]
    who = f"Rankers of {first['trained_on']}" if len({row["trained_on"] for row in rows}) == 1 else f"`{first['method']}`"
    best_is = "" if len(means) == 1 else f" Best elsewhere: {best}, {means[best]:.3f}."
    return paragraph(
        f"{who}: tau-b {mean(own.values()):.3f} in the mean on the set learned from, {mean(means.values()):.3f} on the others.{best_is}"
    )


def _best_way(rows: Sequence[Row]) -> list[str]:
    """Which way of making text keeps most of the order, by the mean change over sets."""
    changes: dict[str, list[float]] = {}
    for row in rows:
        changes.setdefault(row["way"], []).append(row["change"])
    base = rows[0]["way"]
    means = {way: mean(values) for way, values in changes.items() if way != base}
    if not means:
        return []
    best, worst = max(means, key=lambda way: means[way]), min(means, key=lambda way: means[way])
    over = "" if len(changes[best]) == 1 else f", mean of {len(changes[best])} sets"
    least = "" if best == worst else f" and {worst} lowest ({means[worst]:+.3f})"
    return [f"Against {base}, {best} comes out highest ({means[best]:+.3f} tau-b{over}){least}."]


def _cells(rows: Sequence[Row], names: Sequence[str]) -> list[list[str]]:
    return [[_shown(row.get(name)) for name in names] for row in rows]


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
    return str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _or_never(value: float | None, form: str) -> str:
    return "never" if value is None else f"{value:{form}}"


def _less(lost: float) -> str:
    return "less" if lost >= 0 else "more"
