"""The callers of one sidecar in soak: `python -m benchmarks.soak.calls`. Calls arrive whether or not the last ones are answered.

Every call ends in exactly one outcome, by its own deadline and SLACK_S at the latest. Lines on its input, each answered by one on
its output: "tally" (so far), "stopping" (from now on UNAVAILABLE is right), "end" (no more calls; the tally once all are done).
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from benchmarks.soak.check import Known
from benchmarks.soak.mix import SCORE, STREAM, WATCH, Mix, Planned, deadline_class, pool
from benchmarks.soak.tally import UNANSWERED, Tally
from pars.v1 import ranker_pb2

SLACK_S = 15.0
"""Shared machines stall for seconds at a time, and then the caller's
timer and the answer come at the same moment; what is looked for is an answer that never comes."""

MAX_WAIT_S = 30.0
"""The sidecar's default for calls without a deadline."""

MAX_OPEN = 2_000
"""Calls at a time. More would measure this process."""

BURST_EVERY_S, BURST_S, BURST_FACTOR = 15.0, 2.0, 10.0
"""Times as many calls for two seconds of fifteen: several times what two cores can score."""

LEARN_S = 60.0

LAST_S = MAX_WAIT_S + 2 * SLACK_S
"""After the end, for every call to have had its outcome."""

LAG_EVERY_S = 0.1

WRITE_FAILED, WRITE_FAILED_DETAILS = "WRITE_FAILED", "Internal error from Core"
"""What the caller's own grpc.aio says, as INTERNAL, when it writes to a stream that has just been ended from the other side."""

# The published types of grpc.aio ask for arguments that have defaults.
Call: TypeAlias = Any
Channel: TypeAlias = Any


class Callers:
    """One address, an endless mix of calls, one tally. slack_s: beyond its deadline, before a call counts as unanswered."""

    def __init__(
        self, address: str, prompts: Sequence[str], known: Known, seed: int, calls_per_s: float, *, slack_s: float = SLACK_S
    ) -> None:
        self.tally = Tally()
        self._address = address
        self._prompts = prompts
        self._known = known
        self._rng = random.Random(seed)
        self._mix = Mix(prompts, seed)
        self._calls_per_s = calls_per_s
        self._slack_s = slack_s
        self._stopping = False
        self._ended = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        # Two connections, so that one that is cut does not take everything with it.
        self._channels = [self._channel() for _ in range(2)]

    async def learn(self) -> None:
        """Ask the idle server for every prompt's score in every tier."""
        scores = {}
        for tier in (ranker_pb2.TIER_ENCODER, ranker_pb2.TIER_NGRAM):
            values: list[float] = []
            for start in range(0, len(self._prompts), 32):
                request = ranker_pb2.ScoreRequest(prompts=self._prompts[start : start + 32], tier=tier)
                reply = await self._channels[0].unary_unary(SCORE)(request.SerializeToString(), timeout=LEARN_S)
                values += [each.score for each in ranker_pb2.ScoreResponse.FromString(reply).scores]
            scores[int(tier)] = values
        self._known.learn(scores)

    async def run(self) -> None:
        """Make calls until `end`, then wait for the last ones."""
        begin_s = time.monotonic()
        while not self._ended.is_set():
            now_s = time.monotonic() - begin_s
            is_burst = (now_s - 1) % BURST_EVERY_S < BURST_S and now_s > 1
            rate = self._calls_per_s * (BURST_FACTOR if is_burst else 1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._rng.expovariate(rate))
            self._begin(self._mix.next())
        if self._open:
            _, open_still = await asyncio.wait(self._open, timeout=LAST_S)
            for task in open_still:
                self.tally.ended("at the end", UNANSWERED)
                task.cancel()
        for channel in self._channels:
            await channel.close()

    def stopping(self) -> None:
        """The server was told to stop, or is about to be."""
        self._stopping = True

    def end(self) -> None:
        """No more calls."""
        self._ended.set()

    def _begin(self, planned: Planned) -> None:
        if len(self._open) >= MAX_OPEN:
            self.tally.held_back += 1
            return
        task = asyncio.create_task(self.make(planned))
        self._open.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        # A bug of this file must not pass for a quiet run.
        if not task.cancelled() and (error := task.exception()) is not None:
            self.tally.faulty("benchmark", f"a bug of ours: {type(error).__name__}: {error}")

    async def make(self, planned: Planned) -> None:
        """One call, from its beginning to its one outcome."""
        channel = self._channel() if planned.leaves else self._rng.choice(self._channels)
        try:
            if planned.method == STREAM:
                await self._stream(channel, planned)
            elif planned.method == WATCH:
                await self._watch(channel, planned)
            else:
                await self._unary(channel, planned)
        finally:
            if planned.leaves:
                await channel.close()

    async def _unary(self, channel: Channel, planned: Planned) -> None:
        call = channel.unary_unary(planned.method)(planned.content, timeout=planned.timeout_s)
        began_s = time.monotonic()
        with _leaver(call, channel, planned):
            status, details = await self._outcome(call, None, _longest_s(planned))
        self._count(planned, status, details, late_s=time.monotonic() - began_s - _longest_s(planned))
        if status == "OK":
            self._check(planned, await call)

    async def _watch(self, channel: Channel, planned: Planned) -> None:
        call = channel.unary_stream(planned.method)(b"")

        async def read() -> None:
            # A status is only seen by who has read all that came before it.
            while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                pass

        with _leaver(call, channel, planned):
            # It has no deadline: it ends when the watcher leaves, or well when the server stops.
            status, details = await self._outcome(call, read(), MAX_WAIT_S)
        self._count(planned, status, details, also_when_stopping=frozenset({"OK"}))

    async def _stream(self, channel: Channel, planned: Planned) -> None:
        call = channel.stream_stream(planned.method)()
        waiting = dict(enumerate(planned.items))
        sent_s: dict[int, float] = {}

        async def read() -> None:
            while (reply := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                answer = ranker_pb2.ScoreStreamResponse.FromString(reply)
                self._item(waiting.pop(answer.id), answer, sent_s[answer.id])

        with _leaver(call, channel, planned):
            writer = asyncio.create_task(_write(call, planned, sent_s))
            lasts_s = len(planned.items) * planned.pause_s + max(map(_longest_s, planned.items))
            status, details = await self._outcome(call, read(), lasts_s)
            # A write to a call that never got a connection waits for ever, even when the call has ended.
            writer.cancel()
            await asyncio.wait((writer,))
        if details == WRITE_FAILED_DETAILS:
            status = WRITE_FAILED
        self._count(planned, status, details, also_when_stopping=frozenset({WRITE_FAILED}))
        # Items left over were answered by the stream's own end, unless it ended as if nothing was missing.
        for item in waiting.values():
            self.tally.ended(item.what, UNANSWERED if status in ("OK", UNANSWERED) else f"stream {status}")

    async def _outcome(self, call: Call, reading: Awaitable[None] | None, lasts_s: float) -> tuple[str, str]:
        """Read a call to its end; its status and details. lasts_s: what it may take; with the slack, it is given up after that."""
        try:
            async with asyncio.timeout(lasts_s + self._slack_s):
                if reading is not None:
                    await reading
                return (await call.code()).name, await call.details() or ""
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        except asyncio.CancelledError:  # the call was, not this task: nobody cancels that one while the outcome matters
            return "CANCELLED", ""
        except TimeoutError:
            call.cancel()
            return UNANSWERED, ""

    def _item(self, item: Planned, answer: ranker_pb2.ScoreStreamResponse, sent_s: float) -> None:
        is_ok = answer.WhichOneof("outcome") == "response"
        error = answer.error
        status = "OK" if is_ok else _STATUS_NAMES.get(error.code, str(error.code))
        self._count(item, status, error.message, late_s=time.monotonic() - sent_s - _longest_s(item))
        if is_ok:
            self._check(item, answer.response.SerializeToString())

    async def watch_own_lag(self) -> None:
        """Note how late this process itself is: what it calls late is late by that much at most for reasons of its own."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.tally.lagged(time.monotonic() - began_s - LAG_EVERY_S)

    def _count(
        self,
        planned: Planned,
        status: str,
        details: str = "",
        *,
        late_s: float = 0.0,
        also_when_stopping: frozenset[str] = frozenset(),
    ) -> None:
        self.tally.ended(planned.what, status)
        if planned.prompts and planned.cancel_after_s is None:
            self.tally.measured(deadline_class(planned), status, details, late_s)
        allowed = planned.allowed | ({"UNAVAILABLE", *also_when_stopping} if self._stopping else set())
        if status not in allowed and status != UNANSWERED:
            self.tally.faulty(planned.what, f"{status}{' while stopping' if self._stopping else ''}: {details}")

    def _check(self, planned: Planned, reply: bytes) -> None:
        if planned.prompts:
            tier = ranker_pb2.Tier.Name(_tier_of(planned, reply))
            self.tally.tiers[f"{planned.what}: {tier.removeprefix('TIER_').lower()}"] += 1
        fault = self._known.fault(planned, reply)
        # While a server stops, its health is not SERVING.
        if fault is not None and not (self._stopping and planned.what == "health"):
            self.tally.faulty(planned.what, fault)

    def _channel(self) -> Channel:
        # Of its own: gRPC would let channels of equal arguments share one connection, and nobody would ever leave.
        return grpc.aio.insecure_channel(self._address, options=[("grpc.use_local_subchannel_pool", 1)])


_STATUS_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _longest_s(planned: Planned) -> float:
    """How long the server may take."""
    return MAX_WAIT_S if planned.timeout_s is None else planned.timeout_s


def _tier_of(planned: Planned, reply: bytes) -> ranker_pb2.Tier:
    if planned.what == "compare":
        return ranker_pb2.CompareResponse.FromString(reply).comparisons[0].score_a.tier
    return ranker_pb2.ScoreResponse.FromString(reply).scores[0].tier


@contextlib.contextmanager
def _leaver(call: Call, channel: Channel, planned: Planned) -> Any:
    """While inside, the caller gives up when the plan says so."""
    if planned.cancel_after_s is None:
        yield
        return
    closing: set[asyncio.Task[None]] = set()

    def leave() -> None:
        if planned.leaves:
            closing.add(asyncio.ensure_future(channel.close()))
        else:
            call.cancel()

    timer = asyncio.get_running_loop().call_later(planned.cancel_after_s, leave)
    try:
        yield
    finally:
        timer.cancel()


async def _write(call: Call, planned: Planned, sent_s: dict[int, float]) -> None:
    # The call may end at any moment for reasons of its own; whoever reads it learns how.
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError):
        for number, item in enumerate(planned.items):
            sent_s[number] = time.monotonic()
            await call.write(item.content)
            if planned.pause_s:
                await asyncio.sleep(planned.pause_s)
        await call.done_writing()


async def serve(callers: Callers) -> None:
    """Make calls, and obey the lines on the input."""
    await callers.learn()
    running, watching = asyncio.create_task(callers.run()), asyncio.create_task(callers.watch_own_lag())
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "stopping":
            callers.stopping()
        elif line == "end":
            callers.end()
            await running
        # CPU seconds too: callers that take a whole core leave the sidecar none.
        print(json.dumps({**callers.tally.to_json(), "cpu_s": time.process_time()}), flush=True)
    callers.end()
    await running
    watching.cancel()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.calls", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="that may answer; once for each of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calls-per-s", type=float, default=20.0, help="outside bursts")
    flags = parser.parse_args(arguments)

    async def go() -> None:
        # Inside the loop, which gRPC's channels belong to from the beginning.
        await serve(Callers(flags.address, pool(flags.seed), Known(flags.bundle), flags.seed, flags.calls_per_s))

    asyncio.run(go())
    return 0


if __name__ == "__main__":
    sys.exit(main())
