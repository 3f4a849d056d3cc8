"""What the benchmark asks of a contender's process, and how: one JSON line per job on its input, one per answer on its output.

Lines, not shared objects, so that a contender may live in another environment, or be written in another language.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.measurement import Call, Recording
from benchmarks.process import LineProcess

READY_S = 300.0
"""For a contender to load. A first CUDA start compiles for minutes on a cold machine."""

GRACE_S = 60.0
"""Beyond the seconds a job is to take."""


@dataclass(frozen=True, slots=True)
class AloneJob:
    """Bare: score one prompt after the other on one thread. cores: that one run may use. tokenize: from text, not from ids.

    pause_s: idle between two, outside the times.
    """

    seconds: float
    tokenize: bool
    cores: Literal["one", "all"]
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class FullTiltJob:
    """Bare: score the tokenised prompts again and again, all threads, `batch_prompts` of about the same length at a time.

    group_prompts: sort by length within so many consecutive prompts only; 0 for all of them.
    Whole passes over the prompts, at least one: part of a sorted list would be no fair sample.
    """

    seconds: float
    batch_prompts: int
    group_prompts: int


@dataclass(frozen=True, slots=True)
class AroundJob:
    """Bare: what has to be done around a run, without one, for `prompts_per_call` prompts one after the other.

    what: tokenise; or serialise: request and reply, each written by one side and read by the other.
    """

    seconds: float
    what: Literal["tokenise", "serialise"]
    prompts_per_call: int


@dataclass(frozen=True, slots=True)
class CallsJob:
    """Client: `callers` of a sidecar, each sending its next call when the last is answered.

    via: sync (one caller), asyncio, or stream (one ScoreStream for all). ngram: ask for that tier instead of the encoder. begin_s,
    end_s: the window, on the monotonic clock; calls start at once, and those before begin_s are the warm-up. first_prompt: where in
    the list to begin.
    calls_per_s: above 0, calls come at that rate instead, whether earlier ones are answered or not, and a call begins when it is
    due; `callers` is then 0. Not for sync.
    """

    address: str
    via: Literal["sync", "asyncio", "stream"]
    callers: int
    prompts_per_call: int
    ngram: bool
    begin_s: float
    end_s: float
    first_prompt: int
    calls_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HttpJob:
    """Client: `callers` of a peer over HTTP, with a connection each. peer: its name in benchmarks.peers.registry; the rest as above.

    calls_per_s: as above, with as many connections as there are calls in flight.
    """

    url: str
    peer: str
    callers: int
    prompts_per_call: int
    begin_s: float
    end_s: float
    first_prompt: int
    calls_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EchoJob:
    """gRPC alone: the bytes of one request there and back on a stream, one after the other. See benchmarks.bench_overhead.echo."""

    seconds: float


Job = AloneJob | FullTiltJob | AroundJob | CallsJob | HttpJob | EchoJob
_KINDS: Mapping[str, type[Job]] = {
    kind.__name__: kind for kind in (AloneJob, FullTiltJob, AroundJob, CallsJob, HttpJob, EchoJob)
}


class Contender:
    """The near side: a process that is ready, does one job at a time and can be asked for its CPU time. `about`: its first line."""

    def __init__(self, process: LineProcess) -> None:
        self._process = process
        self.about: dict[str, Any] = json.loads(process.line(READY_S))

    def give(self, job: Job) -> None:
        """Hand over a job; `take` its answer before the next."""
        self._process.say(json.dumps({"kind": type(job).__name__, **dataclasses.asdict(job)}))

    def take(self, seconds: float) -> Recording:
        """The answer to the job given. seconds: how long it was to take. Raises ProcessError."""
        answer = json.loads(self._process.line(seconds + GRACE_S))
        return Recording(**answer | {"calls": [Call(*call) for call in answer["calls"]]})


def answer_jobs(about: Mapping[str, Any], do: Callable[[Any], Recording]) -> None:
    """The far side: say that it is ready, then do jobs until the input ends."""
    _print(dict(about))
    for line in sys.stdin:
        fields = json.loads(line)
        _print(dataclasses.asdict(do(_KINDS[fields.pop("kind")](**fields))))


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)
