"""ScoreStream: many small concurrent calls on one gRPC stream, a fraction of the cost of a call each.

Two tasks serve it. The writer alone writes: grpc.aio allows one write at a time, and cancelling a write kills the whole stream,
so callers only put their message into `_unsent` and wait for a future. The reader matches replies to futures by id. Whoever
leaves early, through a timeout or a cancel, takes message and future along; so nothing here ever holds more than
`max_in_flight` items, not even towards a server that reads nothing.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from pars.v1 import ranker_pb2
from vllm_client import replies, requests
from vllm_client.config import ClientConfig
from vllm_client.errors import DeadlineError, UnavailableError
from vllm_client.scores import ScoredBatch, Tier


class ScoreStream:
    """One bidirectional stream, made by `AsyncRankerClient.stream()`, open inside its `async with` and only once.

    The stream itself has no deadline, each item has one. When the stream dies, every waiting call and every later one raises
    UnavailableError; open another one then.
    """

    def __init__(self, open_stream: Callable[..., Any], config: ClientConfig) -> None:
        """`open_stream` is the stub's ScoreStream method."""
        self._open_stream = open_stream
        self._config = config
        self._permits = asyncio.Semaphore(config.max_in_flight)
        self._ids = itertools.count(1)
        self._unsent: dict[int, ranker_pb2.ScoreStreamRequest] = {}
        # None stands for "the stream is gone". Results, not exceptions: nobody has to collect one after its caller has left.
        self._waiting: dict[int, asyncio.Future[ranker_pb2.ScoreStreamResponse | None]] = {}
        self._something_unsent = asyncio.Event()
        self._closed_because: str | None = "it is not open"
        self._ended = asyncio.Event()
        self._call: Any = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.unheard = 0
        """Items handed in since the last reply of any kind came, late ones included. Many: the other side may be frozen."""

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RuntimeError("a ScoreStream is opened once; ask the client for another")
        try:
            self._call = self._open_stream(wait_for_ready=False)
        except grpc.aio.UsageError as error:
            raise UnavailableError("the client is closed") from error
        self._closed_because = None
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._fail_all("it was closed")
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):  # A bug of ours; a CancelledError is no Exception.
                raise outcome

    async def score(self, prompts: Sequence[str], *, tier: Tier = Tier.ANY, timeout_ms: float | None = None) -> ScoredBatch:
        """Score one batch. Any number of tasks may call this at a time; their replies come as they get ready.

        `timeout_ms` replaces the config's `deadline_ms`; waiting for room among `max_in_flight` counts. Errors as for
        `RankerClient.score`, each to its own caller. A cancelled caller leaves at once; the server drops its prompts at their
        deadline, if it has not scored them by then.
        """
        request = requests.score_request(prompts, tier, self._config.ranker)
        timeout_s = self._config.timeout_ms(timeout_ms) / 1000
        try:
            async with asyncio.timeout(timeout_s) as timeout, self._permits:
                reply = await self._exchange(request, expires_at=timeout.when())
        except TimeoutError as error:
            raise DeadlineError(f"no reply on the stream within {timeout_s * 1000:g} ms") from error
        return replies.streamed_batch(reply, len(prompts), tier)

    async def ended(self) -> str:
        """Wait until the stream is gone, for whatever reason, and return it: a status code, with its message after a colon."""
        await self._ended.wait()
        return self._closed_because or "bug: it ended without a reason"

    def give_up(self, why: str) -> None:
        """Declare the stream gone: every waiting call and every later one raises UnavailableError. Leave its block then."""
        self._fail_all(why)

    async def _exchange(self, request: ranker_pb2.ScoreRequest, expires_at: float | None) -> ranker_pb2.ScoreStreamResponse:
        """Send one item and wait for its reply. `expires_at` is on the loop's clock."""
        if self._closed_because is not None:
            raise self._gone()
        loop = asyncio.get_running_loop()
        assert expires_at is not None, "bug: an item without a deadline"
        left_ms = max(1, math.ceil((expires_at - loop.time()) * 1000))  # Zero would mean "no deadline" to the server.
        item_id = next(self._ids)
        self.unheard += 1
        future = self._waiting[item_id] = loop.create_future()
        self._unsent[item_id] = ranker_pb2.ScoreStreamRequest(id=item_id, request=request, timeout_ms=left_ms)
        self._something_unsent.set()
        try:
            reply: ranker_pb2.ScoreStreamResponse | None = await future
        finally:
            self._waiting.pop(item_id, None)
            self._unsent.pop(item_id, None)
        if reply is None:
            raise self._gone()
        return reply

    async def _write(self) -> None:
        try:
            while True:
                await self._something_unsent.wait()
                self._something_unsent.clear()
                while self._unsent:
                    oldest = next(iter(self._unsent))
                    await self._call.write(self._unsent.pop(oldest))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # The stream has ended. The reader learns why and tells everybody.
        except Exception:
            self._fail_all("its writer failed")  # A bug of ours, raised again when the stream is closed.
            raise

    async def _read(self) -> None:
        why = "its reader failed"
        try:
            async for reply in self._call:
                self.unheard = 0
                future = self._waiting.get(reply.id)
                if future is not None and not future.done():  # Late replies find nobody.
                    future.set_result(reply)
            why = "the server ended it"
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            why = "its channel was closed"
            raise
        finally:
            self._fail_all(why)

    def _fail_all(self, why: str) -> None:
        if self._closed_because is None:
            self._closed_because = why
        self._ended.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)

    def _gone(self) -> UnavailableError:
        return UnavailableError(f"the stream is gone: {self._closed_because}")
