"""Single-prompt Score calls that do not wait for answers. `python -m benchmarks.gpu.open_loop` does jobs, one JSON line each.

Sent from a thread that sleeps, not from an event loop: asyncio rounds its waits up to whole milliseconds, half of what is asked of
the 99th percentile. Requests are serialised beforehand, replies stay bytes.
"""

import argparse
import dataclasses
import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from benchmarks.open_loop import due_times_s
from pars.v1 import ranker_pb2
from vllm_client.prompt_files import read_prompts

SCORE = "/pars.v1.RankerService/Score"

DEADLINE_S = 5.0
"""Long, so that a slow answer is measured and not replaced."""

CONNECT_S = 30.0


@dataclass(frozen=True, slots=True)
class ArrivalsJob:
    """Poisson arrivals from begin_s to end_s on the monotonic clock, which all processes share; those before counted_s are warm-up."""

    address: str
    calls_per_s: float
    begin_s: float
    counted_s: float
    end_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Arrivals:
    """took_ms: of each answered call, from when it was due. late_ms: how late each call was sent. failures: by status."""

    took_ms: list[float]
    late_ms: list[float]
    failures: dict[str, int]


class Sender:
    """Does jobs with one list of prompts."""

    def __init__(self, prompts: Sequence[str]) -> None:
        # The encoder by name: an answer of the cheap tier is quick and not what is measured.
        self._requests = [
            ranker_pb2.ScoreRequest(prompts=[prompt], tier=ranker_pb2.TIER_ENCODER).SerializeToString() for prompt in prompts
        ]

    def do(self, job: ArrivalsJob) -> Arrivals:
        """Send, then wait for the last answers."""
        channel: Any  # the published types ask for arguments that have defaults
        with grpc.insecure_channel(job.address) as channel:
            grpc.channel_ready_future(channel).result(CONNECT_S)
            score = channel.unary_unary(SCORE)
            record = _Record()
            # A collection here would look like a pause of the sidecar's.
            gc.collect()
            gc.disable()
            try:
                # Each process begins at another prompt, so that they do not all send the same one at a time.
                first = random.Random(job.seed).randrange(len(self._requests))
                due_times = due_times_s(job.calls_per_s, job.end_s - job.begin_s, job.seed)
                for number, since_begin_s in enumerate(due_times, first):
                    due_s = job.begin_s + since_begin_s
                    if (wait_s := due_s - time.monotonic()) > 0:
                        time.sleep(wait_s)
                    record.send(score, self._requests[number % len(self._requests)], due_s, counted=due_s >= job.counted_s)
                return record.wait()
            finally:
                gc.enable()


class _Record:
    """Calls as they end, from whatever thread."""

    def __init__(self) -> None:
        self._open = 0
        self._changed = threading.Condition()
        self._arrivals = Arrivals([], [], {})
        self._failures: Counter[str] = Counter()

    def send(self, score: Any, request: bytes, due_s: float, *, counted: bool) -> None:
        with self._changed:
            self._open += 1
        if counted:
            self._arrivals.late_ms.append((time.monotonic() - due_s) * 1e3)
        score.future(request, timeout=DEADLINE_S).add_done_callback(partial(self._ended, due_s, counted))

    def wait(self) -> Arrivals:
        """Every call ends by itself, at its deadline at the latest; those that do not are counted as lost."""
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0, timeout=2 * DEADLINE_S)
            lost = {"LOST": self._open} if self._open else {}
        return dataclasses.replace(self._arrivals, failures=dict(self._failures) | lost)

    def _ended(self, due_s: float, counted: bool, call: Any) -> None:
        took_ms = (time.monotonic() - due_s) * 1e3
        with self._changed:
            if call.code() is not grpc.StatusCode.OK:
                self._failures[call.code().name] += 1
            elif counted:
                self._arrivals.took_ms.append(took_ms)
            self._open -= 1
            if not self._open:
                self._changed.notify_all()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.open_loop", description=__doc__)
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts, in the order to send them")
    flags = parser.parse_args(arguments)
    sender = Sender(read_prompts(flags.prompts))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(sender.do(ArrivalsJob(**json.loads(line))))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
