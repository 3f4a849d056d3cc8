"""A caller that dies in the middle: `python -m benchmarks.soak.doomed ADDRESS` opens calls and streams, says so and waits to be killed."""

import asyncio
import sys
from typing import Any

import grpc

from benchmarks.soak.mix import SCORE, STREAM, pool
from pars.v1 import ranker_pb2

CALLS, STREAMS, PROMPTS = 8, 4, 64
"""Prompts of each: seconds of work, so that it dies before the answers."""


async def open_and_wait(address: str) -> None:
    prompts = pool(0)
    request = ranker_pb2.ScoreRequest(prompts=[prompts[number % len(prompts)] for number in range(PROMPTS)])
    item = ranker_pb2.ScoreStreamRequest(request=request).SerializeToString()
    channel: Any  # the published types ask for arguments that have defaults
    async with grpc.aio.insecure_channel(address) as channel:
        score, stream = channel.unary_unary(SCORE), channel.stream_stream(STREAM)
        calls = [score(request.SerializeToString()) for _ in range(CALLS)]
        streams = [stream() for _ in range(STREAMS)]
        for each in streams:
            await each.write(item)
        print("sent", len(calls) + len(streams), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(open_and_wait(sys.argv[1]))
