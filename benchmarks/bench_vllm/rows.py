"""Pure: figures of all runs → one row for each arm and load, and the ratios that the targets are about."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.bench_vllm.arms import BASELINE, ORACLE, arm_named
from benchmarks.bench_vllm.figures import Figures
from benchmarks.bench_vllm.plan import BURST, LASTING, Planned, by_rate
from benchmarks.measurement import Spread, spread_of
from benchmarks.report import aligned

OURS = "ours"

TARGET_LOADS = ("1.0", "1.2", LASTING, "1.5", BURST)

LIGHT_LOAD = "0.3"

RATIO_FIGURES = (
    "e2e_mean_s",
    "e2e_p50_s",
    "e2e_p90_s",
    "e2e_p99_s",
    "e2e_max_s",
    "per_token_mean_ms",
    "per_token_p90_ms",
    "ttft_mean_s",
    "worst_slowdown",
    "output_tokens_per_s",
)

SHOWN_FIGURES = {
    "e2e_mean_s": "e2e mean s",
    "e2e_p50_s": "p50",
    "e2e_p90_s": "p90",
    "e2e_p99_s": "p99",
    "per_token_mean_ms": "ms/token mean",
    "per_token_p90_ms": "p90",
    "ttft_mean_s": "TTFT mean s",
    "worst_slowdown": "worst slowdown",
    "output_tokens_per_s": "tokens/s",
    "waiting_mean": "waiting",
    "step_p50_ms": "step ms",
    "scored_share": "scored",
}

CleanRuns = Mapping[Planned, Figures]
"""Of each run that has a clean try, the figures of it."""

Whys = Mapping[Planned, Sequence[str | None]]
"""Of each run that was tried, what was wrong with each of its tries; None: nothing."""

Taken = Callable[[Mapping[str, Figures]], float]
"""One repetition at one load, figures by arm → a ratio or a difference."""


def rows_of(clean: CleanRuns, tries: Whys, starts: int) -> list[dict[str, Any]]:
    """One row for each arm and load that was tried: the slowest arrivals first, arms in the order in which they first were.

    starts: repetitions with a clean run, of planned_starts. A figure is [median, lowest, highest] over them.
    """
    tried = sorted(dict.fromkeys((run.load, run.arm) for run in tries), key=lambda each: by_rate(each[0]))
    return [_row(arm, load, clean, tries, starts) for load, arm in tried]


def ratios_of(clean: CleanRuns) -> dict[str, dict[str, Any]]:
    """`ratios`: medians over the repetitions, None where no repetition has all runs that it takes. `ratio_ranges`: lowest, highest."""

    def at(loads: Iterable[str], arms: Sequence[str], taken: Taken) -> dict[str, Spread | None]:
        return {load: _over_repetitions(clean, load, arms, taken) for load in loads}

    def per_token(figures: Mapping[str, Figures], arm: str) -> float:
        return float(figures[arm]["per_token_mean_ms"])

    def gain_share(arms: Mapping[str, Figures]) -> float:
        most = per_token(arms, BASELINE) - per_token(arms, ORACLE)
        # Where even the oracle gains nothing there is no share of it.
        return (per_token(arms, BASELINE) - per_token(arms, OURS)) / most if most > 0 else float("nan")

    def loss(arms: Mapping[str, Figures]) -> float:
        return float(arms[OURS]["e2e_mean_s"] / arms[BASELINE]["e2e_mean_s"] - 1)

    spreads: dict[str, Any] = {
        "per_token_mean_fcfs_over_ours": at(
            TARGET_LOADS, (BASELINE, OURS), lambda arms: per_token(arms, BASELINE) / per_token(arms, OURS)
        ),
        "oracle_gain_share": at(TARGET_LOADS, (BASELINE, OURS, ORACLE), gain_share),
        "p99_ours_over_fcfs": at(
            TARGET_LOADS, (BASELINE, OURS), lambda arms: float(arms[OURS]["e2e_p99_s"] / arms[BASELINE]["e2e_p99_s"])
        ),
        "low_load_loss": _over_repetitions(clean, LIGHT_LOAD, (BASELINE, OURS), loss),
        "added_latency_share": at((LIGHT_LOAD, *TARGET_LOADS), (OURS,), lambda arms: float(arms[OURS]["hook_ask_share"])),
    }
    return {
        "ratios": _each(spreads, lambda spread: spread.median),
        "ratio_ranges": _each(spreads, lambda spread: [spread.lowest, spread.highest]),
    }


def rows_table(rows: Iterable[Figures]) -> list[str]:
    """Lines: the medians of each row; starts that are missing and tries that were not clean are marked."""
    lines = []
    for row in rows:
        medians = [f"{row[name][0]:.4g}" if name in row else "" for name in SHOWN_FIGURES]
        starts = f"{row['starts']}/{row['planned_starts']}"
        lines.append((f"{row['load']} {row['arm']}", starts, *medians, str(len(row["not_clean"]) or "")))
    return aligned(("load, arm", "starts", *SHOWN_FIGURES.values(), "not clean"), lines)


def ratio_lines(ratios: Mapping[str, Any]) -> list[str]:
    """Lines: each ratio, by load where it has one."""
    return [f"{name}: {value}" for name, value in ratios.items()]


def _row(arm: str, load: str, clean: CleanRuns, tries: Whys, planned_starts: int) -> dict[str, Any]:
    own = [figures for run, figures in clean.items() if (run.arm, run.load) == (arm, load)]
    outcomes = [why for run, whys in tries.items() if (run.arm, run.load) == (arm, load) for why in whys]
    names = dict.fromkeys(name for figures in own for name in figures)
    spreads = {name: spread_of([figures.get(name) for figures in own]) for name in names}
    return {
        "arm": arm,
        "load": load,
        "planned_starts": planned_starts,
        "starts": len(own),
        "tries": len(outcomes),
        "not_clean": [why for why in outcomes if why is not None],
        **{name: list(spread) for name, spread in spreads.items() if spread is not None},
        **({} if arm == BASELINE else _beside_baseline(arm, load, clean)),
    }


def _beside_baseline(arm: str, load: str, clean: CleanRuns) -> dict[str, Any]:
    """window_s: of the arm's policy, at the least where it grows; None for one without a bound. p99_over_fcfs_s: by how much the 99th
    percentile from end to end is above that of first come, first served; p99_over_window: the same in such windows."""
    both, window_ms = (arm, BASELINE), arm_named(arm).window_ms

    def ratio_of(name: str) -> Taken:
        return lambda arms: arms[arm][name] / arms[BASELINE][name]

    to_baseline = {name: _over_repetitions(clean, load, both, ratio_of(name)) for name in RATIO_FIGURES}
    later_s = _over_repetitions(clean, load, both, lambda arms: arms[arm]["e2e_p99_s"] - arms[BASELINE]["e2e_p99_s"])
    found: dict[str, Any] = {
        f"ratios_to_{BASELINE}": {name: list(spread) for name, spread in to_baseline.items() if spread is not None},
        "window_s": None if window_ms is None else window_ms / 1000,
    }
    if later_s is not None:
        found["p99_over_fcfs_s"] = list(later_s)
        if window_ms:
            found["p99_over_window"] = [1000 * value / window_ms for value in later_s]
    return found


def _over_repetitions(clean: CleanRuns, load: str, arms: Sequence[str], taken: Taken) -> Spread | None:
    """Taken within each repetition that has all the arms, which then had the same requests at the same times."""
    values = []
    for repetition in sorted({run.repetition for run in clean}):
        runs = {arm: clean.get(Planned(arm, load, repetition)) for arm in arms}
        if all(figures is not None for figures in runs.values()):
            value = taken({arm: figures for arm, figures in runs.items() if figures is not None})
            values += [value] if value == value else []  # not those that are no number
    return spread_of(values)


def _each(spreads: Mapping[str, Any], shown: Callable[[Spread], Any]) -> dict[str, Any]:
    def one(value: Any) -> Any:
        if value is None or isinstance(value, Spread):
            return value and shown(value)
        return {load: one(each) for load, each in value.items()}

    return {name: one(value) for name, value in spreads.items()}
