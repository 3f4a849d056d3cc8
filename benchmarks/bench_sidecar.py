"""The sidecar against its physical limit, side by side in one run: `python -m benchmarks.bench_sidecar --bundle … --out …`.

Contenders: the bare ONNX session, and sidecars called through vllm_client; each in a process of its own, alive for the whole
run, one at work at a time. Every round measures every case; ratios are taken within a round. Works the same on a CPU and, with
`--provider cuda`, on a GPU.
"""

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import (
    CPU_BATCHES,
    CUDA_BATCHES,
    SMOKE_BATCHES,
    BareCase,
    Case,
    PeerCase,
    ServedCase,
    cases_of_a_round,
    limits,
    ratios_of,
)
from benchmarks.jobs import CallsJob, Contender, HttpJob
from benchmarks.measurement import Measurement, Row, measure
from benchmarks.peers.registry import Peer
from benchmarks.peers.same_scores import largest_difference
from benchmarks.peers.served import ServedPeer
from benchmarks.process import LineProcess, ProcessError
from benchmarks.report import ratios_json, ratios_table, row_json, rows_table, write_json
from benchmarks.served import ServedSidecar
from benchmarks.stamp import make_stamp
from benchmarks.workload import Workload, from_file, made_up
from sidecar.cores import allotted_cores
from vllm_client.prompt_files import PromptFileError

MODULE = "benchmarks.bench_sidecar"

SECONDS, ROUNDS = 5.0, 5
"""Of each case in each round, and how often everything is measured: five minutes on two cores."""

SMOKE_S, SMOKE_PROMPTS = 0.2, 64

PROMPTS = 512
"""Made up where no file is given: a pass takes a CPU core or two some seconds."""

WARM_UP_SHARE, MAX_WARM_UP_S = 0.2, 2.0
"""Of a case's seconds: long enough for connections to open and a queue to form."""

CORES_PER_CALLER_PROCESS, MAX_CALLER_PROCESSES = 4, 8
"""One Python process makes some thousands of calls a second. With few cores it must not take more of them; where there are many,
the model is faster (or on a GPU) and needs more callers than one process can be."""

NOTES = (
    "Every figure is the median over the clean rounds, with the lowest and the highest round beside it.",
    "The callers run on the same cores as the sidecar they call; caller CPU (s per 1,000 prompts) says how much they take away from it.",
    "The limit of throughput is the fastest batch size of the bare session, its prompts tokenised and sorted beforehand.",
    "`outside` is what a caller waited beyond the server's own tokenise, queue and infer: client, kernel, gRPC, event loop.",
)
BUSY_NOTE = "Other work was running when this began (see load_average_1_min): trust the ratios little, the times not at all."
BUSY_SHARE = 0.25
"""Of the allotted cores."""

SMOKE_NOTE = "A smoke run: it shows that the benchmark works and measures nothing."


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, for the report. seconds: of each case in each round; sidecar_flags: beyond the defaults."""

    provider: str
    seconds: float
    rounds: int
    caller_processes: int
    sidecar_flags: tuple[str, ...]
    smoke: bool


class Stage:
    """All contenders, started and ready. peers: by name, paused, and how far their scores are from the bundle's."""

    def __init__(self, bare: Contender, callers: Sequence[Contender], sidecars: Mapping[str, ServedSidecar]) -> None:
        self.bare = bare
        self.callers = callers
        self.sidecars = sidecars
        self.http_callers: list[Contender] = []
        self.peers: dict[str, ServedPeer] = {}
        self.peer_differences: dict[str, float] = {}

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, bundle: Path, workload: Workload, settings: Settings, peers: Sequence[Peer] = (), checkpoint: Path | None = None
    ) -> Iterator["Stage"]:
        """Start one after the other, since a sidecar measures its model's cost at start and wants the machine to itself.

        checkpoint: what the bundle was made of, which the peers are to serve; not needed without peers. Raises PeerError when one
        of them scores differently.
        """
        if peers and checkpoint is None:
            raise ValueError("peers need a checkpoint to serve")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-")))
            prompts = folder / "prompts.jsonl"
            prompts.write_text("".join(json.dumps(prompt) + "\n" for prompt in workload.prompts), encoding="utf-8")

            def contender(*arguments: str) -> Contender:
                command = [sys.executable, "-m", *arguments, "--prompts", str(prompts)]
                # As in the sidecar: the tokenizer's own thread pool would fight the model's threads.
                environment = {"TOKENIZERS_PARALLELISM": "false"}
                return Contender(stack.enter_context(LineProcess(command, merge_stderr=False, environment=environment)))

            sidecars = {}
            for over, address in (("unix", f"unix:{folder / 'pars.sock'}"), ("tcp", "127.0.0.1:0")):
                sidecars[over] = ServedSidecar(bundle, address, settings.provider, settings.sidecar_flags)
                stack.callback(sidecars[over].process.close)
            bare = contender("benchmarks.bare", "--bundle", str(bundle.resolve()), "--provider", settings.provider)
            callers = [contender("benchmarks.caller") for _ in range(settings.caller_processes)]
            providers = {bare.about["execution_provider"], *(each.execution_provider for each in sidecars.values())}
            if len(providers) > 1:
                raise ProcessError(f"the contenders run on different providers: {', '.join(sorted(providers))}")
            stage = cls(bare, callers, sidecars)
            if checkpoint is not None:
                stage.http_callers = [contender("benchmarks.peers.caller") for _ in range(settings.caller_processes)]
                for peer in peers:
                    stage._add(stack.enter_context(ServedPeer(peer, checkpoint)))
            yield stage

    def _add(self, served: ServedPeer) -> None:
        """Compare its scores with the bare session's, then keep it, paused. Raises PeerError."""
        sample = self.bare.about["sample"]
        with served.at_work():
            difference = largest_difference(served.url, served.peer, sample["prompts"], sample["scores"])
        self.peers[served.peer.name], self.peer_differences[served.peer.name] = served, difference

    def measure(self, case: Case, settings: Settings) -> Measurement:
        """Run one case once."""
        if isinstance(case, BareCase):
            self.bare.give(case.job)
            return measure([self.bare.take(case.job.seconds)])
        if isinstance(case, ServedCase):
            return self._measure_served(case, settings, self.callers, self.sidecars[case.over].process)
        peer = self.peers[case.peer]
        with peer.at_work():
            return self._measure_served(case, settings, self.http_callers, peer.process)

    def _measure_served(
        self, case: ServedCase | PeerCase, settings: Settings, callers: Sequence[Contender], server: LineProcess
    ) -> Measurement:
        callers = callers[: case.callers]
        warm_up_s = min(settings.seconds * WARM_UP_SHARE, MAX_WARM_UP_S)
        server_cpu_s = -server.cpu_s()
        begin_s = time.monotonic() + warm_up_s
        for number, caller in enumerate(callers):
            share = case.callers // len(callers) + (number < case.callers % len(callers))
            # Far from each other in the list, so that two processes do not send the same prompts at the same time.
            first_prompt = number * 97 * case.prompts_per_call
            caller.give(self._job(case, share, begin_s, begin_s + settings.seconds, first_prompt))
        recordings = [caller.take(warm_up_s + settings.seconds) for caller in callers]
        return measure(recordings, server_cpu_s + server.cpu_s(), server.memory())

    def _job(
        self, case: ServedCase | PeerCase, callers: int, begin_s: float, end_s: float, first_prompt: int
    ) -> CallsJob | HttpJob:
        if isinstance(case, PeerCase):
            url = self.peers[case.peer].url
            return HttpJob(url, case.peer, callers, case.prompts_per_call, begin_s, end_s, first_prompt)
        address = self.sidecars[case.over].address
        return CallsJob(address, case.via, callers, case.prompts_per_call, case.ngram, begin_s, end_s, first_prompt)


def run(bundle: Path, workload: Workload, settings: Settings, stamp: Any) -> tuple[dict[str, Any], list[Row]]:
    """Measure everything; returns the report and its rows. Raises ProcessError when a contender cannot start or dies."""
    with Stage.open(bundle, workload, settings) as stage:
        provider = stage.bare.about["execution_provider"]
        sizes = SMOKE_BATCHES if settings.smoke else CPU_BATCHES if not stage.bare.about["on_gpu"] else CUDA_BATCHES
        cases = cases_of_a_round(settings.seconds, sizes, has_ngram=stage.bare.about["has_ngram"])
        measured: dict[str, list[Measurement]] = {case.name: [] for case in cases}
        for number in range(settings.rounds):
            # There and back, so that a machine that slowly heats up or fills up favours nobody.
            for case in cases if number % 2 == 0 else cases[::-1]:
                print(f"round {number + 1} of {settings.rounds}: {case.what}", file=sys.stderr, flush=True)
                measured[case.name].append(stage.measure(case, settings))
        about = stage.bare.about
        cost_models = {over: sidecar.cost_model for over, sidecar in stage.sidecars.items()}
        workers = int(stage.sidecars["unix"].says["workers"])
    rows = {case.name: Row(case.name, case.what, measured[case.name]) for case in cases}
    busy = stamp.machine.load_average_1_min > BUSY_SHARE * stamp.machine.allotted_cores
    report = {
        "benchmark": "sidecar",
        "notes": [*NOTES, *([BUSY_NOTE] if busy else []), *([SMOKE_NOTE] if settings.smoke else [])],
        "stamp": stamp,
        "settings": settings,
        "execution_provider": provider,
        "bundle": {"bundle_id": about["bundle_id"], "model_name": about["model_name"]},
        "bare_threads": about["threads"],
        "sidecar": {"workers": workers, "cost_models": cost_models},
        "workload": {
            "source": workload.source,
            "sha256": workload.sha256,
            "prompts": len(workload.prompts),
            "prompt_tokens": about["tokens"],
        },
        "limits": {name: row.name for name, row in limits(rows).items()},
        **ratios_json(ratios_of(rows)),
        "rows": [row_json(row) for row in rows.values()],
    }
    return report, list(rows.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: measured; 1: a call failed somewhere (the report is written, and says where), or nothing could start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    flags = _parser().parse_args(given)
    stamp = make_stamp(MODULE, given)
    smoke = flags.smoke
    settings = Settings(
        provider=flags.provider,
        seconds=flags.seconds or (SMOKE_S if smoke else SECONDS),
        rounds=flags.rounds or (1 if smoke else ROUNDS),
        caller_processes=flags.caller_processes
        or min(max(allotted_cores() // CORES_PER_CALLER_PROCESS, 1), MAX_CALLER_PROCESSES),
        sidecar_flags=tuple(shlex.split(flags.sidecar_flags)),
        smoke=smoke,
    )
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        workload = (
            from_file(flags.prompts, flags.seed) if flags.prompts else made_up(SMOKE_PROMPTS if smoke else PROMPTS, flags.seed)
        )
        report, rows = run(flags.bundle, workload, settings, stamp)
    except (ProcessError, PromptFileError) as error:
        print(f"bench_sidecar: {error}", file=sys.stderr)
        return 1
    write_json(flags.out, report)
    ratios = ratios_of({row.name: row for row in rows})
    print("\n".join([*rows_table(rows), "", *ratios_table(ratios), "", *report["notes"]]))
    print(f"{report['execution_provider']}, {stamp.machine.cpu_model}, {stamp.machine.allotted_cores} cores → {flags.out}")
    return 1 if any(row.failures or not row.clean_rounds for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--out", type=Path, required=True, help="JSON report to write")
    parser.add_argument("--seconds", type=_positive, help=f"of each case in each round (default {SECONDS:g})")
    parser.add_argument("--rounds", type=_count, help=f"how often every case is measured (default {ROUNDS})")
    parser.add_argument("--provider", choices=("auto", "cpu", "cuda"), default="auto", help="of all contenders (default auto)")
    parser.add_argument("--prompts", type=Path, help="one per line, or .jsonl with `prompt`; default: made up from the seed")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and their order (default 0)")
    parser.add_argument("--caller-processes", type=_count, help="processes the callers are spread over; default by cores")
    parser.add_argument("--sidecar-flags", default="", help="further flags of `python -m sidecar`, as one argument")
    parser.add_argument("--smoke", action="store_true", help="a few seconds in all: does it work? Measures nothing")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0 and below 3600")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
