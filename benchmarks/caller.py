"""Callers of a sidecar, through vllm_client as everybody calls it. `python -m benchmarks.caller` answers jobs.

In a closed loop each caller sends its next call when the last one is answered; in an open loop calls come when they are due.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence

from benchmarks.closed_loop import AFTER_FAILURE_S, TIMEOUT_S, prompt_batches
from benchmarks.jobs import CallsJob, answer_jobs
from benchmarks.measurement import Call, Recording
from benchmarks.open_loop import start_on_time
from vllm_client import AsyncRankerClient, ClientConfig, RankerClient, RankerClientError, ScoredBatch, Tier
from vllm_client.prompt_files import read_prompts


class Caller:
    """Does jobs with one list of prompts."""

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompts = prompts
        # One loop for life: grpc.aio keeps hold of the first and complains about each further one.
        self._runner = asyncio.Runner()

    def do(self, job: CallsJob) -> Recording:
        """Run the job's callers until its window ends and their last calls are answered."""
        began_cpu_s = time.process_time()
        record = _Record(job)
        if job.via == "sync":
            self._sync(job, record)
        else:
            self._runner.run(self._asyncio(job, record))
        return Recording(job.begin_s, job.end_s, record.calls, dict(record.failures), time.process_time() - began_cpu_s)

    def _sync(self, job: CallsJob, record: "_Record") -> None:
        if job.callers != 1 or job.calls_per_s:
            raise ValueError("the synchronous client is driven by one caller in a closed loop")
        with RankerClient(_config(job)) as client:
            for prompts in prompt_batches(self._prompts, job.first_prompt, job.prompts_per_call):
                if record.is_over():
                    return
                began_s = time.monotonic()
                try:
                    record.answered(began_s, client.score(prompts, tier=record.tier))
                except RankerClientError as error:
                    record.failed(error)
                    time.sleep(AFTER_FAILURE_S)

    async def _asyncio(self, job: CallsJob, record: "_Record") -> None:
        batches = prompt_batches(self._prompts, job.first_prompt, job.prompts_per_call)
        drive = _open_loop if job.calls_per_s else _closed_loop
        async with AsyncRankerClient(_config(job)) as client:
            if job.via == "stream":
                async with client.stream() as stream:
                    await drive(job, stream.score, batches, record)
            else:
                await drive(job, client.score, batches, record)


class _Record:
    """What happened to one job's calls."""

    def __init__(self, job: CallsJob) -> None:
        self._end_s = job.end_s
        # The encoder by name: what it has no room for is a failed call, not a quick answer of the cheap tier.
        self.tier = Tier.NGRAM if job.ngram else Tier.ENCODER
        self.calls: list[Call] = []
        self.failures: Counter[str] = Counter()

    def is_over(self) -> bool:
        return time.monotonic() >= self._end_s

    def answered(self, began_s: float, batch: ScoredBatch) -> None:
        ended_s = time.monotonic()
        tokens = sum(score.prompt_tokens for score in batch.scores)
        self.calls.append(Call(began_s, ended_s, len(batch.scores), tokens, *batch.timing))

    def failed(self, error: RankerClientError) -> None:
        self.failures[type(error).__name__] += 1


Score = Callable[..., Awaitable[ScoredBatch]]


async def _closed_loop(job: CallsJob, score: Score, batches: Iterator[list[str]], record: _Record) -> None:
    async def caller() -> None:
        while not record.is_over():
            prompts = next(batches)
            began_s = time.monotonic()
            try:
                record.answered(began_s, await score(prompts, tier=record.tier))
            except RankerClientError as error:
                record.failed(error)
                await asyncio.sleep(AFTER_FAILURE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(job.callers):
            group.create_task(caller())


async def _open_loop(job: CallsJob, score: Score, batches: Iterator[list[str]], record: _Record) -> None:
    begin_s = time.monotonic()

    async def call(due_s: float) -> None:
        try:
            record.answered(begin_s + due_s, await score(next(batches), tier=record.tier))
        except RankerClientError as error:
            record.failed(error)

    seconds = job.end_s - begin_s
    await asyncio.gather(*await start_on_time(begin_s, job.calls_per_s, seconds, job.first_prompt, call))


def _config(job: CallsJob) -> ClientConfig:
    return ClientConfig(address=job.address, deadline_ms=TIMEOUT_S * 1e3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caller", description=__doc__)
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts, in the order to send them")
    flags = parser.parse_args(arguments)
    answer_jobs({}, Caller(read_prompts(flags.prompts)).do)
    return 0


if __name__ == "__main__":
    sys.exit(main())
