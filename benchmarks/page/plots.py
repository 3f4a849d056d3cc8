"""The page's plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks.bench_vllm.arms import ARM_LABELS
from benchmarks.bench_vllm.plan import name_of
from benchmarks.svg import INK, OTHER_COLOURS, OURS, THEIRS, svg

Results = Mapping[str, Any]

_LATENCY_CALLERS = {"1_caller": 1, "8_callers": 8, "64_callers": 64}
_ARM_COLOURS = {"equal": THEIRS, "ours": OURS, "oracle": INK}


def throughput_plot(results: Results) -> str | None:
    """Prompts per second with 64 callers: the limit, ours, the others; lowest and highest round as a line. None without a run."""
    document = results.get("overhead")
    bars = _throughput_bars(document) if document else []
    if len(bars) < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for place, (_, colour, (median, lowest, highest)) in enumerate(bars):
            axes.barh(place, median, color=colour, height=0.7)
            axes.plot([lowest, highest], [place, place], color=INK, linewidth=1)
            axes.text(highest, place, f"  {median:,.0f}", va="center")
        axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.12 * max(highest for _, _, (_, _, highest) in bars))
        axes.set_xlabel("prompts per second, 64 callers with one prompt each")

    return svg((7.5, 0.8 + 0.3 * len(bars)), "benchmarks", draw)


def _throughput_bars(document: Mapping[str, Any]) -> list[tuple[str, str, list[float]]]:
    """Label, colour, median with range."""
    rows = {row["name"]: row for row in document["rows"]}
    best = document["best_bundle"]
    wanted = {
        document["limits"].get("all_sorted"): ("limit: bare session, best batches", INK),
        "ours_stream_64_items": ("sidecar fp32, one stream", OURS),
        "ours_64_callers": ("sidecar fp32, unix socket", OURS),
        "ours_tcp_64_callers": ("sidecar fp32, TCP", OURS),
        **({"best_tcp_64_callers": (f"sidecar {best['precision']}, TCP", OURS)} if best else {}),
        **{f"{peer}_64_callers": (peer, THEIRS) for peer in document["peers"]},
    }
    return [
        (label, colour, rows[name]["prompts_per_s"])
        for name, (label, colour) in wanted.items()
        if "prompts_per_s" in rows.get(name, {})
    ]


def latency_plot(results: Results) -> str | None:
    """p50 and p99 against the number of callers, the sidecar and the others called alike. None without rows of that kind."""
    document = results.get("overhead")
    if not document:
        return None
    rows = {row["name"]: row for row in document["rows"]}
    best = document["best_bundle"]
    contenders = {"ours_tcp": ("sidecar fp32", OURS, "-")}
    if best:
        contenders["best_tcp"] = (f"sidecar {best['precision']}", OURS, "--")
    others = (THEIRS, *OTHER_COLOURS)
    contenders |= {peer: (peer, others[place % len(others)], "-") for place, peer in enumerate(document["peers"])}
    lines = {
        figure: {name: _line(rows, name, figure) for name in contenders if _line(rows, name, figure)}
        for figure in ("p50_ms", "p99_ms")
    }
    if not any(lines.values()):
        return None

    def draw(figure: Figure) -> None:
        for place, (name, of_all) in enumerate(lines.items(), start=1):
            axes = figure.add_subplot(1, 2, place)
            for contender, points in of_all.items():
                label, colour, style = contenders[contender]
                axes.plot(list(points), list(points.values()), style, color=colour, marker=".", linewidth=1.2, label=label)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xticks(list(_LATENCY_CALLERS.values()), [str(callers) for callers in _LATENCY_CALLERS.values()])
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.grid(color=INK, alpha=0.25, linewidth=0.5)
            axes.set_xlabel("callers with one prompt each")
            axes.set_ylabel(f"{name.removesuffix('_ms')} in ms")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return svg((9.5, 3.2), "benchmarks", draw)


def _line(rows: Mapping[str, Any], contender: str, figure: str) -> dict[int, float]:
    """Callers → median."""
    return {
        callers: rows[name][figure][0]
        for case, callers in _LATENCY_CALLERS.items()
        if figure in rows.get(name := f"{contender}_{case}", {})
    }


def vllm_plot(results: Results) -> str | None:
    """Mean latency per token by load, a bar for each order of requests. None without rows."""
    rows = [row for row in results.get("vllm", {}).get("rows", ()) if row.get("per_token_mean_ms")]
    if not rows:
        return None
    loads, arms = list(dict.fromkeys(row["load"] for row in rows)), list(dict.fromkeys(row["arm"] for row in rows))
    others = iter(OTHER_COLOURS * len(arms))
    colours = {arm: _ARM_COLOURS.get(arm) or next(others) for arm in arms}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        width, labelled = 0.8 / len(arms), set()
        for row in rows:
            arm, (median, lowest, highest) = row["arm"], row["per_token_mean_ms"]
            place = loads.index(row["load"]) + (arms.index(arm) - (len(arms) - 1) / 2) * width
            axes.bar(
                place, median, width * 0.9, color=colours[arm], label=None if arm in labelled else ARM_LABELS.get(arm, arm)
            )
            axes.plot([place, place], [lowest, highest], color=INK, linewidth=1)
            labelled.add(arm)
        axes.set_xticks(range(len(loads)), [name_of(load) for load in loads])
        axes.set_xlabel("load, in multiples of what the engine can serve")
        axes.set_ylabel("ms per token, mean")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return svg((7.5, 3.0), "benchmarks", draw)


PLOTS: Mapping[str, Callable[[Results], str | None]] = {
    "throughput": throughput_plot,
    "latency": latency_plot,
    "vllm": vllm_plot,
}
"""Name of the file under docs/benchmarks, without .svg."""
