"""Callers of a peer over HTTP: `python -m benchmarks.peers.caller` answers jobs, like benchmarks.caller for the sidecar."""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from benchmarks.closed_loop import AFTER_FAILURE_S, TIMEOUT_S, prompt_batches
from benchmarks.jobs import HttpJob, answer_jobs
from benchmarks.measurement import Call, Recording
from benchmarks.open_loop import start_on_time
from benchmarks.peers.http import FAILURES, ask, session
from benchmarks.peers.registry import PEERS
from vllm_client.prompt_files import read_prompts


class HttpCaller:
    """Does jobs with one list of prompts. timeout_s: of each call."""

    def __init__(self, prompts: Sequence[str], timeout_s: float = TIMEOUT_S) -> None:
        self._prompts = prompts
        self._timeout_s = timeout_s

    def do(self, job: HttpJob) -> Recording:
        """Run the job's callers until its window ends and their last calls are answered."""
        began_cpu_s = time.process_time()
        calls, failures = asyncio.run(self._do(job))
        return Recording(job.begin_s, job.end_s, calls, dict(failures), time.process_time() - began_cpu_s)

    async def _do(self, job: HttpJob) -> tuple[list[Call], Counter[str]]:
        batches = prompt_batches(self._prompts, job.first_prompt, job.prompts_per_call)
        calls: list[Call] = []
        failures: Counter[str] = Counter()
        if job.calls_per_s:
            await self._open_loop(job, batches, calls, failures)
            return calls, failures
        async with asyncio.TaskGroup() as group:
            for _ in range(job.callers):
                group.create_task(self._caller(job, batches, calls, failures))
        return calls, failures

    async def _caller(self, job: HttpJob, batches: Iterator[list[str]], calls: list[Call], failures: Counter[str]) -> None:
        peer = PEERS[job.peer]
        async with session(self._timeout_s) as client:
            while (began_s := time.monotonic()) < job.end_s:
                prompts = next(batches)
                try:
                    await ask(client, job.url, peer, prompts)
                except FAILURES as error:
                    failures[type(error).__name__] += 1
                    await asyncio.sleep(AFTER_FAILURE_S)
                else:
                    calls.append(Call(began_s, time.monotonic(), len(prompts), tokens=0))

    async def _open_loop(self, job: HttpJob, batches: Iterator[list[str]], calls: list[Call], failures: Counter[str]) -> None:
        peer, begin_s = PEERS[job.peer], time.monotonic()
        async with session(self._timeout_s, connections=0) as client:

            async def call(due_s: float) -> None:
                prompts = next(batches)
                try:
                    await ask(client, job.url, peer, prompts)
                except FAILURES as error:
                    failures[type(error).__name__] += 1
                else:
                    calls.append(Call(begin_s + due_s, time.monotonic(), len(prompts), tokens=0))

            seconds = job.end_s - begin_s
            await asyncio.gather(*await start_on_time(begin_s, job.calls_per_s, seconds, job.first_prompt, call))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.caller", description=__doc__)
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts, in the order to send them")
    flags = parser.parse_args(arguments)
    answer_jobs({}, HttpCaller(read_prompts(flags.prompts)).do)
    return 0


if __name__ == "__main__":
    sys.exit(main())
