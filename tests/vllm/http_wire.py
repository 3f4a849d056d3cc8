"""A small HTTP/1.1 client on bare sockets: it can send any bytes, in any pieces, and hang up whenever a test wants it to."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

WAIT_S = 120.0
"""For every wait of a test: never reached when all is well."""
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    took_s: float
    """From the first byte sent to the last byte read."""
    ended_s: float = field(default_factory=time.monotonic)

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """What a streamed answer's `data:` lines hold; its last line, [DONE], stays text."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Wire:
    """One connection: `async with Wire(port) as wire`. Leaving it hangs up at once, with a reset if anything is unread."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self._port), WAIT_S)
        self._since_s = time.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.transport.abort()
        # The transport tells its protocol in the loop's next turn; until then it would complain of not being closed.
        await asyncio.wait([asyncio.ensure_future(self._closed())], timeout=WAIT_S)

    async def _closed(self) -> None:
        try:
            await self._writer.wait_closed()
        except OSError:
            return

    async def write(self, content: bytes) -> None:
        self._writer.write(content)
        await asyncio.wait_for(self._writer.drain(), WAIT_S)

    async def piece(self) -> bytes:
        """Whatever comes next; nothing at the end."""
        return await asyncio.wait_for(self._reader.read(65_536), WAIT_S)

    async def reply(self, *, timeout_s: float = WAIT_S, bodyless: bool = False) -> Reply:
        """The whole answer. `bodyless` for an answer to HEAD."""
        async with asyncio.timeout(timeout_s):
            status, headers = await self._head()
            while 100 <= status < 200:
                status, headers = await self._head()
            body = b"" if bodyless else await self._body(headers)
        return Reply(status, headers, body, time.monotonic() - self._since_s)

    async def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return int(first.split(" ")[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(headers.get("content-length", 0)))
        body = bytearray()
        while size := int(await self._reader.readline(), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return bytes(body)


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """A request up to and with the empty line."""
    lines = [f"{method} {path} HTTP/1.1", "host: test", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def encoded(content: object) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def chunked(pieces: Sequence[bytes]) -> bytes:
    """A body as `transfer-encoding: chunked` wants it."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


async def send(
    port: int, method: str, path: str, content: object = b"", headers: Mapping[str, str] = {}, *, timeout_s: float = WAIT_S
) -> Reply:
    """One request on a connection of its own, and its answer."""
    body = encoded(content)
    async with Wire(port) as wire:
        await wire.write(head(method, path, {**headers, "content-length": str(len(body))}) + body)
        return await wire.reply(timeout_s=timeout_s, bodyless=method == "HEAD")
