"""All parts, in order of importance, within a budget: `python -m benchmarks.gpu --bundle fp32=… --bundle fp16=… --out …`."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.circumstances import circumstances
from benchmarks.gpu.deadline import run_until
from benchmarks.gpu.part import MEASURES, named_folder, named_text
from benchmarks.gpu.plan import FULL, SMOKE
from benchmarks.gpu.report import Ended, figure_lines, has_figures, of_parts, outcomes, reason_lines
from benchmarks.leaving import signals_leave
from benchmarks.process_group import STOP_S
from benchmarks.report import write_json
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
    """Exit code 0: everything that this machine can do was measured; 1: something failed, and the report says what; 2: nothing could
    be measured, and an old report is left as it was."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp = make_stamp(MODULE, given)
    about = {
        "benchmark": "gpu",
        "notes": [*NOTES, *circumstances(stamp, smoke=flags.smoke)],
        "stamp": stamp,
        "provider": flags.provider,
        "bundles": [name for name, _ in flags.bundle],
        "plan": SMOKE if flags.smoke else FULL,
    }
    give_up_s = time.monotonic() + flags.budget_s
    with signals_leave(), tempfile.TemporaryDirectory(prefix="pars-gpu-") as folder:
        files = {name: Path(folder) / f"{name}.json" for name in flags.parts}
        ended: dict[str, Ended] = {}
        try:
            for name, file in files.items():
                left_s = give_up_s - time.monotonic() - STOP_S
                print(f"{name}, at most {min(DEADLINES_S[name], max(left_s, 0)):.0f} s", file=sys.stderr, flush=True)
                ended[name] = _run_part(name, flags, file, left_s)
                _keep(flags, about, files, ended)
        finally:
            # When a signal ends this, with what the part at work had found.
            report, is_kept = _keep(flags, about, files, ended)
    for line in [*(figure_lines(report) if is_kept else ()), *reason_lines(report)]:
        print(line)
    if not is_kept:
        print("nothing was measured, so no report was written", file=sys.stderr)
        return 2
    print(f"{', '.join(stamp.machine.gpus) or flags.provider}, {stamp.machine.allotted_cores} cores → {flags.out}")
    return 1 if report["failed"] else 0


def _keep(
    flags: argparse.Namespace, about: Mapping[str, Any], files: Mapping[str, Path], ended: Mapping[str, Ended]
) -> tuple[dict[str, Any], bool]:
    """The report so far, and whether it was written: one without any figure is not to take the place of an old one."""
    found = outcomes(files, ended)
    report = {**about, **of_parts(found, dict(flags.not_exported))}
    if is_kept := has_figures(found):
        write_json(flags.out, report)
    return report, is_kept


def _run_part(name: str, flags: argparse.Namespace, out: Path, left_s: float) -> Ended:
    """A part in a process of its own, which writes down what it finds in `out`."""
    if left_s < LEAST_S:
        return Ended("no time left for it", 0.0)
    command = [sys.executable, "-m", f"{MODULE}.part", name, "--provider", flags.provider, "--out", str(out)]
    command += [word for precision, folder in flags.bundle for word in ("--bundle", f"{precision}={folder}")]
    command += ["--smoke"] if flags.smoke else []
    began_s = time.monotonic()
    # As in the sidecar: the tokenizer's own thread pool would fight the model's threads.
    failed = run_until(command, min(DEADLINES_S[name], left_s), os.environ | {"TOKENIZERS_PARALLELISM": "false"})
    return Ended(failed, time.monotonic() - began_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    parser.add_argument("--bundle", type=named_folder, action="append", required=True, help="precision=folder, fp32 first")
    parser.add_argument("--not-exported", type=named_text, action="append", default=[], help="precision=reason, for the report")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cuda", help="where the model runs (default cuda)")
    parser.add_argument("--parts", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES), help="default: all")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help=f"for all parts together (default {BUDGET_S:g})")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
