"""A real gRPC server whose answers a test writes itself.

As a program it serves sane answers at the address it is given, prints that address, and ends with its standard input.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc

from pars.v1 import bundle_pb2, ranker_pb2, ranker_pb2_grpc

BUNDLE_ID = "0123456789abcdef"
TIMEOUT_S = 20
"""For every wait of a test: never reached when all is well."""


def prompt_score(prompt: str, tier: int = ranker_pb2.TIER_ENCODER) -> ranker_pb2.PromptScore:
    """A sane score that a test can predict: the longer the prompt, the longer the response."""
    return ranker_pb2.PromptScore(
        score=len(prompt),
        quantile=min(1.0, len(prompt) / 100),
        expected_tokens=10 * len(prompt),
        expected_tokens_p90=20 * len(prompt),
        prompt_tokens=len(prompt) + 2,
        truncated=len(prompt) > 50,
        tier=tier or ranker_pb2.TIER_ENCODER,
    )


def score_reply(request: ranker_pb2.ScoreRequest) -> ranker_pb2.ScoreResponse:
    return ranker_pb2.ScoreResponse(
        scores=[prompt_score(prompt, request.tier) for prompt in request.prompts],
        bundle_id=BUNDLE_ID,
        timing=ranker_pb2.Timing(tokenize_time_ns=1_000_000, queue_time_ns=2_000_000, infer_time_ns=3_000_000),
    )


def item_reply(item: ranker_pb2.ScoreStreamRequest) -> ranker_pb2.ScoreStreamResponse:
    return ranker_pb2.ScoreStreamResponse(id=item.id, response=score_reply(item.request))


def item_error(item: ranker_pb2.ScoreStreamRequest, code: grpc.StatusCode, message: str) -> ranker_pb2.ScoreStreamResponse:
    return ranker_pb2.ScoreStreamResponse(id=item.id, error=ranker_pb2.ItemError(code=code.value[0], message=message))


def compare_reply(request: ranker_pb2.CompareRequest) -> ranker_pb2.CompareResponse:
    comparisons = []
    for pair in request.pairs:
        a, b = prompt_score(pair.prompt_a, request.tier), prompt_score(pair.prompt_b, request.tier)
        longer = 1 if a.score > b.score else 2 if a.score < b.score else 3
        comparisons.append(
            ranker_pb2.Comparison(
                longer=longer, score_a=a, score_b=b, expected_tokens_difference=a.expected_tokens - b.expected_tokens
            )
        )
    return ranker_pb2.CompareResponse(comparisons=comparisons, bundle_id=BUNDLE_ID)


def bundle_reply() -> ranker_pb2.GetBundleResponse:
    manifest = bundle_pb2.BundleManifest(
        format_version=1,
        bundle_id=BUNDLE_ID,
        model_name="scripted",
        precision=bundle_pb2.PRECISION_FP32,
        files=[bundle_pb2.BundleFile(path="model.onnx", size_bytes=1_500_000)],
        input=bundle_pb2.ModelInput(max_tokens=128),
        licence="MIT",
    )
    return ranker_pb2.GetBundleResponse(manifest=manifest, execution_provider="CPUExecutionProvider", max_prompts_per_call=4)


class ManualStream:
    """An `answer_stream` whose server side the test plays by hand: items arrive in `inbox`, what is put in `outbox` is sent."""

    def __init__(self) -> None:
        self.inbox: queue.Queue[ranker_pb2.ScoreStreamRequest] = queue.Queue()
        self.outbox: queue.Queue[ranker_pb2.ScoreStreamResponse | None] = queue.Queue()

    def receive(self) -> ranker_pb2.ScoreStreamRequest:
        return self.inbox.get(timeout=TIMEOUT_S)

    def answer(self, item: ranker_pb2.ScoreStreamRequest) -> None:
        self.outbox.put(ranker_pb2.ScoreStreamResponse(id=item.id, response=score_reply(item.request)))

    def end(self) -> None:
        self.outbox.put(None)

    def serve(
        self, items: Iterator[ranker_pb2.ScoreStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[ranker_pb2.ScoreStreamResponse]:
        def read() -> None:
            try:
                for item in items:
                    self.inbox.put(item)
            except Exception:  # grpc raises a bare Exception here when the client has gone.
                return

        threading.Thread(target=read, daemon=True).start()
        context.add_callback(self.end)
        yield from iter(self.outbox.get, None)


class _Gate(grpc.ServerInterceptor):
    def __init__(self, allowed_tokens: set[str]) -> None:
        self._allowed_tokens = allowed_tokens

    def intercept_service(self, continuation, details):
        shown = [value for name, value in details.invocation_metadata if name == "authorization"]
        if shown and shown[0] in {f"Bearer {token}" for token in self._allowed_tokens}:
            return continuation(details)

        def refuse(requests, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is wanted")

        return grpc.stream_stream_rpc_method_handler(refuse)


class ScriptedRanker(ranker_pb2_grpc.RankerServiceServicer):
    """Serves on a free port, or where told. Replace the `answer_...` functions; `requests` holds what came in.

    `tls`: server credentials. `allowed_tokens`: with it, calls without one of them are refused; it may change.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        tls: grpc.ServerCredentials | None = None,
        allowed_tokens: set[str] | None = None,
    ) -> None:
        self.requests: list[object] = []
        self.answer_score: Callable[[ranker_pb2.ScoreRequest, grpc.ServicerContext], ranker_pb2.ScoreResponse]
        self.answer_score = lambda request, context: score_reply(request)
        self.answer_compare = compare_reply
        self.answer_bundle = bundle_reply
        self.manual_stream = ManualStream()
        self.answer_stream: Callable[..., Iterator[ranker_pb2.ScoreStreamResponse]] = self.serve_items
        self.answer_item: Callable[[ranker_pb2.ScoreStreamRequest], ranker_pb2.ScoreStreamResponse | None] = item_reply
        self.called = threading.Event()
        self.released = threading.Event()
        self._pool = futures.ThreadPoolExecutor(max_workers=16)
        gate = () if allowed_tokens is None else (_Gate(allowed_tokens),)
        self._server = grpc.server(self._pool, interceptors=gate, options=[("grpc.so_reuseport", 0)])
        ranker_pb2_grpc.add_RankerServiceServicer_to_server(self, self._server)
        port = self._server.add_secure_port(address, tls) if tls else self._server.add_insecure_port(address)
        self.address = address.replace(":0", f":{port}")
        self._server.start()

    def stop(self) -> None:
        """Die at once: every call in flight is cut off. Twice is harmless."""
        self.released.set()
        self.manual_stream.end()
        assert self._server.stop(grace=None).wait(TIMEOUT_S)
        self._pool.shutdown()

    def serve_items(
        self, items: Iterator[ranker_pb2.ScoreStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[ranker_pb2.ScoreStreamResponse]:
        """An `answer_stream` that gives each item to `answer_item`, one after the other; None leaves it unanswered."""
        for item in items:
            self.requests.append(item)
            if (reply := self.answer_item(item)) is not None:
                yield reply

    def freeze(self, request: ranker_pb2.ScoreRequest, context: grpc.ServicerContext) -> ranker_pb2.ScoreResponse:
        """An `answer_score` that does not come back before the server is stopped."""
        self.called.set()
        assert self.released.wait(TIMEOUT_S)
        return score_reply(request)

    def fail_with(self, code: grpc.StatusCode, message: str) -> None:
        def abort(request: ranker_pb2.ScoreRequest, context: grpc.ServicerContext) -> ranker_pb2.ScoreResponse:
            context.abort(code, message)
            raise AssertionError("abort raises")

        self.answer_score = abort

    def Score(self, request, context):
        self.requests.append(request)
        return self.answer_score(request, context)

    def ScoreStream(self, request_iterator, context):
        yield from self.answer_stream(request_iterator, context)

    def Compare(self, request, context):
        self.requests.append(request)
        return self.answer_compare(request)

    def GetBundle(self, request, context):
        self.requests.append(request)
        return self.answer_bundle()


def main() -> None:
    server = ScriptedRanker(sys.argv[1])
    print(server.address, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
