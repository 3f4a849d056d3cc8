"""The hook on a real vLLM: order under load, and added latency without: `python -m benchmarks.bench_vllm --out … --records …`.

Under load: first come first served, the shipped ranker, an oracle and others, each attached through the same hook; the client is
`vllm bench serve`. At low load: engines with and without the hook, side by side. Finished runs are kept, so that an interrupted
benchmark goes on where it was.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import ProcessError
from benchmarks.replay import RecordsError
from benchmarks.report import write_json
from benchmarks.stamp import REPOSITORY, make_stamp
from benchmarks.vllm_arms import ARMS, LoadSettings
from benchmarks.vllm_figures import arms_table
from benchmarks.vllm_latency import at_low_load, latency_table
from benchmarks.vllm_load import under_load
from benchmarks.vllm_site import Bench, site_of
from sidecar.errors import SidecarError
from vllm_client import DEFAULT_WINDOW_MS

MODULE = "benchmarks.bench_vllm"

LOAD, LOW_LOAD = "load", "low_load"
PARTS = (LOAD, LOW_LOAD)

ARM_NAMES = tuple(arm.name for arm in ARMS)

SMOKE_REQUESTS, SMOKE_ARMS = 40, ("equal", "oracle")

NOTES = (
    "A tiny Llama with random weights, on a CPU: the scheduling is vLLM's own, the speed says nothing. Responses have the recorded "
    "lengths, whatever their text.",
    "load: every step of the worker is padded to step_ms, and readers of shared memory sleep instead of spinning (vllm_pacing), "
    "since the engine, the sidecar and the client fight for the cores of a small machine otherwise. step_p50_ms and step_p99_ms say "
    "whether that held.",
    "load: the hook's deadline is deadline_ms and not its default of 10, because the encoder shares its cores with vLLM, vLLM's API "
    "server and the client.",
    f"load: the window of the ageing policy is its default, {DEFAULT_WINDOW_MS:,} ms. Where that is several times the longest_wait "
    "of the arm `equal`, ageing comes close to shortest first and its bound hardly shows.",
    "load: e2e is from sending to the last token; per_token is that divided by the response's tokens; longest_wait is the longest "
    "time to a first token. A summary is [median, lowest, highest] over engine starts. Ratios are taken within a repetition, in "
    "which all arms get the same requests at the same times; another repetition has other requests.",
    "low_load: unpadded engines side by side, one request at a time to one of them, in an order drawn anew each round; what is added "
    "is the difference to the engine without the middleware within a round.",
)
SMOKE_NOTE = "A smoke run: it shows that the benchmark works and measures nothing."


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: a request failed (the report says in which run), or something could not start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp, bench = make_stamp(MODULE, given), _bench(flags)
    parts = (LOAD,) if flags.smoke else flags.parts
    report: dict[str, Any] = {"benchmark": "vllm", "notes": [*NOTES, *([SMOKE_NOTE] if flags.smoke else [])], "stamp": stamp}
    try:
        with site_of(bench, flags.vllm_bin, flags.runs, stamp) as site:
            report |= site.common
            if LOAD in parts:
                report[LOAD] = under_load(bench, site)
            if LOW_LOAD in parts:
                report[LOW_LOAD] = at_low_load(bench, site)
    except (ProcessError, RecordsError, SidecarError, OSError) as error:
        print(f"bench_vllm: {error}", file=sys.stderr)
        return 1
    write_json(flags.out, report)
    if LOAD in report:
        print("\n".join([*arms_table(report[LOAD]["summary"]), ""]))
    if LOW_LOAD in report:
        print("\n".join([*latency_table(report[LOW_LOAD]["summary"]), ""]))
    return 1 if any(run["figures"]["failed"] for run in report.get(LOAD, {}).get("runs", [])) else 0


def _bench(flags: argparse.Namespace) -> Bench:
    names = SMOKE_ARMS if flags.smoke else flags.arms
    return Bench(
        records=flags.records,
        bundle=flags.bundle,
        arms=tuple(arm for arm in ARMS if arm.name in names),
        starts=1 if flags.smoke else flags.starts,
        latency_starts=flags.latency_starts,
        rounds=flags.rounds,
        seed=flags.seed,
        load=LoadSettings(
            requests=SMOKE_REQUESTS if flags.smoke else flags.requests,
            offered_load=flags.load,
            max_num_seqs=flags.max_num_seqs,
            step_ms=flags.step_ms,
            deadline_ms=flags.deadline_ms,
        ),
        smoke=flags.smoke,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--records", type=Path, help=".parquet or .jsonl with prompt and response_tokens; default: made up")
    parser.add_argument("--bundle", type=Path, default=REPOSITORY / "bundles" / "default_ranker-fp32", help="for the sidecar")
    parser.add_argument("--vllm-bin", type=Path, default=REPOSITORY / ".venv-vllm" / "bin", help="of vLLM's environment")
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "bench_vllm", help="where finished runs are kept")
    parser.add_argument("--parts", type=some_of(PARTS), default=PARTS, help=f"of {','.join(PARTS)}; default: both")
    parser.add_argument("--arms", type=some_of(ARM_NAMES), default=ARM_NAMES, help=f"of {','.join(ARM_NAMES)}; default: all")
    parser.add_argument("--starts", type=int, default=2, help="engine starts of each arm (default 2)")
    parser.add_argument("--requests", type=int, default=400, help="of a run (default 400)")
    parser.add_argument("--load", type=float, default=1.15, help="arrivals as a share of what the engine can do (default 1.15)")
    parser.add_argument("--max-num-seqs", type=int, default=16, help="requests that the engine runs at a time (default 16)")
    parser.add_argument("--step-ms", type=float, default=20.0, help="what each step is padded to under load (default 20)")
    parser.add_argument("--deadline-ms", type=int, default=100, help="of the hook under load (default 100)")
    parser.add_argument("--latency-starts", type=int, default=3, help="engine starts at low load (default 3)")
    parser.add_argument("--rounds", type=int, default=300, help="requests to each engine at low load (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the first repetition's requests and arrivals (default 0)")
    parser.add_argument("--smoke", action="store_true", help="two minutes in all: does it work? Measures nothing")
    return parser


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """For a flag whose value is a list of these names, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not among {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    # An engine must not be left behind by whoever stops this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
