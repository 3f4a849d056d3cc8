"""Pure: what the parts found → the headline figures, the targets, the table."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.report import FAILED, aligned

Figures = Mapping[str, Any]


class Target(NamedTuple):
    """unit is in the name of the figure. limit: to stay below, or to reach."""

    figure: str
    limit: float
    stay_below: bool


TARGETS = (Target("p99_ms_at_1000_per_s", 2.0, True), Target("prompts_per_s_in_batches", 50_000.0, False))
"""On one H200."""


def headline(parts: Mapping[str, Figures]) -> dict[str, Any]:
    """Figures by precision, absent where a part failed. parts: the figures of each.

    Of two times, `x_vs_y` is y's over x's: above 1, x is faster. Over all shapes it is [median, lowest, highest].
    rpc_vs_device_floor: for one prompt the median time end to end over the floor's, for batches the floor's prompts per second over
    those end to end. 1 would be a sidecar that costs nothing.
    """
    rpc, floor = parts.get("rpc", {}), parts.get("floor", {})
    cells = [*parts.get("variants", {}).get("cells", ()), *parts.get("tensorrt", {}).get("cells", ())]
    keep = ("max_score_difference", "kendall_tau_b")
    singles = {precision: each["single"] for precision, each in rpc.items() if "single" in each}
    return {
        "p99_ms_at_1000_per_s": {
            precision: single["p99_ms"]
            for precision, single in singles.items()
            if single["calls_per_s"] == 1_000 and single["p99_ms"] is not None and not single["failures"]
        },
        "prompts_per_s_in_batches": _best_batches(rpc),
        "parity": {precision: {name: each[name] for name in keep} for precision, each in parts.get("parity", {}).items()},
        "io_binding_vs_plain": _by_precision(cells, "io_binding", "plain"),
        # These two are bound to fixed buffers as well: beside a plain run, that would be credited to them.
        "cuda_graph_vs_io_binding": _by_precision(cells, "cuda_graph", "io_binding"),
        "tensorrt_vs_io_binding": _by_precision(cells, "tensorrt", "io_binding"),
        "fp16_vs_fp32": _faster(_times(cells, "fp16", "plain"), _times(cells, "fp32", "plain")),
        "rpc_vs_device_floor": _over_floor(singles, _best_batches(rpc), floor),
    }


def targets(figures: Figures) -> list[dict[str, Any]]:
    """Each target with the best precision's value. met: None where nothing was measured."""
    rows = []
    for target in TARGETS:
        values = figures[target.figure]
        best = (min if target.stay_below else max)(values, key=values.__getitem__, default=None)
        value = None if best is None else values[best]
        met = None if value is None else (value < target.limit) if target.stay_below else (value >= target.limit)
        rows.append({"figure": target.figure, "target": target.limit, "value": value, "precision": best, "met": met})
    return rows


def table(parts: Mapping[str, Figures], figures: Figures) -> list[str]:
    """Lines for people: end to end beside the floor, then every cell."""
    lines: list[tuple[str, ...]] = []
    for precision, each in parts.get("rpc", {}).items():
        single, floor = each.get("single"), parts.get("floor", {}).get(precision, {})
        if single:
            name = f"{precision}, {single['calls_per_s']:g} single prompts/s"
            lines.append((name, _shown(single["p50_ms"]), _shown(single["p99_ms"]), ""))
        alone = [_shown(floor.get(name)) for name in ("single_p50_ms", "single_p99_ms")]
        lines.append((f"{precision}, floor of a single prompt", *alone, ""))
        for batch in each.get("batches", ()):
            name = f"{precision}, {batch['prompts_per_call']} prompts a call"
            lines.append((name, _shown(batch["p50_ms"]), _shown(batch["p99_ms"]), _shown(batch["prompts_per_s"])))
        lines.append((f"{precision}, floor of batches", "", "", _shown(floor.get("prompts_per_s"))))
    cells = [
        (
            f"{cell['precision']} {cell['variant']} {cell['batch_prompts']} x {cell['prompt_tokens']}",
            _shown(cell["p50_ms"]),
            _shown(cell["p99_ms"]),
            _shown(cell["prompts_per_s"]),
        )
        for part in ("variants", "tensorrt")
        for cell in parts.get(part, {}).get("cells", ())
    ]
    ratios = [(name, str(value)) for name, value in figures.items()]
    header = ("", "p50 ms", "p99 ms", "prompts/s")
    return [*aligned(header, lines), "", *aligned(header, cells), "", *(f"{name}: {value}" for name, value in ratios)]


def _best_batches(rpc: Figures) -> dict[str, float]:
    return {
        precision: max(batch["prompts_per_s"] for batch in each["batches"])
        for precision, each in rpc.items()
        if each.get("batches") and not any(batch["failures"] for batch in each["batches"])
    }


def _over_floor(singles: Figures, batches: Mapping[str, float], floor: Figures) -> dict[str, Any]:
    return {
        precision: {
            "single_p50": singles[precision]["p50_ms"] / each["single_p50_ms"]
            if precision in singles and singles[precision]["p50_ms"]
            else None,
            "batches": each["prompts_per_s"] / batches[precision] if batches.get(precision) else None,
        }
        for precision, each in floor.items()
    }


Times = Mapping[tuple[int, int], float]


def _times(cells: Sequence[Figures], precision: str, variant: str) -> Times:
    return {
        (cell["batch_prompts"], cell["prompt_tokens"]): cell["p50_ms"]
        for cell in cells
        if cell["precision"] == precision and cell["variant"] == variant
    }


def _by_precision(cells: Sequence[Figures], variant: str, beside: str) -> dict[str, list[float]]:
    found = {
        precision: _faster(_times(cells, precision, variant), _times(cells, precision, beside))
        for precision in dict.fromkeys(cell["precision"] for cell in cells)
    }
    return {precision: ratio for precision, ratio in found.items() if ratio is not None}


def _faster(times: Times, beside: Times) -> list[float] | None:
    """[median, lowest, highest] over the shapes that both have; None without any."""
    ratios = [beside[shape] / times[shape] for shape in times if shape in beside]
    return [statistics.median(ratios), min(ratios), max(ratios)] if ratios else None


def _shown(value: float | None) -> str:
    return FAILED if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"
