"""The floor of any call: gRPC with nothing behind it. `python -m benchmarks.bench_overhead.echo` answers jobs with a server of its own.

The same library on both sides as the sidecar and its client use, one stream on a unix socket, no messages made or read.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.jobs import answer_jobs
from benchmarks.measurement import Call, Recording
from benchmarks.process import LineProcess
from pars.v1 import ranker_pb2
from vllm_client.prompt_files import read_prompts

METHOD = "benchmarks.Echo/Stream"

WARM_UP_CALLS = 50

START_S, ANSWER_S = 60.0, 30.0


async def serve(address: str) -> None:
    """Send everything back, until the process is ended."""

    async def stream(_: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
            await context.write(message)

    service, _, method = METHOD.partition("/")
    handlers = {method: grpc.stream_stream_rpc_method_handler(stream)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    print("serving", flush=True)
    await server.wait_for_termination()


async def call(address: str, message: bytes, seconds: float) -> Recording:
    """One message after the other, each sent when the last one is back."""
    channel: Any  # the published types ask for arguments that have defaults
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream(f"/{METHOD}")()

        async def one_call() -> Call:
            began_s = time.monotonic()
            async with asyncio.timeout(ANSWER_S):
                await stream.write(message)
                await stream.read()
            return Call(began_s, time.monotonic(), 1, tokens=0)

        for _ in range(WARM_UP_CALLS):
            await one_call()
        begin_s, began_cpu_s = time.monotonic(), time.process_time()
        calls = []
        while time.monotonic() < begin_s + seconds:
            calls.append(await one_call())
        await stream.done_writing()
    return Recording(begin_s, begin_s + seconds, calls, {}, time.process_time() - began_cpu_s)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_overhead.echo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--prompts", required=True, help=".jsonl with the prompts; the first one is what is sent")
    parser.add_argument("--serve", help="be the server, at this address")
    flags = parser.parse_args(arguments)
    if flags.serve:
        asyncio.run(serve(flags.serve))
        return 0
    prompt = read_prompts(flags.prompts)[0]
    message = ranker_pb2.ScoreStreamRequest(id=1, request=ranker_pb2.ScoreRequest(prompts=[prompt])).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="pars-bench-") as folder, asyncio.Runner() as runner:
        address = f"unix:{Path(folder) / 'echo.sock'}"
        command = [sys.executable, "-m", "benchmarks.bench_overhead.echo", "--prompts", flags.prompts, "--serve", address]
        with LineProcess(command, merge_stderr=True) as server:
            server.line_like("serving", START_S)
            answer_jobs({}, lambda job: runner.run(call(address, message, job.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
