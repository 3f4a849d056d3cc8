"""Continuous batching, simulated: `python -m benchmarks.simulator validate|study`.

validate: the simulator against real runs of benchmarks.bench_vllm. study: what orders, rankers, windows and fleets would do on
production traces. Both write their part of benchmarks/results/simulator.json and leave the other as it is.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.flags import some_of
from benchmarks.replay import RecordsError
from benchmarks.report import write_json
from benchmarks.simulator.assumed import ASSUMPTIONS, ENGINE, STEP_MODEL
from benchmarks.simulator.recorded import RealRun, Sources, real_runs
from benchmarks.simulator.studies import STUDIES, USUAL_SEEDS, study, study_table
from benchmarks.simulator.traces import workloads
from benchmarks.simulator.validation import errors_table, validated
from benchmarks.stamp import REPOSITORY, make_stamp
from sidecar.errors import SidecarError

MODULE = "benchmarks.simulator"

PARTS = ("validation", "studies")

ON_EVERY_WORKLOAD = ("orders", "backlogs")

RESULTS = REPOSITORY / "benchmarks" / "results"

NOTES = (
    "Everything here but the figures under `real` is simulated: benchmarks/simulator says what is modelled and what is left out.",
    "validation: each real run of bench_vllm against the same requests, lengths, arrivals and priorities in the simulator. The length of "
    "a step was fitted on runs of other repetitions, which had other requests; where a report has one repetition, on its other runs. "
    "error is simulated / real - 1. A maximum is the fate of one request, and says little. fitted_on_itself is no validation: what it "
    "takes away of an error was the machine, whose steps took longer or shorter in that run than in the others. fitted_from: "
    "requests, of the runs that kept theirs, or figures where none did. Queues are compared with vLLM's gauges, which were looked at "
    "once a second, unless these stayed at 0.",
    "What the validation covers: real runs without a preemption, with steps padded to one length, without asynchronous scheduling (vLLM "
    "turns it off on CPUs), with a budget of 2,048 tokens a step and short prompts. It shows that the order of admission and the queue are "
    "right. It says nothing about a full KV cache, asynchronous scheduling, long prompts read in pieces or how long a step takes, on which "
    "the studies depend. tests/vllm/test_vllm_schedule.py holds how such requests are scheduled against vLLM's own scheduler class.",
    "studies: the arrivals of a trace are stretched so that offered_load times what the engine can do at most comes on average. Traces "
    "have no prompts: the ranker is simulated, with the tau that is named and calibrated expectations. First-come rows have none. With "
    "each of `seeds` seeds rankers are drawn anew, and so are arrivals and lengths where the workload is no trace. Ratios are taken within "
    "a seed; they and the figures are medians over the seeds, and ratio_ranges are the lowest and highest. Without ratio_ranges there "
    "was one seed, and a ratio that differs by less than about 0.04 differs by chance.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: done; 1: something to work from is missing."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp, began_s = make_stamp(MODULE, given), time.monotonic()
    validates = flags.part == "validate"
    try:
        found = _validate(flags) if validates else _study(flags)
    except (RecordsError, SidecarError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    made = {"seconds": time.monotonic() - began_s, "stamp": stamp}
    parts: dict[str, Any] = json.loads(flags.out.read_text(encoding="utf-8")) if flags.out.exists() else {}
    if validates:
        parts["validation"] = {**found, **made}
    else:
        parts["studies"] = {**parts.get("studies", {}), **{name: {**each, **made} for name, each in found.items()}}
    write_json(flags.out, {"benchmark": "simulator", "notes": NOTES, **{key: parts[key] for key in PARTS if key in parts}})
    return 0


def _validate(flags: argparse.Namespace) -> dict[str, Any]:
    runs: list[RealRun] = []
    left_out: dict[str, str] = {}
    for report in flags.real:
        found, missing = real_runs(Sources(report, flags.records, flags.bundle, flags.runs))
        runs, left_out = runs + found, left_out | missing
    validation = validated(runs)
    validation["left_out"] |= left_out
    print("\n".join(errors_table(validation)))
    return validation


def _study(flags: argparse.Namespace) -> dict[str, Any]:
    made = workloads(flags.data, flags.requests)
    found = {}
    for name in flags.studies:
        # What depends on the traffic, on every workload. The rest on one whose responses are long, where their order matters most.
        rows = {}
        for workload in made if name in ON_EVERY_WORKLOAD else list(made)[:1]:
            rows[workload] = study(STUDIES[name], workload, made[workload], flags.seeds)
            print("\n".join([*study_table(f"{name}, {workload}", rows[workload]), ""]), flush=True)
        found[name] = {"engine": ENGINE, "step_model": STEP_MODEL, "assumptions": ASSUMPTIONS, "workloads": rows}
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    validate = parts.add_parser("validate", help="the simulator against real runs")
    validate.add_argument(
        "--real", type=Path, nargs="+", default=[RESULTS / "vllm.json"], help="reports of benchmarks.bench_vllm"
    )
    validate.add_argument("--records", type=Path, help="what they replayed (their --records); default: made-up requests")
    validate.add_argument("--bundle", type=Path, help="of their ranker, to ask it again where a run did not keep what it said")
    validate.add_argument(
        "--runs", type=Path, nargs="*", default=[REPOSITORY / "runs" / "bench_vllm"], help="folders of kept runs"
    )
    study = parts.add_parser("study", help="orders, rankers, windows, fleets")
    study.add_argument("--data", type=Path, help="folder of trace_*.parquet; default: made-up requests")
    study.add_argument("--requests", type=int, default=10_000, help="of each workload (default 10,000)")
    study.add_argument(
        "--seeds", type=int, default=USUAL_SEEDS, help=f"for each, all that is drawn is drawn anew (default {USUAL_SEEDS})"
    )
    study.add_argument("--studies", type=some_of(tuple(STUDIES)), default=tuple(STUDIES), help=f"of {','.join(STUDIES)}")
    for part in (validate, study):
        part.add_argument("--out", type=Path, default=RESULTS / "simulator.json", help="JSON report to write")
    return parser


if __name__ == "__main__":
    sys.exit(main())
