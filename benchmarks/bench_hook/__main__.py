"""The hook's own cost per request, with a ranker that answers at once: `python -m benchmarks.bench_hook --out …`.

The middleware runs around an application that does nothing, in a process of its own; the ranker is another process. Every round
measures every case, and what the hook adds is the difference to the bare application within a round.
"""

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.rankers import oracle
from benchmarks.circumstances import circumstances
from benchmarks.flags import at_least_one
from benchmarks.leaving import signals_leave
from benchmarks.measurement import percentile, spread_of
from benchmarks.process import LineProcess, ProcessError
from benchmarks.report import aligned, write_json
from benchmarks.stamp import make_stamp

MODULE = "benchmarks.bench_hook"

REQUESTS, ROUNDS = 3_000, 7
SMOKE_REQUESTS = 60

START_S, JOB_S = 60.0, 300.0

SMALL_BYTES, LARGE_BYTES = 1_024, 65_536

BARE_SMALL, BARE_LARGE = "bare", "bare_64kb"

NOTES = (
    "Microseconds per request. `added` is to the bare application with the same body, within a round; figures are the median over the "
    "rounds, with the lowest and the highest beside it.",
    "wall is from calling the middleware to its return. With 32 in flight most of it is waiting for the other 31 on the same core; "
    "cpu, of the whole driving process with gRPC's threads, is then the cost.",
    "The ranker is a small asyncio server in Python on another core; its own time is part of the scored cases' wall.",
    "frozen: the ranker is stopped with SIGSTOP, then one request per millisecond is sent. The first few pay the deadline.",
)


@dataclass(frozen=True, slots=True)
class Case:
    """settings: of the hook; None: no middleware. ranker: whose address the hook gets. pause_s: after each request."""

    name: str
    what: str
    settings: Mapping[str, Any] | None
    ranker: str = "instant"
    in_flight: int = 1
    body_bytes: int = SMALL_BYTES
    pause_s: float = 0.0

    @property
    def bare(self) -> str:
        """The case that it is compared with."""
        return BARE_SMALL if self.body_bytes == SMALL_BYTES else BARE_LARGE


# What "auto" comes to in vLLM, which the hook does not find here.
HEADER = {"priority_place": "header"}
# A late answer is an answer here: what is measured is the cost of asking, not of giving up.
ASK = {**HEADER, "gate_in_flight": 0, "deadline_ms": 1_000.0}

CASES = (
    Case(BARE_SMALL, "no middleware, 1 kB", None),
    Case("gated", "gated, 1 kB", HEADER),
    Case("scored", "scored, 1 in flight, 1 kB", ASK),
    Case("scored_body", "scored, priority into the body, 1 kB", {**ASK, "priority_place": "body"}),
    Case("scored_32", "scored, 32 in flight, 1 kB", ASK, in_flight=32),
    Case("unconnected", "no sidecar, 1 kB", {**HEADER, "gate_in_flight": 0}, ranker="nobody"),
    Case(
        "breaker_open",
        "breaker open, 1 kB",
        {**HEADER, "gate_in_flight": 0, "deadline_ms": 0.1, "breaker_failures": 1, "breaker_open_ms": 3_600_000},
    ),
    Case(BARE_LARGE, "no middleware, 64 kB", None, body_bytes=LARGE_BYTES),
    Case("gated_64kb", "gated, 64 kB", HEADER, body_bytes=LARGE_BYTES),
    Case("scored_64kb", "scored, 1 in flight, 64 kB", ASK, body_bytes=LARGE_BYTES),
)

FROZEN = Case("frozen", "sidecar frozen meanwhile, 1 kB", {**HEADER, "gate_in_flight": 0}, ranker="frozen", pause_s=0.001)

ASKING = frozenset({"scored", "scored_body", "scored_32", "scored_64kb", "breaker_open", "frozen"})

EXPECTED = {
    "gated": {"gated"},
    "gated_64kb": {"gated"},
    "scored": {"scored"},
    "scored_body": {"scored"},
    "scored_32": {"scored"},
    "scored_64kb": {"scored"},
    "unconnected": {"unconnected"},
    "breaker_open": {"breaker_open"},
}
"""Outcomes that a case may have. Any other makes it a failure: something else was measured."""


class Driver:
    """The near side of driver."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process
        self.about: dict[str, Any] = json.loads(process.line(START_S))

    def run(self, case: Case, address: str, requests: int) -> dict[str, Any]:
        """One job."""
        settings = None if case.settings is None else {"address": address, **case.settings}
        job = {
            "name": case.name,
            "settings": settings,
            "requests": requests,
            "in_flight": case.in_flight,
            "body_bytes": case.body_bytes,
            "pause_s": case.pause_s,
        }
        self._process.say(json.dumps(job))
        answer: dict[str, Any] = json.loads(self._process.line(JOB_S))
        return answer

    def connect(self, case: Case) -> None:
        """Wait until the hook of a case that has been run before is connected."""
        self._process.say(json.dumps({"connect": case.name}))
        self._process.line(JOB_S)


def round_figures(answer: Mapping[str, Any]) -> dict[str, float]:
    """Of one job, in microseconds per request."""
    wall_us = [each / 1_000 for each in answer["wall_ns"]]
    return {
        "wall_mean_us": sum(wall_us) / len(wall_us),
        "wall_p50_us": percentile(wall_us, 50) or 0.0,
        "wall_p99_us": percentile(wall_us, 99) or 0.0,
        "wall_max_us": max(wall_us),
        "cpu_us": 1e6 * answer["cpu_s"] / len(wall_us),
        "requests_per_s": len(wall_us) / answer["wall_s"],
    }


def case_row(case: Case, rounds: Sequence[Mapping[str, Any]], bare: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A case over all rounds: each figure, and what it adds to the bare application in the same round, as [median, lowest, highest]."""
    own = [round_figures(answer) for answer in rounds]
    base = [round_figures(answer) for answer in bare]
    added = ("wall_p50_us", "wall_p99_us", "cpu_us")
    outcomes: dict[str, int] = {}
    for answer in rounds:
        for outcome, count in answer["outcomes"].items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    unexpected = sum(count for outcome, count in outcomes.items() if outcome not in EXPECTED.get(case.name, set(outcomes)))
    return {
        "name": case.name,
        "what": case.what,
        "body_bytes": case.body_bytes,
        "in_flight": case.in_flight,
        "settings": case.settings,
        "requests": sum(len(answer["wall_ns"]) for answer in rounds),
        "unexpected": unexpected,
        "outcomes": outcomes,
        **{name: spread_of([figures[name] for figures in own]) for name in own[0]},
        # Its pauses cost CPU too, so a paced case is not compared by it.
        **{
            f"added_{name}": spread_of([one[name] - other[name] for one, other in zip(own, base, strict=True)])
            for name in added
            if case.settings is not None and not (case.pause_s and name == "cpu_us")
        },
        **({"slower_than_1_ms": _slow(rounds, 1e6), "slower_than_5_ms": _slow(rounds, 5e6)} if case.pause_s else {}),
    }


def run(python: Path, requests: int, rounds: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure everything; returns the rows and what the driver says of itself. Raises ProcessError."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-"))
        addresses = {name: f"unix:{folder}/{name}.sock" for name in ("instant", "frozen", "nobody")}
        stack.enter_context(oracle(addresses["instant"], "--quantile", "0.5"))
        frozen = stack.enter_context(oracle(addresses["frozen"], "--quantile", "0.5"))
        # -P: the client that is installed there, not the modules that happen to lie beside the driver.
        command = [str(python.absolute()), "-P", str(Path(__file__).with_name("driver.py"))]
        driver = Driver(stack.enter_context(LineProcess(command, merge_stderr=False)))
        answers: dict[str, list[dict[str, Any]]] = {case.name: [] for case in (*CASES, FROZEN)}
        for case in (*CASES, FROZEN):
            driver.run(case, addresses[case.ranker], 1)
            if case.name in ASKING:
                driver.connect(case)
            driver.run(case, addresses[case.ranker], max(requests // 10, 1))
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            for case in CASES if number % 2 == 0 else CASES[::-1]:
                answers[case.name].append(driver.run(case, addresses[case.ranker], requests))
            driver.connect(FROZEN)
            with _stopped(frozen):
                answers[FROZEN.name].append(driver.run(FROZEN, addresses["frozen"], requests))
        rows = [case_row(case, answers[case.name], answers[case.bare]) for case in (*CASES, FROZEN)]
        return rows, driver.about


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines: medians, and what is added."""
    columns = ("wall_p50_us", "wall_p99_us", "cpu_us", "added_wall_p50_us", "added_wall_p99_us", "added_cpu_us")
    lines = []
    for row in rows:
        medians = [f"{row[name][0]:.1f}" if name in row else "" for name in columns]
        lines.append((row["what"], *medians, f"{row['wall_max_us'][2]:.0f}", str(row["unexpected"] or "")))
    header = ("us per request", "p50", "p99", "cpu", "added p50", "added p99", "added cpu", "max", "unexpected")
    return aligned(header, lines)


@contextlib.contextmanager
def _stopped(process: LineProcess) -> Iterator[None]:
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


def _slow(answers: Sequence[Mapping[str, Any]], limit_ns: float) -> int:
    return sum(each > limit_ns for answer in answers for each in answer["wall_ns"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: a case measured something else than it says (the report tells), or nothing could start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="of the environment in which the hook runs (default: this one)",
    )
    parser.add_argument(
        "--requests", type=at_least_one, default=REQUESTS, help=f"of each case in each round (default {REQUESTS})"
    )
    parser.add_argument(
        "--rounds", type=at_least_one, default=ROUNDS, help=f"how often every case is measured (default {ROUNDS})"
    )
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    flags = parser.parse_args(given)
    stamp = make_stamp(MODULE, given)
    requests, rounds = (SMOKE_REQUESTS, 1) if flags.smoke else (flags.requests, flags.rounds)
    try:
        rows, about = run(flags.python, requests, rounds)
    except ProcessError as error:
        print(f"bench_hook: {error}", file=sys.stderr)
        return 1
    report: dict[str, Any] = {
        "benchmark": "hook",
        "notes": [*NOTES, *circumstances(stamp, smoke=flags.smoke)],
        "stamp": dataclasses.asdict(stamp),
        "driver": about,
        "settings": {"requests": requests, "rounds": rounds, "smoke": flags.smoke},
        "rows": rows,
    }
    write_json(flags.out, report)
    print("\n".join([*table(rows), "", *report["notes"]]))
    return 1 if any(row["unexpected"] for row in rows) else 0


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
