"""The contenders of bench_overhead: each in a process of its own, alive for the whole run, one at work at a time."""

import contextlib
import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.bench_overhead.cases import BareCase, Case, EchoCase, PeerCase, ServedCase
from benchmarks.jobs import CallsJob, Contender, HttpJob
from benchmarks.measurement import Measurement, measure
from benchmarks.peers.registry import Peer, PeerError
from benchmarks.peers.same_scores import largest_difference
from benchmarks.peers.served import ServedPeer
from benchmarks.process import LineProcess, ProcessError
from benchmarks.served import ServedSidecar
from benchmarks.workload import Workload, write_prompts
from sidecar.session import CUDA

WARM_UP_SHARE, MAX_WARM_UP_S = 0.2, 2.0
"""Of a case's seconds: long enough for connections to open and a queue to form."""

ALONE = ("--max-batch-prompts", "1")
"""Flags of a sidecar that puts nothing together."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Of a run, for the report. seconds: of each case in each round, of which many get a part; sidecar_flags: beyond the defaults."""

    provider: str
    seconds: float
    rounds: int
    caller_processes: int
    sidecar_flags: tuple[str, ...]
    smoke: bool


def check_device(peers: Sequence[Peer], *, on_gpu: bool) -> None:
    """Peers run on the CPU, whatever there is. Raises PeerError when ours does not: that would compare devices, not servers."""
    if peers and on_gpu:
        raise PeerError(
            "the other servers run on the CPU and ours on a GPU, which is no comparison: --provider cpu, or --peers none"
        )


def processes_of(case: ServedCase | PeerCase, there: int) -> int:
    """How many of the caller processes that are there take part. One stream is one client's, and a client is one process."""
    if isinstance(case, ServedCase) and case.via == "stream":
        return 1
    return there if case.load else min(case.callers, there)


class Stage:
    """All contenders, started and ready. peers: by name, paused, and how far their scores are from the bundle's. echo: gRPC alone.

    limit_per_s: what open loops are fractions of, in prompts per second; to be set before the first of them.
    """

    def __init__(
        self, bare: Contender, echo: Contender, callers: Sequence[Contender], sidecars: Mapping[str, ServedSidecar]
    ) -> None:
        self.bare = bare
        self.echo = echo
        self.callers = callers
        self.sidecars = sidecars
        self.http_callers: list[Contender] = []
        self.peers: dict[str, ServedPeer] = {}
        self.peer_differences: dict[str, float] = {}
        self.limit_per_s: float | None = None

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        bundle: Path,
        workload: Workload,
        settings: Settings,
        *,
        peers: Sequence[Peer] = (),
        checkpoint: Path | None = None,
        best_bundle: Path | None = None,
    ) -> Iterator["Stage"]:
        """Start one after the other, since a sidecar measures its model's cost at start and wants the machine to itself.

        checkpoint: what the bundle was made of, which the peers are to serve; not needed without peers. best_bundle: the same
        ranker for the sidecar `best`, which is not there without it. Raises PeerError when a peer scores differently, or when ours
        does not run on the CPU as the peers do.
        """
        if peers and checkpoint is None:
            raise ValueError("peers need a checkpoint to serve")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pars-bench-")))
            prompts = folder / "prompts.jsonl"
            write_prompts(prompts, workload.prompts)

            def contender(*arguments: str) -> Contender:
                command = [sys.executable, "-m", *arguments, "--prompts", str(prompts)]
                # As in the sidecar: the tokenizer's own thread pool would fight the model's threads.
                environment = {"TOKENIZERS_PARALLELISM": "false"}
                return Contender(stack.enter_context(LineProcess(command, merge_stderr=False, environment=environment)))

            served: dict[str, tuple[Path, str, tuple[str, ...]]] = {
                "unix": (bundle, f"unix:{folder / 'pars.sock'}", ()),
                "tcp": (bundle, "127.0.0.1:0", ()),
                "unbatched": (bundle, f"unix:{folder / 'unbatched.sock'}", ALONE),
            }
            if best_bundle is not None:
                served["best"] = (best_bundle, "127.0.0.1:0", ())
            sidecars = {}
            for over, (its_bundle, address, flags) in served.items():
                sidecars[over] = ServedSidecar(its_bundle, address, settings.provider, (*settings.sidecar_flags, *flags))
                stack.callback(sidecars[over].process.close)
            bare = contender("benchmarks.bare", "--bundle", str(bundle.resolve()), "--provider", settings.provider)
            echo = contender("benchmarks.bench_overhead.echo")
            callers = [contender("benchmarks.caller") for _ in range(settings.caller_processes)]
            # A bf16 bundle has a runtime of its own; what must be the same is the device.
            providers = {bare.about["execution_provider"], *(each.execution_provider for each in sidecars.values())}
            if CUDA in providers and len(providers) > 1:
                raise ProcessError(f"the contenders run on different devices: {', '.join(sorted(providers))}")
            check_device(peers, on_gpu=bare.about["on_gpu"])
            stage = cls(bare, echo, callers, sidecars)
            if peers and checkpoint is not None:
                stage.http_callers = [contender("benchmarks.peers.caller") for _ in range(settings.caller_processes)]
                for peer in peers:
                    print(f"starting {peer.name}", file=sys.stderr, flush=True)
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
        if isinstance(case, EchoCase):
            self.echo.give(case.job)
            # Its client's CPU says nothing of a server's.
            return dataclasses.replace(measure([self.echo.take(case.job.seconds)]), scorer_cpu_s_per_1000_prompts=None)
        if isinstance(case, ServedCase):
            return self._measure_served(case, settings, self.callers, self.sidecars[case.over].process)
        peer = self.peers[case.peer]
        with peer.at_work():
            return self._measure_served(case, settings, self.http_callers, peer.process)

    def _measure_served(
        self, case: ServedCase | PeerCase, settings: Settings, callers: Sequence[Contender], server: LineProcess
    ) -> Measurement:
        callers = callers[: processes_of(case, len(callers))]
        seconds = settings.seconds * case.share
        warm_up_s = min(seconds * WARM_UP_SHARE, MAX_WARM_UP_S)
        server_cpu_s = -server.cpu_s()
        begin_s = time.monotonic() + warm_up_s
        for number, caller in enumerate(callers):
            job = self._job(case, begin_s, begin_s + seconds)
            share = case.callers // len(callers) + (number < case.callers % len(callers))
            # Far from each other in the list, so that two processes do not send the same prompts at the same time.
            first_prompt = number * 97 * case.prompts_per_call
            rate = job.calls_per_s / len(callers)
            caller.give(dataclasses.replace(job, callers=share, first_prompt=first_prompt, calls_per_s=rate))
        recordings = [caller.take(warm_up_s + seconds) for caller in callers]
        return measure(recordings, server_cpu_s + server.cpu_s(), server.memory())

    def _job(self, case: ServedCase | PeerCase, begin_s: float, end_s: float) -> CallsJob | HttpJob:
        """Of all caller processes together."""
        rate = 0.0
        if case.load:
            if self.limit_per_s is None:
                raise ValueError("an open loop needs the limit first")
            rate = case.load * self.limit_per_s / case.prompts_per_call
        when = (begin_s, end_s, 0, rate)
        if isinstance(case, PeerCase):
            return HttpJob(self.peers[case.peer].url, case.peer, case.callers, case.prompts_per_call, *when)
        address = self.sidecars[case.over].address
        return CallsJob(address, case.via, case.callers, case.prompts_per_call, case.ngram, *when)
