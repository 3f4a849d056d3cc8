"""The hook on a real vLLM: order under load, and added latency without: `python -m benchmarks.bench_vllm --out … --records …`.

Under load: first come first served, the ranker of `--bundle`, an oracle and others (arms), at several loads (plan), each attached
through the same hook; the client is `vllm bench serve`. At low load: engines with and without the hook, side by side. Finished runs are
kept, so that hours of them can be gathered in pieces: the same call goes on where the last one was, and with `--reports` where
another machine's was. `--parts`, `--arms`, `--loads` and `--starts` choose what is gathered; the report has all that there is, or with
`--asked-only` just that. `--budget-minutes 0` only writes it.
"""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_vllm.arms import ARM_NAMES
from benchmarks.bench_vllm.gathering import Gathering
from benchmarks.bench_vllm.kept_runs import BENCHMARK, LOW_LOAD, KeptRuns, ReportError, reported_tries
from benchmarks.bench_vllm.latency import gather_low_load, latency_table, low_load_part
from benchmarks.bench_vllm.plan import LOADS, REQUESTS, REQUESTS_AT, STARTS
from benchmarks.bench_vllm.report import NOTES, about, runs_part
from benchmarks.bench_vllm.rows import ratio_lines, rows_table
from benchmarks.bench_vllm.run import LoadSettings
from benchmarks.bench_vllm.site import Bench, site_of
from benchmarks.circumstances import SMOKE_NOTE
from benchmarks.flags import some_of
from benchmarks.leaving import signals_leave
from benchmarks.process import ProcessError
from benchmarks.replay import RecordsError
from benchmarks.report import write_json
from benchmarks.stamp import REPOSITORY, make_stamp
from sidecar.errors import SidecarError

MODULE = "benchmarks.bench_vllm"

LOAD = "load"
PARTS = (LOAD, LOW_LOAD)

SMOKE_REQUESTS, SMOKE_ARMS, SMOKE_LOADS = 40, ("equal", "ours", "oracle"), ("1.0",)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: the report is written; 1: a request or a run failed (the report says which), or something could not start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp, bench = make_stamp(MODULE, given), _bench(flags)
    parts = (LOAD,) if flags.smoke else flags.parts
    report: dict[str, Any] = {"benchmark": BENCHMARK, "notes": [*NOTES, *([SMOKE_NOTE] if flags.smoke else [])]}
    try:
        # A smoke run that finds another's runs would show nothing.
        with tempfile.TemporaryDirectory(prefix="pars-bench-") as fresh, contextlib.ExitStack() as stack:
            kept = KeptRuns(Path(fresh)) if flags.smoke else KeptRuns(flags.runs, reported_tries(flags.reports))
            site = stack.enter_context(site_of(bench, flags.vllm_bin, kept, stamp))
            gathering = Gathering(bench, site, None if flags.budget_minutes is None else 60 * flags.budget_minutes)
            gathering.gather(lambda number: gather_low_load(bench, site, number) if LOW_LOAD in parts else None)
            whole = bench if flags.smoke or flags.asked_only else _all_of(bench)
            report |= about(site) | runs_part(whole, Gathering(whole, site, budget_s=0.0))
            if low_load := low_load_part(whole, site):
                report[LOW_LOAD] = low_load
    except (ProcessError, RecordsError, SidecarError, ReportError, OSError) as error:
        print(f"bench_vllm: {error}", file=sys.stderr)
        return 1
    if not report["runs"] and LOW_LOAD not in report:
        print(f"bench_vllm: {flags.runs} has no run of these sources; {flags.out} is not written", file=sys.stderr)
        return 1
    write_json(flags.out, report)
    print("\n".join([*rows_table(report["rows"]), "", *ratio_lines(report["ratios"]), ""]))
    if LOW_LOAD in report:
        print("\n".join([*latency_table(report[LOW_LOAD]["summary"]), ""]))
    # What a later try made good is good.
    last = {(run["arm"], run["load"], run["repetition"]): run for run in report.get("runs", [])}
    return 1 if any("figures" not in run or run["figures"]["failed"] for run in last.values()) else 0


def _bench(flags: argparse.Namespace) -> Bench:
    under_load = flags.smoke or LOAD in flags.parts
    return Bench(
        records=flags.records,
        bundle=flags.bundle,
        arms=SMOKE_ARMS if flags.smoke else flags.arms,
        loads=SMOKE_LOADS if flags.smoke else flags.loads if under_load else (),
        starts=1 if flags.smoke else flags.starts,
        requests=SMOKE_REQUESTS if flags.smoke else flags.requests,
        requests_at={} if flags.smoke else flags.requests_at,
        latency_starts=0 if flags.smoke or (flags.asked_only and LOW_LOAD not in flags.parts) else flags.latency_starts,
        rounds=flags.rounds,
        seed=flags.seed,
        settings=LoadSettings(max_num_seqs=flags.max_num_seqs, step_ms=flags.step_ms, deadline_ms=flags.deadline_ms),
        smoke=flags.smoke,
    )


def _all_of(bench: Bench) -> Bench:
    """The same, whatever part of it was asked for."""
    return dataclasses.replace(
        bench,
        arms=ARM_NAMES,
        loads=LOADS,
        starts=max(bench.starts, STARTS),
        latency_starts=max(bench.latency_starts, STARTS),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--records", type=Path, help=".parquet or .jsonl with prompt and response_tokens; default: made up")
    parser.add_argument("--bundle", type=Path, default=REPOSITORY / "bundles" / "default_ranker-fp32", help="for the sidecar")
    parser.add_argument("--vllm-bin", type=Path, default=REPOSITORY / ".venv-vllm" / "bin", help="of vLLM's environment")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "bench_vllm", help="where finished runs are kept")
    parser.add_argument(
        "--reports",
        type=Path,
        nargs="*",
        default=[],
        help="earlier reports, of other machines perhaps: what they have is not made again",
    )
    parser.add_argument(
        "--budget-minutes", type=float, help="begin no run after that; 0: only report what there is (default: to the end)"
    )
    parser.add_argument("--parts", type=some_of(PARTS), default=PARTS, help=f"to gather, of {','.join(PARTS)}; default: both")
    parser.add_argument(
        "--arms", type=some_of(ARM_NAMES), default=ARM_NAMES, help=f"to gather, of {','.join(ARM_NAMES)}; default: all"
    )
    parser.add_argument("--loads", type=some_of(LOADS), default=LOADS, help=f"to gather, of {','.join(LOADS)}; default: all")
    parser.add_argument(
        "--starts", type=int, default=STARTS, help=f"repetitions: engine starts of each arm at each load (default {STARTS})"
    )
    parser.add_argument(
        "--asked-only", action="store_true", help="the report has only the parts, arms, loads and starts asked for"
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of a run (default {REQUESTS})")
    parser.add_argument(
        "--requests-at",
        type=counts_by_load,
        default=REQUESTS_AT,
        help=f"of a run at some loads (default {','.join(f'{load}={count}' for load, count in REQUESTS_AT.items())})",
    )
    parser.add_argument("--max-num-seqs", type=int, default=16, help="requests that the engine runs at a time (default 16)")
    parser.add_argument("--step-ms", type=float, default=20.0, help="what each step is padded to under load (default 20)")
    parser.add_argument("--deadline-ms", type=int, default=100, help="of the hook under load (default 100)")
    parser.add_argument("--latency-starts", type=int, default=STARTS, help=f"engine starts at low load (default {STARTS})")
    parser.add_argument("--rounds", type=int, default=100, help="requests to each engine at low load (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the first repetition's requests and arrivals (default 0)")
    parser.add_argument("--smoke", action="store_true", help="two minutes in all: does it work? Measures nothing")
    return parser


def counts_by_load(text: str) -> dict[str, int]:
    """For a flag like 1.0=2000,burst=2000."""
    counts = {}
    for part in text.split(","):
        load, _, count = part.partition("=")
        if load not in LOADS or not count.isdecimal() or int(count) == 0:
            raise argparse.ArgumentTypeError(f"{part} is not LOAD=COUNT with a load of {', '.join(LOADS)}")
        counts[load] = int(count)
    return counts


if __name__ == "__main__":
    # An engine must not be left behind by whoever stops this.
    with signals_leave():
        sys.exit(main())
