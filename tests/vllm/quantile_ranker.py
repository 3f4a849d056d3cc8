"""A real gRPC sidecar whose answers are written in the prompts: `prompt(0.25)` is scored with quantile 0.25.

In the test's process: `QuantileRanker(address)`. As a process that can be frozen and killed: `RankerProcess(address)`, or
`python quantile_ranker.py --address unix:/path [--delay-ms 500] [--answer nan]`.
"""

import argparse
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc

from pars.v1 import bundle_pb2, ranker_pb2, ranker_pb2_grpc

BUNDLE_ID = "0123456789abcdef"
UNMARKED = 0.5
"""Quantile of a prompt that names none."""
START_S = 60.0


def prompt(quantile: float, text: str = "") -> str:
    """A prompt that is scored with `quantile`."""
    return f"[q={quantile:g}] {text}".rstrip()


def quantile_of(text: str) -> float:
    """The quantile that a text asks for: the last mark in it wins."""
    found = re.findall(r"\[q=([0-9.]+)\]", text)
    return float(found[-1]) if found else UNMARKED


def _sane(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    quantiles = [quantile_of(text) for text in item.request.prompts]
    scores = [
        ranker_pb2.PromptScore(
            score=quantile,
            quantile=quantile,
            expected_tokens=1000 * quantile,
            expected_tokens_p90=2000 * quantile,
            prompt_tokens=8,
            tier=item.request.tier or ranker_pb2.TIER_ENCODER,
        )
        for quantile in quantiles
    ]
    response = ranker_pb2.ScoreResponse(scores=scores, bundle_id=BUNDLE_ID)
    return ranker_pb2.ScoreStreamResponse(id=item.id, response=response)


def _nan(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    reply = _sane(item)
    for score in reply.response.scores:
        score.quantile = score.score = float("nan")
    return reply


def _outside(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    reply = _sane(item)
    for score in reply.response.scores:
        score.quantile = -3.0
    return reply


def _wrong_count(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    reply = _sane(item)
    reply.response.scores.extend(list(reply.response.scores))
    return reply


def _nothing(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    return ranker_pb2.ScoreStreamResponse(id=item.id)


def _overloaded(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    return ranker_pb2.ScoreStreamResponse(id=item.id, error=ranker_pb2.ItemError(code=code, message="full"))


ANSWERS: dict[str, Callable[[ranker_pb2.ScoreStreamRequest], ranker_pb2.ScoreStreamResponse]] = {
    "sane": _sane,
    "nan": _nan,
    "outside": _outside,
    "wrong-count": _wrong_count,
    "nothing": _nothing,
    "overloaded": _overloaded,
}
"""How it answers. All but `sane` are what a hook must survive."""


class QuantileRanker(ranker_pb2_grpc.RankerServiceServicer):
    """Serves at `address` from when it is made until `stop()`. `answer` (a name in ANSWERS) and `delay_s` may change any time.

    `questions` holds the texts of every question, in the order in which they came; `questions_of_streams` counts them for each
    stream that asked any, and so for each API server.
    """

    def __init__(self, address: str = "127.0.0.1:0", *, answer: str = "sane", delay_s: float = 0.0) -> None:
        self.questions: list[tuple[str, ...]] = []
        self.questions_of_streams: dict[str, int] = {}
        self.answer = answer
        self.delay_s = delay_s
        self._stopping = threading.Event()
        self._pool = futures.ThreadPoolExecutor(max_workers=16)
        self._server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        ranker_pb2_grpc.add_RankerServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        self._server.start()

    def stop(self) -> None:
        """Die at once: what is in flight is cut off. Twice is harmless."""
        self._stopping.set()
        assert self._server.stop(grace=None).wait(START_S)
        self._pool.shutdown()

    def _reply(self, item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
        self.questions.append(tuple(item.request.prompts))
        if self.delay_s:
            self._stopping.wait(self.delay_s)  # A slow sidecar is the point of it.
        return ANSWERS[self.answer](item)

    def Score(self, request, context):
        reply = self._reply(ranker_pb2.ScoreStreamRequest(request=request))
        if reply.HasField("error"):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reply.error.message)
        return reply.response

    def ScoreStream(self, request_iterator, context) -> Iterator[ranker_pb2.ScoreStreamResponse]:
        try:
            for item in request_iterator:
                stream = context.peer() + str(id(context))
                self.questions_of_streams[stream] = self.questions_of_streams.get(stream, 0) + 1
                yield self._reply(item)
        except Exception:
            # grpc raises a bare Exception here when the client has gone.
            if context.is_active():
                raise

    def GetBundle(self, request, context):
        manifest = bundle_pb2.BundleManifest(format_version=1, bundle_id=BUNDLE_ID, model_name="quantiles in prompts")
        return ranker_pb2.GetBundleResponse(manifest=manifest, execution_provider="none", max_prompts_per_call=256)


class RankerProcess:
    """The same as a process of its own, serving when made. `stop()` kills it."""

    def __init__(self, address: str, *, answer: str = "sane", delay_ms: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--address", address, "--answer", answer, "--delay-ms", str(delay_ms)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        # The line comes once it serves. When it dies first, the pipe ends, and this with it.
        assert self.process.stdout.readline() == "serving\n"

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGKILL, which a frozen process obeys too. Twice is harmless."""
        self.process.kill()
        self.process.wait(timeout=START_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--answer", choices=ANSWERS, default="sane")
    parser.add_argument("--delay-ms", type=int, default=0)
    options = parser.parse_args()
    ranker = QuantileRanker(options.address, answer=options.answer, delay_s=options.delay_ms / 1000)
    print("serving", flush=True)
    try:
        threading.Event().wait()
    finally:
        ranker.stop()


if __name__ == "__main__":
    main()
