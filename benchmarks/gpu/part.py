"""One part, in a process of its own: `python -m benchmarks.gpu.part NAME …`. A crash or a hang inside a driver ends it alone."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.floor import measure_floor
from benchmarks.gpu.job import Job
from benchmarks.gpu.outcome import Outcome, reason
from benchmarks.gpu.parity import measure_parity
from benchmarks.gpu.plan import FULL, SMOKE
from benchmarks.gpu.rpc import measure_rpc
from benchmarks.gpu.variants import measure_tensorrt, measure_variants
from benchmarks.leaving import signals_leave
from benchmarks.workload import made_up

SEED = 0

MEASURES: Mapping[str, Callable[[Job, Outcome], None]] = {
    "parity": measure_parity,
    "rpc": measure_rpc,
    "floor": measure_floor,
    "variants": measure_variants,
    "tensorrt": measure_tensorrt,
}
"""In order of importance, which is the order in which they run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 whenever the outcome could be written down, failures included."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("name", choices=tuple(MEASURES))
    parser.add_argument("--bundle", type=named_folder, action="append", required=True, help="precision=folder")
    parser.add_argument("--provider", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args(arguments)
    plan = SMOKE if flags.smoke else FULL
    outcome = Outcome(flags.out)
    job = Job(dict(flags.bundle), flags.provider, plan, made_up(plan.prompts, SEED).prompts)
    # Out of time or stopped, it leaves neither a sidecar nor a folder behind.
    with signals_leave():
        try:
            MEASURES[flags.name](job, outcome)
        except Exception as error:  # whatever it is, what was measured before it stays
            outcome.failures[flags.name] = reason(error)
            print(f"{flags.name}: {error}", file=sys.stderr)
        finally:
            outcome.keep()
    return 0


def named_folder(text: str) -> tuple[str, Path]:
    """`precision=folder` of a command line."""
    name, folder = named_text(text)
    return name, Path(folder).absolute()


def named_text(text: str) -> tuple[str, str]:
    """`name=text` of a command line, neither of them empty."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
