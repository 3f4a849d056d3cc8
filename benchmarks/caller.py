"""Callers of a sidecar, through vllm_client as everybody calls it. `python -m benchmarks.caller` answers jobs.

Closed loop: each caller sends its next call when the last one is answered.
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
        if job.callers != 1:
            raise ValueError(f"the synchronous client is driven by one caller, not {job.callers}")
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
        async with AsyncRankerClient(_config(job)) as client:
            if job.via == "stream":
                async with client.stream() as stream:
                    await _drive(job.callers, stream.score, batches, record)
            else:
                await _drive(job.callers, client.score, batches, record)


class _Record:
    """What happened to one job's calls."""

    def __init__(self, job: CallsJob) -> None:
        self._end_s = job.end_s
        self.tier = Tier.NGRAM if job.ngram else Tier.ANY
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


async def _drive(
    callers: int, score: Callable[..., Awaitable[ScoredBatch]], batches: Iterator[list[str]], record: _Record
) -> None:
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
        for _ in range(callers):
            group.create_task(caller())


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
