"""Callers for bench_overload, cheap enough to share two cores with the sidecar: `python -m benchmarks.bench_overload.load` answers jobs.

Requests are serialised beforehand and replies parsed afterwards. One JSON line per job on the input, one per answer on the output.
"""

import argparse
import asyncio
import dataclasses
import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from benchmarks.bench_overload.figures import LOST, Outcome
from benchmarks.open_loop import start_on_time
from pars.v1 import ranker_pb2
from vllm_client.prompt_files import read_prompts

SCORE = "/pars.v1.RankerService/Score"

SLACK_S = 10.0
"""Beyond its deadline, before a call counts as lost: the machine may stall for seconds, the promise is about the sidecar."""

CAPACITY_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class LoadJob:
    """One prompt per call, for `seconds`.

    calls_per_s: Poisson arrivals that do not wait for answers; 0: `callers` in a closed loop, the encoder asked for by name, which
    measures what it can do. deadline_ms: of each call, for arrivals.
    """

    address: str
    seconds: float
    calls_per_s: float = 0.0
    callers: int = 0
    deadline_ms: float = 0.0
    seed: int = 0


class Load:
    """Does jobs with one list of prompts."""

    def __init__(self, prompts: Sequence[str]) -> None:
        tiers = (ranker_pb2.TIER_UNSPECIFIED, ranker_pb2.TIER_ENCODER)
        self._any, self._encoder = (
            [ranker_pb2.ScoreRequest(prompts=[prompt], tier=tier).SerializeToString() for prompt in prompts] for tier in tiers
        )

    async def do(self, job: LoadJob) -> list[Outcome]:
        """All outcomes of a job, the unanswered calls included."""
        channel: Any  # the published types ask for arguments that have defaults
        async with grpc.aio.insecure_channel(job.address) as channel:
            await asyncio.wait_for(channel.channel_ready(), CAPACITY_DEADLINE_S)
            score = channel.unary_unary(SCORE)
            # A collection of the caller's would look like a pause of the sidecar's.
            gc.collect()
            gc.disable()
            try:
                record = await (self._arrivals(job, score) if job.calls_per_s else self._closed_loop(job, score))
            finally:
                gc.enable()
        return record.outcomes()

    async def _arrivals(self, job: LoadJob, score: Callable[..., Any]) -> "_Record":
        contents = itertools.cycle(self._any)
        record = _Record()
        begin_s, deadline_s = time.monotonic(), job.deadline_ms / 1e3
        tasks = await start_on_time(
            *(begin_s, job.calls_per_s, job.seconds, job.seed),
            lambda due_s: record.make(score, next(contents), deadline_s, due_s, begin_s),
        )
        await record.rest(tasks, deadline_s)
        return record

    async def _closed_loop(self, job: LoadJob, score: Callable[..., Any]) -> "_Record":
        contents = itertools.cycle(self._encoder)
        record = _Record()
        begin_s = time.monotonic()

        async def caller() -> None:
            while (now_s := time.monotonic() - begin_s) < job.seconds:
                await record.make(score, next(contents), CAPACITY_DEADLINE_S, now_s, begin_s)

        await record.rest({asyncio.create_task(caller()) for _ in range(job.callers)}, job.seconds + CAPACITY_DEADLINE_S)
        return record


class _Record:
    """Calls as they end. Replies stay bytes until the job is over."""

    def __init__(self) -> None:
        self._ended: list[tuple[float, float, float, str, bytes]] = []
        self._open: dict[int, tuple[float, float]] = {}
        self._numbers = itertools.count()

    async def make(self, score: Callable[..., Any], content: bytes, deadline_s: float, due_s: float, begin_s: float) -> None:
        """One call, from sending to its outcome."""
        number, sent_s = next(self._numbers), time.monotonic() - begin_s
        self._open[number] = (due_s, sent_s)
        code, reply = "OK", b""
        try:
            reply = await score(content, timeout=deadline_s)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        self._ended.append((due_s, sent_s, time.monotonic() - begin_s, code, reply))
        del self._open[number]

    async def rest(self, tasks: set[asyncio.Task[None]], deadline_s: float) -> None:
        """Wait for the calls still open, as long as any of them may take and some."""
        if tasks:
            done, pending = await asyncio.wait(tasks, timeout=deadline_s + SLACK_S)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()

    def outcomes(self) -> list[Outcome]:
        ended = [
            Outcome(due_s, sent_s, (ended_s - sent_s) * 1e3, code, _tier(reply) if code == "OK" else "")
            for due_s, sent_s, ended_s, code, reply in self._ended
        ]
        return ended + [Outcome(due_s, sent_s, 0.0, LOST, "") for due_s, sent_s in self._open.values()]


def _tier(reply: bytes) -> str:
    tier = ranker_pb2.ScoreResponse.FromString(reply).scores[0].tier
    return ranker_pb2.Tier.Name(tier).removeprefix("TIER_").lower()


async def answer(load: Load) -> None:
    """Jobs from standard input until it ends."""
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began_cpu_s = time.process_time()
        outcomes = await load.do(LoadJob(**json.loads(line)))
        # Packed: tens of thousands of calls.
        rows = [
            (round(each.due_s, 6), round(each.sent_s, 6), round(each.took_ms, 3), each.code, each.tier) for each in outcomes
        ]
        print(json.dumps({"outcomes": rows, "cpu_s": time.process_time() - began_cpu_s}), flush=True)


def job_line(job: LoadJob) -> str:
    """A job as the process reads it."""
    return json.dumps(dataclasses.asdict(job))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_overload.load", description=__doc__)
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts, in the order to send them")
    flags = parser.parse_args(arguments)
    asyncio.run(answer(Load(read_prompts(flags.prompts))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
