"""`pars.v1.RankerService` on an Engine: protobuf in, engine call, protobuf out, errors into status codes. Decides nothing."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from pars.v1 import ranker_pb2
from sidecar.engine import Engine, ScoredCall
from sidecar.errors import CallError, InvalidRequestError
from sidecar.item_stream import answer_items
from sidecar.observer import Observer
from sidecar.stream_messages import StreamItem, StreamMessages
from sidecar.wire import Unreadable, parser, readable

SERVICE = "pars.v1.RankerService"

INTERNAL_MESSAGE = "internal error; the server's log says more"

_log = logging.getLogger(__name__)

Reply = TypeVar("Reply")


class RankerServicer:
    """The RPCs, named as in ranker.proto. To be used on the event loop's thread."""

    def __init__(self, engine: Engine, max_stream_items: int, observer: Observer | None = None) -> None:
        self._engine = engine
        self._observer = observer or Observer()
        self._max_stream_items = max_stream_items
        self._stopping = asyncio.Event()
        self.calls_seen = 0
        """Calls that have reached this servicer, refused ones included."""

    def stop_streams(self) -> None:
        """Read nothing more from open streams; each ends with UNAVAILABLE once what it has begun is answered."""
        self._stopping.set()

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """What a server registers. Not the generated registration, because that one parses with parsers that raise."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return {
            "Score": unary(self.Score, parser(ranker_pb2.ScoreRequest), ranker_pb2.ScoreResponse.SerializeToString),
            "ScoreStream": stream(
                self.ScoreStream, parser(ranker_pb2.ScoreStreamRequest), ranker_pb2.ScoreStreamResponse.SerializeToString
            ),
            "Compare": unary(self.Compare, parser(ranker_pb2.CompareRequest), ranker_pb2.CompareResponse.SerializeToString),
            "GetBundle": unary(
                self.GetBundle, parser(ranker_pb2.GetBundleRequest), ranker_pb2.GetBundleResponse.SerializeToString
            ),
        }

    async def Score(self, request: ranker_pb2.ScoreRequest | Unreadable, context: Any) -> ranker_pb2.ScoreResponse:
        return await self._guarded(context, self._score(request, context.time_remaining()))

    async def ScoreStream(self, requests: Any, context: Any) -> None:
        async def answer(item: StreamItem) -> ranker_pb2.ScoreStreamResponse:
            return await self._answer_item(item, context.time_remaining())

        messages = StreamMessages()
        stream = answer_items(
            context,
            answer,
            unpack=messages.unpack,
            pack=messages.pack,
            max_unanswered=self._max_stream_items,
            stopping=self._stopping,
        )
        await self._guarded(context, stream)

    async def Compare(self, request: ranker_pb2.CompareRequest | Unreadable, context: Any) -> ranker_pb2.CompareResponse:
        return await self._guarded(context, self._compare(request, context.time_remaining()))

    async def GetBundle(self, request: ranker_pb2.GetBundleRequest | Unreadable, context: Any) -> ranker_pb2.GetBundleResponse:
        return await self._guarded(context, self._get_bundle(request))

    async def _guarded(self, context: Any, work: Awaitable[Reply]) -> Reply:
        """Await the work; what it raises becomes the call's status."""
        self.calls_seen += 1
        try:
            return await work
        except Exception as error:
            code, message = self._status(error)
        try:
            await context.abort(code, message)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            # The caller has gone meanwhile. gRPC would write twenty lines about it into the log; of a cancelled call it says nothing.
            raise asyncio.CancelledError from error
        raise AssertionError("bug in gRPC: abort returned")

    async def _score(self, message: ranker_pb2.ScoreRequest | Unreadable, timeout_s: float | None) -> ranker_pb2.ScoreResponse:
        request = readable(message)
        call = await self._engine.score(request.prompts, request.tier, timeout_s, request.ranker)
        return ranker_pb2.ScoreResponse(scores=_prompt_scores(call), bundle_id=call.bundle_id, timing=_timing(call))

    async def _answer_item(self, item: StreamItem, stream_timeout_s: float | None) -> ranker_pb2.ScoreStreamResponse:
        timeout_s = stream_timeout_s
        if item.timeout_ms:
            timeout_s = min(item.timeout_ms / 1e3, float("inf") if stream_timeout_s is None else stream_timeout_s)
        try:
            return ranker_pb2.ScoreStreamResponse(id=item.id, response=await self._score(item.request, timeout_s))
        except Exception as error:
            code, message = self._status(error)
            return ranker_pb2.ScoreStreamResponse(id=item.id, error=ranker_pb2.ItemError(code=code.value[0], message=message))

    async def _compare(
        self, message: ranker_pb2.CompareRequest | Unreadable, timeout_s: float | None
    ) -> ranker_pb2.CompareResponse:
        request = readable(message)
        max_pairs = self._engine.limits.max_prompts_per_call // 2
        if not 1 <= len(request.pairs) <= max_pairs:
            raise InvalidRequestError(f"the call has {len(request.pairs)} pairs, 1 to {max_pairs} are taken")
        prompts = [prompt for pair in request.pairs for prompt in (pair.prompt_a, pair.prompt_b)]
        call = await self._engine.score(prompts, request.tier, timeout_s, request.ranker)
        scores = _prompt_scores(call)
        return ranker_pb2.CompareResponse(
            comparisons=[_comparison(a, b) for a, b in zip(scores[::2], scores[1::2], strict=True)],
            bundle_id=call.bundle_id,
            timing=_timing(call),
        )

    async def _get_bundle(self, message: ranker_pb2.GetBundleRequest | Unreadable) -> ranker_pb2.GetBundleResponse:
        live = self._engine.rankers.get(readable(message).ranker)
        return ranker_pb2.GetBundleResponse(
            manifest=live.ranker.manifest,
            execution_provider=live.ranker.execution_provider,
            max_prompts_per_call=self._engine.limits.max_prompts_per_call,
            ranker=live.name,
            rankers=self._engine.rankers.names,
        )

    def _status(self, error: Exception) -> tuple[grpc.StatusCode, str]:
        """The error table: ours say themselves what callers get, anything else is a bug and says nothing."""
        if isinstance(error, CallError):
            self._observer.rejected(error.cause)
            return error.code, str(error)
        self._observer.rejected("bug")
        # Where, but not what: the text of a foreign exception may quote the prompt.
        frames = error.__traceback__
        while frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
        where = "?" if frames is None else f"{frames.tb_frame.f_code.co_filename}:{frames.tb_lineno}"
        _log.error("a call failed with %s at %s", type(error).__name__, where)
        return grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE


def _prompt_scores(call: ScoredCall) -> list[ranker_pb2.PromptScore]:
    columns = zip(
        call.scores,
        call.quantiles,
        call.expected_tokens,
        call.expected_tokens_p90,
        call.prompt_tokens,
        call.truncated,
        strict=True,
    )
    return [
        ranker_pb2.PromptScore(
            score=score,
            quantile=quantile,
            expected_tokens=expected,
            expected_tokens_p90=p90,
            prompt_tokens=tokens,
            truncated=truncated,
            tier=call.tier,
        )
        for score, quantile, expected, p90, tokens, truncated in columns
    ]


def _comparison(a: ranker_pb2.PromptScore, b: ranker_pb2.PromptScore) -> ranker_pb2.Comparison:
    longer = ranker_pb2.LONGER_NEITHER
    if a.score != b.score:
        longer = ranker_pb2.LONGER_A if a.score > b.score else ranker_pb2.LONGER_B
    return ranker_pb2.Comparison(
        longer=longer, score_a=a, score_b=b, expected_tokens_difference=a.expected_tokens - b.expected_tokens
    )


def _timing(call: ScoredCall) -> ranker_pb2.Timing:
    return ranker_pb2.Timing(
        tokenize_time_ns=call.tokenize_time_ns, queue_time_ns=call.queue_time_ns, infer_time_ns=call.infer_time_ns
    )
