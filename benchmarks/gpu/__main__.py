"""All parts, in order of importance, within a budget: `python -m benchmarks.gpu --bundle fp32=… --bundle fp16=… --out …`."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.circumstances import circumstances
from benchmarks.gpu.deadline import run_until
from benchmarks.gpu.figures import headline, table, targets
from benchmarks.gpu.part import MEASURES, named_folder
from benchmarks.gpu.plan import FULL, SMOKE
from benchmarks.leaving import signals_leave
from benchmarks.process_group import STOP_S
from benchmarks.report import plain, write_json
from benchmarks.stamp import make_stamp

MODULE = "benchmarks.gpu"

DEADLINES_S: Mapping[str, float] = {"parity": 70, "rpc": 140, "floor": 40, "variants": 130, "tensorrt": 90}

BUDGET_S = 420.0

LEAST_S = 10.0
"""Less than this is not worth a start."""

NOTES = (
    "Single prompts arrive at random (Poisson) whether answered or not; times count from when a call was due to be sent.",
    "Callers and sidecar share the machine's cores; they talk over a unix socket.",
    "The floor is one thread running the session that the sidecar uses, with all inputs on the device beforehand: no tokenizer, no copies.",
    "x_vs_y is y's time over x's, above 1 where x is faster: [median, lowest, highest] over the shapes.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: everything that this machine can do was measured; 1: something failed, and the report says what."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp = make_stamp(MODULE, given)
    give_up_s = time.monotonic() + flags.budget_s
    outcomes: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="pars-gpu-") as folder:
        for name in flags.parts:
            left_s = give_up_s - time.monotonic() - STOP_S
            print(f"{name}, at most {min(DEADLINES_S[name], max(left_s, 0)):.0f} s", file=sys.stderr, flush=True)
            outcomes[name] = _run_part(name, flags, Path(folder) / f"{name}.json", left_s)
    parts = {name: outcome["figures"] for name, outcome in outcomes.items()}
    figures = headline(parts)
    failed = {name: outcome["failures"] for name, outcome in outcomes.items() if outcome["failures"]}
    report = {
        "benchmark": "gpu",
        "notes": [*NOTES, *circumstances(stamp, smoke=flags.smoke)],
        "stamp": stamp,
        "provider": flags.provider,
        "bundles": [name for name, _ in flags.bundle],
        "plan": SMOKE if flags.smoke else FULL,
        **figures,
        "targets": targets(figures),
        "failed": failed,
        "not_on_this_machine": {what: why for outcome in outcomes.values() for what, why in outcome["not_here"].items()},
        "seconds": {name: outcome["seconds"] for name, outcome in outcomes.items()},
        "parts": parts,
    }
    write_json(flags.out, report)
    print("\n".join([*table(parts, plain(figures)), "", *(str(plain(row)) for row in report["targets"])]))
    for what, why in report["not_on_this_machine"].items():
        print(f"not on this machine: {what}: {why}")
    for name, reasons in failed.items():
        for what, why in reasons.items():
            print(f"FAILED {name}: {what}: {why}")
    print(f"{', '.join(stamp.machine.gpus) or flags.provider}, {stamp.machine.allotted_cores} cores → {flags.out}")
    return 1 if failed else 0


def _run_part(name: str, flags: argparse.Namespace, out: Path, left_s: float) -> dict[str, Any]:
    """Its outcome with `seconds`; what it wrote down before it was ended is kept."""
    if left_s < LEAST_S:
        return {"figures": {}, "failures": {name: "no time left for it"}, "not_here": {}, "seconds": 0.0}
    command = [sys.executable, "-m", f"{MODULE}.part", name, "--provider", flags.provider, "--out", str(out)]
    command += [word for precision, folder in flags.bundle for word in ("--bundle", f"{precision}={folder}")]
    command += ["--smoke"] if flags.smoke else []
    began_s = time.monotonic()
    # As in the sidecar: the tokenizer's own thread pool would fight the model's threads.
    failed = run_until(command, min(DEADLINES_S[name], left_s), os.environ | {"TOKENIZERS_PARALLELISM": "false"})
    outcome: dict[str, Any] = {"figures": {}, "failures": {}, "not_here": {}}
    if out.exists():
        outcome = json.loads(out.read_text(encoding="utf-8"))
    elif failed is None:
        failed = "wrote nothing down"
    if failed is not None:
        outcome["failures"][name] = failed
    return outcome | {"seconds": time.monotonic() - began_s}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--bundle", type=named_folder, action="append", required=True, help="precision=folder, fp32 first")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cuda", help="where the model runs (default cuda)")
    parser.add_argument("--parts", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES), help="default: all")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help=f"for all parts together (default {BUDGET_S:g})")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    return parser


if __name__ == "__main__":
    # So that a stop from outside also ends the part at work, see process_group.
    with signals_leave():
        sys.exit(main())
