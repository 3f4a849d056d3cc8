"""Fuzz targets around one call: whatever bytes come as a message, the caller gets one answer, with a status the proto promises.

Everything is real but the network and the model: parsers, servicer, stream, engine, batching, calibration. The model answers at
once and its clock stands still, so a run is decided by its bytes alone.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

import grpc
from sidecar_rig import Rig

from pars.v1 import ranker_pb2
from sidecar.servicer import RankerServicer
from sidecar.stream_messages import MAX_ITEMS

METHODS = ("Score", "Compare", "GetBundle")
MAX_PROMPTS = 8
MAX_STREAM_ITEMS = 4
ANSWER_S = 5.0

Code = grpc.StatusCode
PROMISED = {Code.OK, Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED}
"""What a server with room for everybody and a sound model may answer."""


class Aborted(grpc.aio.AbortError):  # type: ignore[misc]
    """How gRPC ends a handler that aborts."""


class Context:
    """What gRPC hands to a handler. timeout_s: what the caller still has. items: what the stream's client sends, then its end."""

    def __init__(
        self, timeout_s: float | None, items: list[bytes] | None = None, parse: Callable[[bytes], Any] = bytes
    ) -> None:
        self.code = Code.OK
        self.message = ""
        self.written: list[Any] = []
        self._timeout_s = timeout_s
        self._items = iter(items or [])
        self._parse = parse

    def time_remaining(self) -> float | None:
        return self._timeout_s

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        assert self.code is Code.OK, "one call was ended twice"
        self.code, self.message = code, message
        raise Aborted

    async def read(self) -> Any:
        await asyncio.sleep(0)
        for item in self._items:
            return self._parse(item)
        return grpc.aio.EOF

    async def write(self, reply: Any) -> None:
        await asyncio.sleep(0)
        self.written.append(reply)


def request(content: bytes) -> None:
    """First byte: which method and how much time. The rest is the message, as it comes off the wire."""
    head, message = (content[0], content[1:]) if content else (0, b"")
    method = METHODS[head % len(METHODS)]
    context = Context(_timeout_s(head // len(METHODS)))
    reply = _run(lambda servicer: _unary(servicer, method, message, context))
    assert (reply is None) == (context.code is not Code.OK), "a reply and an error, or neither"
    _check_status(context.code, context.message)
    if method == "Score" and reply is not None:
        _check_scores(message, reply)


def stream(content: bytes) -> None:
    """First byte: the stream's time. Then items, each with one byte of length before it; the last one may be cut short."""
    head, rest = (content[0], content[1:]) if content else (0, b"")
    items = []
    while rest:
        items.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    handler = _method("ScoreStream")
    context = Context(_timeout_s(head), items, handler.request_deserializer)
    _run(lambda servicer: _streamed(servicer, context))
    _check_status(context.code, context.message)
    sent, readable = [], True
    for item in items:
        try:
            message = ranker_pb2.ScoreStreamRequest.FromString(item)
        except Exception:
            readable = False
            break
        if any(further.more for further in message.more) or len(message.more) >= MAX_ITEMS:
            readable = False
            break
        sent += [each.id for each in (message, *message.more)]
    assert (context.code is Code.INVALID_ARGUMENT) == (not readable), "an unreadable message, and nothing else, ends a stream"
    written = [ranker_pb2.ScoreStreamResponse.FromString(handler.response_serializer(reply)) for reply in context.written]
    replies = [reply for message in written for reply in (message, *message.more)]
    assert sorted(reply.id for reply in replies) == sorted(sent), "every item that was read has one reply"
    for reply in replies:
        if reply.WhichOneof("outcome") == "error":
            _check_status(next(code for code in Code if code.value[0] == reply.error.code), reply.error.message)
            assert reply.error.code, "an error with code OK"


TARGETS: dict[str, Callable[[bytes], None]] = {"request": request, "stream": stream}


async def _unary(servicer: RankerServicer, method: str, message: bytes, context: Context) -> Any:
    handler = _method(method)
    try:
        reply = await getattr(servicer, method)(handler.request_deserializer(message), context)
    except Aborted:
        return None
    return type(reply).FromString(handler.response_serializer(reply))


async def _streamed(servicer: RankerServicer, context: Context) -> None:
    with contextlib.suppress(Aborted):
        await servicer.ScoreStream(None, context)


def _check_status(code: grpc.StatusCode, message: str) -> None:
    assert code in PROMISED, f"{code}: {message}"
    assert (code is Code.OK) == (not message), "an error without a message"


def _check_scores(message: bytes, reply: ranker_pb2.ScoreResponse) -> None:
    prompts = ranker_pb2.ScoreRequest.FromString(message).prompts
    # The rig's model and its tokenizer, told once more: a prompt scores its number of characters.
    assert [score.score for score in reply.scores] == [float(len(prompt)) for prompt in prompts]
    assert all(0 <= score.quantile <= 1 and score.tier in (1, 2) for score in reply.scores)


def _timeout_s(choice: int) -> float | None:
    return (None, 0.0, -1.0, 1e-9, 0.5, 60.0, 1e18, float("inf"))[choice % 8]


def _run(call: Callable[[RankerServicer], Coroutine[Any, Any, Any]]) -> Any:
    """Run one call to its end. Nothing of it may be left in the engine, whatever it was."""
    runner, rig, servicer = _rigged()

    async def alone() -> Any:
        reply = await asyncio.wait_for(call(servicer), ANSWER_S)
        rig.tasks = [asyncio.ensure_future(asyncio.sleep(0))]
        await rig.assert_clean()
        rig.scorer.batches.clear()
        rig.ngram.batches.clear()
        return reply

    return runner.run(alone())


@cache
def _rigged() -> tuple[asyncio.Runner, Rig, RankerServicer]:
    """One engine for all inputs, on an event loop of its own."""
    runner = asyncio.Runner()

    async def make() -> tuple[Rig, RankerServicer]:
        rig = Rig(workers=1, capacity=64, max_prompts_per_call=MAX_PROMPTS, max_batch_prompts=4)
        rig.scorer.run_free()
        return rig, RankerServicer(rig.engine, MAX_STREAM_ITEMS)

    rig, servicer = runner.run(make())
    return runner, rig, servicer


@cache
def _method(name: str) -> Any:
    _, _, servicer = _rigged()
    return servicer.handlers()[name]
