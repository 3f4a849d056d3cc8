"""How results are kept and shown: small JSON for machines, an aligned table for people."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import FIGURES, Row, Spread

DIGITS = 5
"""Significant digits in JSON: more than any run repeats."""

FAILED = "FAILED"

NOT_SHOWN = ("prompts_per_s", "mean_prompt_tokens", "server_pss_mib")
"""Among the table's last columns: the first is one of its own, the others are for the JSON."""


def row_json(row: Row) -> dict[str, Any]:
    """A row as JSON: each figure as [median, lowest, highest] over the clean rounds; absent when there is none."""
    figures = {figure: list(spread) for figure in FIGURES if (spread := row.spread(figure)) is not None}
    return {
        "name": row.name,
        "what": row.what,
        "clean_rounds": len(row.clean_rounds),
        "failed_rounds": len(row.rounds) - len(row.clean_rounds),
        "completed_calls": sum(each.completed_calls for each in row.rounds),
        "failed_calls": row.failures,
        **figures,
    }


def ratios_json(ratios: Mapping[str, Spread | None]) -> dict[str, Any]:
    """`ratios`: the medians, null where a side failed. `ratio_ranges`: lowest and highest round."""
    return {
        "ratios": {name: spread and spread.median for name, spread in ratios.items()},
        "ratio_ranges": {name: spread and [spread.lowest, spread.highest] for name, spread in ratios.items()},
    }


def rows_table(rows: Iterable[Row]) -> list[str]:
    """Lines: one row each, client time and the server's own split beside each other. A failure anywhere in it marks the row."""
    header = ["", "prompts/s", "± %", "p50 ms", "p90 ms", "p99 ms"]
    header += ["tokenise", "queue", "infer", "outside"]
    header += ["caller CPU", "scorer CPU", "RSS MiB", "failed"]
    lines = []
    for row in rows:
        rate = row.spread("prompts_per_s")
        swing = "" if rate is None or not rate.median else f"{50 * (rate.highest - rate.lowest) / rate.median:.1f}"
        shown = [_median(row, figure) for figure in FIGURES if figure not in NOT_SHOWN]
        failed = "" if len(row.clean_rounds) == len(row.rounds) else f"{FAILED} {sum(row.failures.values()) or 'no answer'}"
        lines.append((row.what, _median(row, "prompts_per_s"), swing, *shown, failed))
    return aligned(header, lines)


def ratios_table(ratios: Mapping[str, Spread | None]) -> list[str]:
    """Lines: median and range of each ratio."""
    lines = [
        (name, f"{spread.median:.3f}", f"{spread.lowest:.3f}", f"{spread.highest:.3f}") if spread else (name, FAILED, "", "")
        for name, spread in ratios.items()
    ]
    return aligned(("ratio, same run", "median", "lowest", "highest"), lines)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in (header, *rows)]


def plain(value: Any, digits: int = DIGITS) -> Any:
    """Dataclasses, tuples and long floats → what JSON should hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value), digits)
    if isinstance(value, Mapping):
        return {str(key): plain(each, digits) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, digits) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return value


def write_json(path: Path, document: Mapping[str, Any], digits: int = DIGITS) -> None:
    """Write under a temporary name and rename: an interrupted run leaves the old file. NaN is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coming = path.with_name(f".{path.name}.{os.getpid()}")
    coming.write_text(
        json.dumps(plain(document, digits), indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    coming.rename(path)


def _median(row: Row, figure: str) -> str:
    spread = row.spread(figure)
    if spread is None:
        return ""
    return f"{spread.median:.0f}" if spread.median >= 100 else f"{spread.median:.3g}"
