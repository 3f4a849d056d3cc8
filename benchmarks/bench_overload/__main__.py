"""More calls than the encoder can answer: `python -m benchmarks.bench_overload --bundle … --out …`.

First what the encoder can do, in a closed loop. Then calls at half of that, at all of it and at three times as many, as independent
callers would send them, each with a deadline: who answered, how soon, how many too late. With the change of tier, and without,
side by side: two sidecars, one at work at a time.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench_overload.figures import Outcome, arm_figures, capacity_per_s, overload_table
from benchmarks.bench_overload.load import LoadJob, job_line
from benchmarks.circumstances import circumstances
from benchmarks.flags import some_seconds
from benchmarks.jobs import GRACE_S, READY_S
from benchmarks.leaving import signals_leave
from benchmarks.process import LineProcess, ProcessError
from benchmarks.report import write_json
from benchmarks.served import ServedSidecar
from benchmarks.stamp import Stamp, make_stamp
from benchmarks.workload import made_up, write_prompts
from vllm_client import RankerClientError

MODULE = "benchmarks.bench_overload"

SECONDS = 20.0
LOADS = (0.5, 1.0, 3.0)
DEADLINES_MS = (250.0, 100.0)

SMOKE_S, SMOKE_LOADS, SMOKE_DEADLINES_MS = 0.3, (0.5, 3.0), (250.0,)

PROMPTS = 512

CAPACITY_CALLERS = 64
"""In flight at a time: a queue that is never empty."""

PAUSE_S = 0.5
"""Between two arms, for what the first left behind in the sidecar to be done."""

NOTES = (
    "One prompt per call, unary Score over a unix socket, tier left to the server. `encoder`, `ngram`: share of all calls that this "
    "tier answered within the deadline; `refused`: RESOURCE_EXHAUSTED or DEADLINE_EXCEEDED at least 2 ms before it; `late`: a reply "
    "or status later than that, as the caller saw it; `lost`: no outcome at all 10 s later; `failed`: any other status.",
    "Times are from sending to the outcome, [p50, p99, max]; sent_late_ms is how far the caller itself was behind its own arrivals.",
    "goodput: encoder answers in time per second, by what the closed loop reached. At 0.5x it cannot exceed 0.5.",
    "The caller runs on the same cores as the sidecar, and every call costs both of them, so at three times the capacity some of "
    "the encoder's cores go to gRPC. Shares and ratios are what to read; rates and times are of this machine.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, for the report. seconds: of each arm. loads: arrivals as a multiple of the capacity."""

    provider: str
    seconds: float
    loads: tuple[float, ...]
    deadlines_ms: tuple[float, ...]
    seed: int
    smoke: bool


class Stage:
    """Two sidecars and one caller process, started and ready. sidecars: by whether the tier may change."""

    def __init__(self, sidecars: dict[bool, ServedSidecar], caller: LineProcess) -> None:
        self.sidecars = sidecars
        self._caller = caller

    @classmethod
    @contextlib.contextmanager
    def open(cls, bundle: Path, settings: Settings) -> Iterator["Stage"]:
        """Start one after the other, since a sidecar measures its model's cost at start."""
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-overload-")))
            prompts = folder / "prompts.jsonl"
            write_prompts(prompts, made_up(PROMPTS, settings.seed).prompts)
            sidecars = {}
            for fallback, word in ((True, "on"), (False, "off")):
                flags = ("--tier-fallback", word)
                sidecars[fallback] = ServedSidecar(bundle, f"unix:{folder / word}.sock", settings.provider, flags)
                stack.callback(sidecars[fallback].process.close)
            command = [sys.executable, "-m", "benchmarks.bench_overload.load", "--prompts", str(prompts)]
            caller = stack.enter_context(LineProcess(command, merge_stderr=False))
            caller.line(READY_S)
            yield cls(sidecars, caller)

    def capacity(self, fallback: bool, settings: Settings) -> float:
        """Encoder prompts per second of one of the sidecars."""
        job = LoadJob(self.sidecars[fallback].address, settings.seconds / 2, callers=CAPACITY_CALLERS)
        outcomes, _ = self._do(job)
        if not (capacity := capacity_per_s(outcomes, job.seconds)):
            raise ProcessError("the sidecar failed calls of a closed loop, so there is no capacity to speak of")
        return capacity

    def arm(self, fallback: bool, load: float, deadline_ms: float, capacity: float, settings: Settings) -> dict[str, Any]:
        """One arm's figures."""
        sidecar = self.sidecars[fallback]
        job = LoadJob(sidecar.address, settings.seconds, load * capacity, deadline_ms=deadline_ms, seed=settings.seed)
        server_cpu_s = -sidecar.process.cpu_s()
        outcomes, caller_cpu_s = self._do(job)
        figures = arm_figures(outcomes, settings.seconds, deadline_ms)
        return {
            "load": load,
            "deadline_ms": deadline_ms,
            "tier_fallback": fallback,
            "calls_per_s": load * capacity,
            **figures,
            "goodput": figures["encoder_answers_per_s"] / capacity,
            "caller_cpu_cores": caller_cpu_s / settings.seconds,
            "sidecar_cpu_cores": (server_cpu_s + sidecar.process.cpu_s()) / settings.seconds,
        }

    def _do(self, job: LoadJob) -> tuple[list[Outcome], float]:
        self._caller.say(job_line(job))
        answer = json.loads(self._caller.line(job.seconds + GRACE_S))
        time.sleep(PAUSE_S)
        return [Outcome(*row) for row in answer["outcomes"]], answer["cpu_s"]


def run(bundle: Path, settings: Settings, stamp: Stamp) -> dict[str, Any]:
    """Measure everything; returns the report. Raises ProcessError when something cannot start or dies."""
    with Stage.open(bundle, settings) as stage:
        for fallback in stage.sidecars:
            stage.capacity(fallback, settings)  # warm-up: the first seconds of a process are its slowest
        before = stage.capacity(True, settings)
        print(f"the encoder answers {before:.0f} prompts/s", file=sys.stderr, flush=True)
        arms = []
        for deadline_ms in settings.deadlines_ms:
            for load in settings.loads:
                for fallback in (True, False):
                    print(f"{load:g}x, {deadline_ms:g} ms, tier_fallback={fallback}", file=sys.stderr, flush=True)
                    arms.append(stage.arm(fallback, load, deadline_ms, before, settings))
        after = stage.capacity(True, settings)
        sidecar = stage.sidecars[True]
        return {
            "benchmark": "overload",
            "notes": [*NOTES, *circumstances(stamp, smoke=settings.smoke)],
            "stamp": stamp,
            "settings": settings,
            "execution_provider": sidecar.execution_provider,
            "sidecar": {"bundle_id": sidecar.says["bundle"], "workers": int(sidecar.says["workers"]), **sidecar.cost_model},
            "capacity_prompts_per_s": {"before": before, "after": after},
            "arms": arms,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: a call was lost or failed (the report is written, and says where), or something could not start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp, smoke = make_stamp(MODULE, given), flags.smoke
    settings = Settings(
        provider=flags.provider,
        seconds=flags.seconds or (SMOKE_S if smoke else SECONDS),
        loads=SMOKE_LOADS if smoke else LOADS,
        deadlines_ms=SMOKE_DEADLINES_MS if smoke else DEADLINES_MS,
        seed=flags.seed,
        smoke=smoke,
    )
    try:
        report = run(flags.bundle, settings, stamp)
    except (ProcessError, RankerClientError) as error:
        print(f"bench_overload: {error}", file=sys.stderr)
        return 1
    write_json(flags.out, report)
    print("\n".join([*overload_table(report["arms"]), "", *report["notes"]]))
    capacity = report["capacity_prompts_per_s"]
    print(f"capacity {capacity['before']:.0f} prompts/s before, {capacity['after']:.0f} after → {flags.out}")
    return 1 if any(arm["shares"]["failed"] or arm["lost"] for arm in report["arms"]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument(
        "--seconds", type=some_seconds, help=f"of each arm (default {SECONDS:g}); capacity takes half of it, four times"
    )
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="auto", help="of the sidecars (default auto)")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and the arrivals (default 0)")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    return parser


if __name__ == "__main__":
    with signals_leave():
        sys.exit(main())
