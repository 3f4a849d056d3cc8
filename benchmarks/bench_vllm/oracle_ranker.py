"""A ranker that knows: `python -m benchmarks.bench_vllm.oracle_ranker --address … --workload …` answers from the recorded response lengths.

It speaks `pars.v1` as the sidecar does and is attached through the very same hook, so what differs between two runs is the order
alone. `--shuffle` deals the lengths out anew: a ranker that knows nothing. `--prompt-length` takes each prompt's own length in
characters for that of its response. `--quantile` answers every prompt at once with the same
score: what remains is the cost of asking.
"""

import argparse
import asyncio
import random
import signal
import sys
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks.replay import read_workload
from pars.v1 import bundle_pb2, ranker_pb2, ranker_pb2_grpc
from vllm_client import NEUTRAL_QUANTILE
from vllm_client.hook.link import PROBE

BUNDLE_ID = "oracle"

MAX_PROMPTS = 256

ANY_TOKENS = 100.0
"""The length said to be expected where none is known. No policy that is measured here looks at it."""

Known = Callable[[str], ranker_pb2.PromptScore | None]
"""Prompt → its score; None: never heard of it."""


class OracleRanker(ranker_pb2_grpc.RankerServiceServicer):
    """The servicer. An unknown prompt is an INVALID_ARGUMENT, so that a replay that asks about the wrong text cannot go unnoticed."""

    def __init__(self, known: Known) -> None:
        self._known = known

    async def Score(self, request: ranker_pb2.ScoreRequest, context: Any) -> ranker_pb2.ScoreResponse:
        response = self._score(request)
        if response is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a prompt that is not in the workload")
            raise AssertionError("bug in gRPC: abort returned")
        return response

    async def ScoreStream(
        self, requests: AsyncIterator[ranker_pb2.ScoreStreamRequest], context: Any
    ) -> AsyncIterator[ranker_pb2.ScoreStreamResponse]:
        async for item in requests:
            response = self._score(item.request)
            if response is not None:
                yield ranker_pb2.ScoreStreamResponse(id=item.id, response=response)
            else:
                error = ranker_pb2.ItemError(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="unknown prompt")
                yield ranker_pb2.ScoreStreamResponse(id=item.id, error=error)

    async def GetBundle(self, request: ranker_pb2.GetBundleRequest, context: Any) -> ranker_pb2.GetBundleResponse:
        manifest = bundle_pb2.BundleManifest(format_version=1, bundle_id=BUNDLE_ID, model_name=BUNDLE_ID)
        return ranker_pb2.GetBundleResponse(manifest=manifest, execution_provider="none", max_prompts_per_call=MAX_PROMPTS)

    def _score(self, request: ranker_pb2.ScoreRequest) -> ranker_pb2.ScoreResponse | None:
        scores = [score for prompt in request.prompts if (score := self._known(prompt)) is not None]
        if len(scores) < len(request.prompts):
            return None
        return ranker_pb2.ScoreResponse(scores=scores, bundle_id=BUNDLE_ID)


def recorded(lengths: Mapping[str, int]) -> Known:
    """Answers from prompt → response tokens."""
    quantiles = quantiles_of(list(lengths.values()))
    scores = {
        prompt: _score_of(quantile, tokens) for (prompt, tokens), quantile in zip(lengths.items(), quantiles, strict=True)
    }
    # What a hook asks when it connects, to see whether it is answered.
    scores.setdefault(PROBE, _score_of(NEUTRAL_QUANTILE, ANY_TOKENS))
    return scores.get


def constant(quantile: float) -> Known:
    """The same answer for every prompt."""
    score = _score_of(quantile, ANY_TOKENS)
    return lambda prompt: score


def shuffled(lengths: Mapping[str, int], seed: int) -> dict[str, int]:
    """The same prompts and the same lengths, but dealt out anew."""
    values = list(lengths.values())
    random.Random(seed).shuffle(values)
    return dict(zip(lengths, values, strict=True))


def quantiles_of(lengths: Sequence[int]) -> list[float]:
    """Each one's place among all of them, in [0, 1]: the share that is shorter, plus half of the share that is equal."""
    ascending = sorted(lengths)
    places = ((bisect_left(ascending, length) + bisect_right(ascending, length)) / 2 for length in lengths)
    return [place / len(ascending) for place in places]


def _score_of(quantile: float, tokens: float) -> ranker_pb2.PromptScore:
    return ranker_pb2.PromptScore(
        score=quantile,
        quantile=quantile,
        expected_tokens=tokens,
        expected_tokens_p90=tokens,
        prompt_tokens=1,
        tier=ranker_pb2.TIER_ENCODER,
    )


async def serve(address: str, known: Known) -> None:
    """Serve until SIGTERM; says `serving address=…` when it is there."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    ranker_pb2_grpc.add_RankerServiceServicer_to_server(OracleRanker(known), server)  # type: ignore[no-untyped-call]  # generated
    server.add_insecure_port(address)
    await server.start()
    print(f"serving address={address}", flush=True)
    await stop.wait()
    await server.stop(grace=None)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_vllm.oracle_ranker", description=__doc__.split("\n\n")[0])
    parser.add_argument("--address", required=True, help="host:port or unix:/path")
    knowledge = parser.add_mutually_exclusive_group(required=True)
    knowledge.add_argument("--workload", type=Path, help=".jsonl with prompt and output_tokens")
    knowledge.add_argument("--quantile", type=float, help="answer every prompt with this quantile")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--shuffle", type=int, metavar="SEED", help="deal the workload's lengths out anew")
    instead.add_argument("--prompt-length", action="store_true", help="the prompt's length instead of the response's")
    flags = parser.parse_args(arguments)
    if flags.workload is None:
        known = constant(flags.quantile)
    else:
        lengths = {request.prompt: request.output_tokens for request in read_workload(flags.workload)}
        if flags.prompt_length:
            lengths = {prompt: len(prompt) for prompt in lengths}
        elif flags.shuffle is not None:
            lengths = shuffled(lengths, flags.shuffle)
        known = recorded(lengths)
    asyncio.run(serve(flags.address, known))
    return 0


if __name__ == "__main__":
    sys.exit(main())
