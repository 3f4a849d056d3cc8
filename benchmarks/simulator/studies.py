"""What is simulated: orders, rankers, windows, the time to ask, fleets. Each study is a list of rows; nothing in it was measured."""

import dataclasses
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.report import aligned
from benchmarks.simulator.assumed import ENGINE, STEP_MODEL, prompt_weight
from benchmarks.simulator.disciplines import (
    NEVER,
    Discipline,
    FirstCome,
    PredictedRemaining,
    ResponseRatio,
    StaticPriority,
    TrueRemaining,
)
from benchmarks.simulator.figures import simulated_figures
from benchmarks.simulator.hook import Hook
from benchmarks.simulator.rankers import oracle, ranker_of_tau
from benchmarks.simulator.request import Estimate, Request
from benchmarks.simulator.simulate import Balancer, Setup, simulate
from benchmarks.simulator.traces import Workload, at_rate
from vllm_client.priority import WINDOW_BACKLOGS, PolicyName, PolicySettings

USUAL_TAU = 0.5
"""Of the simulated ranker: the shipped one reaches 0.48 on a set that it never learned and more on its own (chain.json)."""
PERFECT_TAU = 1.0

ASK_MS = 5.0
"""What a score takes."""
USUAL_LOAD = 1.0
"""Arrivals as a share of what the engine can do at most: in a real trace, too much at times and too little at others."""
LOADS = (0.9, 1.1)
OVERLOAD = 1.2
FLEET_ENGINES = 4

USUAL_SEEDS = 5
"""How often all that is drawn is drawn anew. With one draw, asking in 0 or in 10 ms made a difference of 0.04 to a ratio."""

ROW_FIGURES = (
    *("duration_s", "output_tokens_per_s", "e2e_mean_s", "e2e_p50_s", "e2e_p90_s", "e2e_p99_s", "ttft_mean_s", "ttft_p90_s"),
    *("per_token_mean_ms", "per_token_p90_ms", "longest_wait_s", "slowdown_mean", "slowdown_p99", "slowdown_max"),
    *("queue_mean", "queue_max", "preemptions"),
)
RATIO_FIGURES = ("e2e_mean_s", "e2e_p90_s", "e2e_p99_s", "ttft_mean_s", "per_token_mean_ms", "longest_wait_s", "slowdown_mean")


@dataclass(frozen=True, slots=True)
class Case:
    """One simulation. tau: of the ranker, PERFECT_TAU for an oracle, None for no ranker. discipline: made when it is known how many
    response tokens a prompt token is worth. ask_ms: of the hook; disciplines that need no hook know the estimates at once."""

    order: str
    tau: float | None = USUAL_TAU
    policy: PolicyName = "equal"
    discipline: Callable[[float], Discipline] = field(default=lambda weight: StaticPriority())
    settings: PolicySettings = field(default_factory=PolicySettings)
    ask_ms: float = ASK_MS
    window_backlogs: float = WINDOW_BACKLOGS
    load: float = USUAL_LOAD
    engines: int = 1
    balancer: Balancer = "round-robin"


FIRST_COME = Case("first come", None, discipline=lambda weight: FirstCome(), ask_ms=0.0)
AGEING = Case("ageing", policy="ageing")
ORACLE = dataclasses.replace(AGEING, order="ageing, oracle", tau=PERFECT_TAU)

ORDERS = (
    FIRST_COME,
    AGEING,
    # What a token costs the request: a step with all slots taken.
    Case("cost, as latency", policy="cost", settings=PolicySettings(prefill_ms_per_token=0.04, decode_ms_per_token=25.0)),
    # What it costs the engine: its share of that step. Stretched so that the window is used as far.
    Case(
        "cost, as work",
        policy="cost",
        settings=PolicySettings(prefill_ms_per_token=0.04, decode_ms_per_token=0.1, stretch=300.0),
    ),
    Case("shortest", policy="shortest"),
    Case("response ratio", discipline=ResponseRatio),
    Case("predicted remaining", discipline=PredictedRemaining),
    ORACLE,
    Case("shortest, oracle", PERFECT_TAU, policy="shortest"),
    Case("true work", PERFECT_TAU, discipline=lambda weight: TrueRemaining(weight, reconsider_steps=NEVER)),
    Case("true remaining", PERFECT_TAU, discipline=TrueRemaining),
)


def _loads() -> Iterator[Case]:
    for load in LOADS:
        yield from (dataclasses.replace(case, load=load) for case in (FIRST_COME, AGEING, ORACLE))


def _rankers() -> Iterator[Case]:
    yield FIRST_COME
    for tau in (0.0, 0.2, 0.4, 0.6, 0.8, PERFECT_TAU):
        yield dataclasses.replace(AGEING, order=f"ageing, tau {tau:g}", tau=tau)


def _windows() -> Iterator[Case]:
    yield FIRST_COME
    for window_s in (5, 10, 20, 40, 80, 160):
        settings = PolicySettings(window_ms=1000 * window_s, max_window_ms=0)
        yield dataclasses.replace(AGEING, order=f"ageing, {window_s} s that stay", settings=settings)
    yield dataclasses.replace(AGEING, order="ageing, 40 s that grow")


def _backlogs() -> Iterator[Case]:
    """Where more comes than the engine can do, so that the queue and with it the window grow."""
    for case in (
        FIRST_COME,
        dataclasses.replace(AGEING, order="ageing, 40 s that stay", settings=PolicySettings(max_window_ms=0)),
        *(
            dataclasses.replace(AGEING, order=f"ageing, {factor:g} times the backlog", window_backlogs=factor)
            for factor in (1.0, 2.0, WINDOW_BACKLOGS, 8.0)
        ),
    ):
        yield dataclasses.replace(case, load=OVERLOAD)


def _asking() -> Iterator[Case]:
    yield FIRST_COME
    for ask_ms in (0.0, 10.0, 100.0, 1000.0):
        yield dataclasses.replace(AGEING, order=f"ageing, asked in {ask_ms:g} ms", ask_ms=ask_ms)


def _fleets() -> Iterator[Case]:
    balancers: tuple[Balancer, ...] = ("round-robin", "least-loaded")
    for balancer in balancers:
        for case in (FIRST_COME, AGEING, ORACLE):
            yield dataclasses.replace(
                case,
                order=f"{case.order}, {balancer}",
                engines=FLEET_ENGINES,
                balancer=balancer,
            )


STUDIES: Mapping[str, Sequence[Case]] = {
    "orders": ORDERS,
    "loads": tuple(_loads()),
    "rankers": tuple(_rankers()),
    "windows": tuple(_windows()),
    "backlogs": tuple(_backlogs()),
    "asking": tuple(_asking()),
    "fleets": tuple(_fleets()),
}


def study(cases: Sequence[Case], name: str, workload: Workload, seeds: int) -> dict[str, Any]:
    """The rows of one workload. Ratios are to first come, first served at the same load, behind the same balancer and on the draw of the
    same seed; of several seeds they are medians, and the lowest and highest come along. So are figures."""
    draws = [_draw(cases, f"{name}, seed {seed}", workload(seed), seed) for seed in range(seeds)]
    rows = []
    for place, case in enumerate(cases):
        ratios = [draw.ratios[place] for draw in draws]
        ranges = {each: [min(of[each] for of in ratios), max(of[each] for of in ratios)] for each in RATIO_FIGURES}
        rows.append(
            {
                "simulated": True,
                "order": case.order,
                "tau": case.tau,
                "offered_load": case.load,
                "engines": case.engines,
                "balancer": case.balancer,
                "figures": _medians([draw.figures[place] for draw in draws]),
                "ratios_to_first_come": _medians(ratios),
                **({"ratio_ranges": ranges} if seeds > 1 else {}),
            }
        )
    return {"seeds": seeds, **_medians([draw.requests for draw in draws]), "rows": rows}


@dataclass(frozen=True, slots=True)
class _Draw:
    """One seed. requests: what it drew. figures and ratios: of each case."""

    requests: Mapping[str, float]
    figures: Sequence[Mapping[str, float]]
    ratios: Sequence[Mapping[str, float]]


def _draw(cases: Sequence[Case], name: str, requests: Sequence[Request], seed: int) -> _Draw:
    capacity = capacity_per_s(requests)
    all_figures, ratios = [], []
    baseline: dict[tuple[float, int, str], Mapping[str, float]] = {}
    for case in cases:
        print(f"{name}: {case.order}", file=sys.stderr, flush=True)
        figures = _figures(case, requests, capacity, seed)
        place = (case.load, case.engines, case.balancer)
        if case.tau is None:
            baseline[place] = figures
        all_figures.append({each: figures[each] for each in ROW_FIGURES})
        ratios.append({each: figures[each] / baseline[place][each] for each in RATIO_FIGURES})
    drawn = {
        "requests": len(requests),
        "prompt_tokens_mean": statistics.fmean(each.prompt_tokens for each in requests),
        "output_tokens_mean": statistics.fmean(each.output_tokens for each in requests),
        "engine_requests_per_s": capacity,
    }
    return _Draw(drawn, all_figures, ratios)


def _medians(of: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in of) for name in of[0]}


def capacity_per_s(requests: Sequence[Request]) -> float:
    """Requests a second that one engine serves when all of them are there from the beginning."""
    at_once = [dataclasses.replace(each, arrival_ms=0.0) for each in requests]
    run = simulate(Setup(ENGINE, STEP_MODEL, FirstCome()), at_once)
    return 1000 * len(requests) / max(outcome.finished_ms for outcome in run.outcomes)


def study_table(name: str, found: Mapping[str, Any]) -> list[str]:
    """Lines: the rows of one workload, for people."""
    shown = (
        *("e2e_mean_s", "e2e_p90_s", "e2e_p99_s", "per_token_mean_ms", "per_token_p90_ms", "ttft_mean_s", "longest_wait_s"),
        *("slowdown_mean", "queue_mean", "preemptions"),
    )
    lines = [
        (f"{row['order']} ({row['offered_load']:g})", *(f"{row['figures'][each]:.4g}" for each in shown))
        for row in found["rows"]
    ]
    return aligned((f"simulated: {name} (load)", *shown), lines)


def _figures(case: Case, requests: Sequence[Request], capacity: float, seed: int) -> Mapping[str, Any]:
    sent = at_rate(requests, case.load * capacity * case.engines)
    setup = Setup(
        ENGINE,
        STEP_MODEL,
        case.discipline(prompt_weight(requests)),
        Hook(
            case.policy,
            case.settings,
            gate_in_flight=ENGINE.max_num_seqs // 4,
            ask_ms=case.ask_ms,
            window_backlogs=case.window_backlogs,
        ),
        engines=case.engines,
        balancer=case.balancer,
    )
    return simulated_figures(simulate(setup, sent, _estimates(case, sent, seed)), STEP_MODEL)


def _estimates(case: Case, requests: Sequence[Request], seed: int) -> Sequence[Estimate | None] | None:
    lengths = [each.output_tokens for each in requests]
    if case.tau is None:
        return None
    return oracle(lengths) if case.tau == PERFECT_TAU else ranker_of_tau(lengths, case.tau, seed)
