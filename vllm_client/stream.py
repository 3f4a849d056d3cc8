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
from enum import Enum
from types import TracebackType
from typing import Any, Self

import grpc

from pars.v1 import ranker_pb2
from vllm_client import replies, requests
from vllm_client.config import ClientConfig
from vllm_client.errors import DeadlineError, UnavailableError
from vllm_client.scores import ScoredBatch, Tier

ITEMS_PER_MESSAGE, MESSAGE_BYTES = 64, 16 * 1024
"""Of what waits to be sent, as much goes out at a time: a message costs gRPC more than a small item in it. Far below any limit that a
server may have for a message."""

LAST_TURNS, MAX_LATE_S = 5, 2.0
"""What an item whose time is up may still take: a few turns of the event loop, in which a reply that lies there unread reaches its caller,
and no more than this."""


LOOP_LATE_S, SILENCE_S = 0.01, 2.0
"""From how late on the event loop, when an item's time is up, is to blame itself; and for how long of nothing at all it is."""


class UnseenError(DeadlineError):
    """The time is up, but this event loop was late itself, so that a reply may lie there unread: it says nothing of the server."""


class _End(Enum):
    """How an item ends without a reply."""

    GONE = "the stream is gone"
    LATE = "its time is up"


class _Waiting:
    """One item and its deadline.

    In a burst of thousands of requests a server's event loop stands still for longer than any sensible deadline. An item must not be
    late because its reply was not looked at, and so it ends some turns of the loop after its time is up. While the loop idles, that is
    at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self._loop = loop
        self._timeout_s = timeout_s
        self._turns_left = LAST_TURNS
        self._loop_late_s: float | None = None
        self.began_at = loop.time()
        self.expires_at = self.began_at + timeout_s
        """On the loop's clock, both."""
        # Results, not exceptions: nobody has to collect one after its caller has left.
        self._outcome: asyncio.Future[ranker_pb2.ScoreStreamResponse | _End] = loop.create_future()

    def left_ms(self) -> int:
        """At least 1, because 0 would mean "no deadline" to the server."""
        return max(1, math.ceil((self.expires_at - self._loop.time()) * 1000))

    async def outcome(self) -> ranker_pb2.ScoreStreamResponse | _End:
        """Wait for it, no longer than the deadline."""
        self._next: asyncio.Handle = self._loop.call_at(self.expires_at, self._time_is_up)
        try:
            return await self._outcome
        finally:
            self._next.cancel()

    def ends(self, outcome: ranker_pb2.ScoreStreamResponse | _End) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def late(self, silent_s: float = math.inf) -> DeadlineError:
        """silent_s: for how long nothing at all has come from the other side."""
        message = f"no reply on the stream within {self._timeout_s * 1000:g} ms"
        unseen = (self._loop_late_s or 0.0) > LOOP_LATE_S and silent_s < SILENCE_S
        return UnseenError(message) if unseen else DeadlineError(message)

    def _time_is_up(self) -> None:
        if self._loop_late_s is None:
            self._loop_late_s = self._loop.time() - self.expires_at
        if self._turns_left and self._loop.time() < self.expires_at + MAX_LATE_S:
            self._turns_left -= 1
            self._next = self._loop.call_soon(self._time_is_up)
        else:
            self.ends(_End.LATE)


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
        self._waiting: dict[int, _Waiting] = {}
        self._something_unsent = asyncio.Event()
        self._server_takes_more = False
        self._closed_because: str | None = "it is not open"
        self._ended = asyncio.Event()
        self._call: Any = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self.unheard = 0
        """Items handed in since the last reply of any kind came, late ones included. Many: the other side may be frozen."""
        self._unheard_since = math.inf
        """When the first of them was, on the loop's clock."""

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
        deadline, if it has not scored them by then. A reply that has come in time counts, even when this event loop is late
        to look at it, by LAST_TURNS of its turns and MAX_LATE_S at most.
        """
        request = requests.score_request(prompts, tier, self._config.ranker)
        item = _Waiting(asyncio.get_running_loop(), self._config.timeout_ms(timeout_ms) / 1000)
        if self._permits.locked():
            try:
                async with asyncio.timeout_at(item.expires_at):
                    await self._permits.acquire()
            except TimeoutError as error:
                raise item.late() from error
        else:
            await self._permits.acquire()  # at once
        try:
            return replies.streamed_batch(await self._exchange(request, item), len(prompts), tier)
        finally:
            self._permits.release()

    @property
    def silent_s(self) -> float:
        """For how long the one who has waited longest has seen nothing at all come. 0: nobody waits, or something has just come."""
        oldest = next(iter(self._waiting.values()), None)
        if oldest is None or not self.unheard:
            return 0.0
        return asyncio.get_running_loop().time() - max(self._unheard_since, oldest.began_at)

    async def ended(self) -> str:
        """Wait until the stream is gone, for whatever reason, and return it: a status code, with its message after a colon."""
        await self._ended.wait()
        return self._closed_because or "bug: it ended without a reason"

    def give_up(self, why: str) -> None:
        """Declare the stream gone: every waiting call and every later one raises UnavailableError. Leave its block then."""
        self._fail_all(why)

    def let_go(self) -> None:
        """Let no call wait any longer: each raises DeadlineError. Later ones may."""
        for item in self._waiting.values():
            item.ends(_End.LATE)

    async def _exchange(self, request: ranker_pb2.ScoreRequest, item: "_Waiting") -> ranker_pb2.ScoreStreamResponse:
        """Send one item and wait for its reply."""
        if self._closed_because is not None:
            raise self._gone()
        item_id = next(self._ids)
        loop = asyncio.get_running_loop()
        if not self.unheard:
            self._unheard_since = loop.time()
        self.unheard += 1
        self._waiting[item_id] = item
        self._unsent[item_id] = ranker_pb2.ScoreStreamRequest(id=item_id, request=request)
        self._something_unsent.set()
        try:
            outcome = await item.outcome()
        finally:
            self._waiting.pop(item_id, None)
            self._unsent.pop(item_id, None)
        if outcome is _End.GONE:
            raise self._gone()
        if outcome is _End.LATE:
            raise item.late(loop.time() - self._unheard_since if self.unheard else 0.0)
        return outcome

    async def _write(self) -> None:
        try:
            while True:
                await self._something_unsent.wait()
                self._something_unsent.clear()
                while self._unsent:
                    await self._call.write(self._next_message())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # The stream has ended. The reader learns why and tells everybody.
        except Exception:
            self._fail_all("its writer failed")  # A bug of ours, raised again when the stream is closed.
            raise

    def _next_message(self) -> ranker_pb2.ScoreStreamRequest:
        """Take the oldest items out of `_unsent`: one, or as many as share a message where the server takes that."""
        items = iter(self._unsent.values())
        message = next(items)
        message.takes_more = True
        self._say_what_is_left(message)
        taken, size = [message.id], message.ByteSize()
        for item in items if self._server_takes_more else ():
            size += item.ByteSize()
            if len(taken) == ITEMS_PER_MESSAGE or size > MESSAGE_BYTES:
                break
            taken.append(item.id)
            self._say_what_is_left(item)
        message.more.extend([self._unsent[item_id] for item_id in taken[1:]])
        for item_id in taken:
            del self._unsent[item_id]
        return message

    def _say_what_is_left(self, item: ranker_pb2.ScoreStreamRequest) -> None:
        # Only now: where many wait to be sent, some have waited for most of their time.
        item.timeout_ms = self._waiting[item.id].left_ms()

    async def _read(self) -> None:
        why = "its reader failed"
        try:
            async for message in self._call:
                self.unheard = 0
                self._server_takes_more = self._server_takes_more or message.takes_more
                self._hand_over(message)
                for reply in message.more:
                    self._hand_over(reply)
            why = "the server ended it"
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            why = "its channel was closed"
            raise
        finally:
            self._fail_all(why)

    def _hand_over(self, reply: ranker_pb2.ScoreStreamResponse) -> None:
        item = self._waiting.get(reply.id)
        if item is not None:  # Late replies find nobody.
            item.ends(reply)

    def _fail_all(self, why: str) -> None:
        if self._closed_because is None:
            self._closed_because = why
        self._ended.set()
        for item in self._waiting.values():
            item.ends(_End.GONE)

    def _gone(self) -> UnavailableError:
        return UnavailableError(f"the stream is gone: {self._closed_because}")
