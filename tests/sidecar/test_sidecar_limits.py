"""What one peer can take: connections, streams, pings, silence, metadata, message sizes. Over real connections, some by hand."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from sidecar_rig import WAIT_S
from sidecar_secured import plain_channel, score_status, secured
from sidecar_served import SERVICE, Served, status_of

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.access.access import Access
from sidecar.access.limits import MAX_METADATA_BYTES, MAX_PING_STRIKES, ConnectionLimits

Code = grpc.StatusCode
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
ENHANCE_YOUR_CALM = 0xB


class Peer:
    """HTTP/2 by hand, as far as it takes to be rude."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, kind: int, content: bytes = b"", flags: int = 0) -> None:
        self._writer.write(struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + bytes(4) + content)
        await self._writer.drain()

    async def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame's type, flags and content; None when the server has closed the connection."""
        try:
            async with asyncio.timeout(WAIT_S):
                head = await self._reader.readexactly(9)
                content = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return head[3], head[4], content

    async def last_goaway(self) -> tuple[int, str]:
        """Read to the end of the connection, silently; error code and text of the last GOAWAY."""
        code, text = -1, ""
        while (frame := await self.receive()) is not None:
            if frame[0] == GOAWAY:
                code, text = int.from_bytes(frame[2][4:8], "big"), frame[2][8:].decode()
        return code, text


@asynccontextmanager
async def peer(address: str, *, greets: bool = True) -> AsyncIterator[Peer]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = Peer(reader, writer)
    if greets:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await found.send(SETTINGS)
    yield found
    writer.close()


def limited(**limits: int) -> Access:
    return Access(limits=ConnectionLimits(**limits))


@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_more_connections_than_allowed_are_closed_and_the_others_go_on(served: Served, tmp_path: Path, over: str) -> None:
    at = "127.0.0.1:0" if over == "tcp" else f"unix:{tmp_path / 'pars.sock'}"
    async with (
        secured(served, limited(max_connections=2), address=at) as address,
        plain_channel(address) as first,
        plain_channel(address) as third,
    ):
        async with plain_channel(address) as second:
            for channel in (first, second):
                assert await score_status(channel) == (Code.OK, "")
            assert (await score_status(third))[0] is Code.UNAVAILABLE
            for channel in (first, second):
                assert await score_status(channel) == (Code.OK, "")
        # The second has left, and its place is free.
        assert await score_status(third, wait_for_ready=True) == (Code.OK, "")


async def test_more_streams_of_one_connection_than_allowed_are_held_back(served: Served) -> None:
    async with (
        secured(served, limited(max_streams_per_connection=1)) as address,
        plain_channel(address) as channel,
        plain_channel(address) as other,
    ):
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        stream = stub.ScoreStream(timeout=WAIT_S)
        await stream.write(ranker_pb2.ScoreStreamRequest(id=1, request=ranker_pb2.ScoreRequest(prompts=["long"])))
        assert (await stream.read()).id == 1
        assert (await score_status(channel, timeout=0.2))[0] is Code.DEADLINE_EXCEEDED
        assert await score_status(other) == (Code.OK, "")
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await score_status(channel) == (Code.OK, "")


async def test_a_peer_that_pings_too_often_is_told_to_calm_down(served: Served) -> None:
    async with secured(served, Access()) as address, peer(address) as rude:
        answered = 0
        for number in range(MAX_PING_STRIKES + 2):
            await rude.send(PING, struct.pack(">Q", number))
        while (frame := await rude.receive()) is not None and frame[0] != GOAWAY:
            answered += frame[:2] == (PING, ACK)
        assert frame is not None, "closed without a GOAWAY"
        assert int.from_bytes(frame[2][4:8], "big") == ENHANCE_YOUR_CALM
        assert frame[2][8:] == b"too_many_pings"
        assert answered >= MAX_PING_STRIKES + 1


async def test_a_peer_that_does_not_answer_pings_is_cut_off(served: Served) -> None:
    async with secured(served, limited(keepalive_ms=50, ping_timeout_ms=50)) as address, peer(address) as gone:
        code, text = await gone.last_goaway()
    assert "ping_timeout" in text.replace(" ", "_").lower(), (code, text)


async def test_a_peer_that_answers_pings_may_be_idle_for_as_long_as_it_likes(served: Served) -> None:
    async with secured(served, limited(keepalive_ms=50, ping_timeout_ms=WAIT_S * 1_000)) as address, peer(address) as idle:
        pings = 0
        while pings < 5:  # gRPC stops after two by default.
            frame = await idle.receive()
            assert frame is not None, "cut off"
            if frame[:2] == (PING, 0):
                pings += 1
                await idle.send(PING, frame[2], ACK)


async def test_a_peer_that_says_nothing_is_cut_off(served: Served) -> None:
    async with secured(served, limited(handshake_ms=100)) as address, peer(address, greets=False) as silent:
        code, _ = await silent.last_goaway()
    assert code > 0


async def test_metadata_has_a_limit(served: Served) -> None:
    async with secured(served, Access()) as address, plain_channel(address) as channel:
        fits, too_much = (("x-filler", "x" * size) for size in (MAX_METADATA_BYTES - 1_024, MAX_METADATA_BYTES))
        assert await score_status(channel, metadata=(fits,)) == (Code.OK, "")
        code, message = await score_status(channel, metadata=(too_much,))
        assert code is Code.RESOURCE_EXHAUSTED
        assert "metadata size exceeds" in message
        assert "xxx" not in message
        assert await score_status(channel) == (Code.OK, "")


def request_of(size_bytes: int) -> bytes:
    """A ScoreRequest of one prompt that takes exactly so many bytes."""
    overhead = size_bytes - len(ranker_pb2.ScoreRequest(prompts=["x" * size_bytes]).SerializeToString())
    content = ranker_pb2.ScoreRequest(prompts=["x" * (size_bytes + overhead)]).SerializeToString()
    assert len(content) == size_bytes
    return content


async def test_a_request_may_be_as_large_as_the_limit_and_not_a_byte_larger(served: Served) -> None:
    limit = 100_000
    async with secured(served, Access(), max_message_bytes=limit) as address, plain_channel(address) as channel:
        score: Any = channel.unary_unary(SERVICE + "Score")
        assert (await status_of(score(request_of(limit), timeout=WAIT_S)))[0] is Code.OK
        code, message = await status_of(score(request_of(limit + 1), timeout=WAIT_S))
        assert code is Code.RESOURCE_EXHAUSTED
        assert f"({limit + 1} vs. {limit})" in message


@pytest.mark.parametrize(("spare_bytes", "code"), [(0, Code.OK), (-1, Code.RESOURCE_EXHAUSTED)])
async def test_a_reply_may_be_as_large_as_the_limit_and_not_a_byte_larger(
    served: Served, spare_bytes: int, code: grpc.StatusCode
) -> None:
    reply_bytes = len(await served.raw("GetBundle", b""))
    limit = reply_bytes + spare_bytes
    async with secured(served, Access(), max_message_bytes=limit) as address, plain_channel(address) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        assert (await status_of(stub.GetBundle(ranker_pb2.GetBundleRequest(), timeout=WAIT_S)))[0] is code
        assert (await score_status(channel))[0] is Code.OK
