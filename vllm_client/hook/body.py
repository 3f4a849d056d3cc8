"""Pure: a request's bytes, read within a bound, and a priority written into them.

An application must find the body as the client sent it: the same messages, with the same cuts, then whatever the server says next.
"""

import json
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from enum import Enum, auto
from typing import Any, NamedTuple

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_WHITE = b" \t\n\r"
"""What JSON counts as white space."""


class Reading(Enum):
    """How the reading of a body ended."""

    COMPLETE = auto()
    TOO_LARGE = auto()
    """There is more than may be held. What was held is kept, the rest was not read."""
    GONE = auto()
    """The client left, or the server failed, before the body was complete."""


class Allowance:
    """Bytes that the bodies of all requests may hold together while they are being read.

    A body is read before the request is authenticated, so without this a thousand slow strangers could fill the memory.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.left_bytes = limit_bytes


class HeldBody:
    """The messages of one body, taken early from the server and handed on unchanged. For one request, in one task at a time."""

    def __init__(self, receive: Receive, allowance: Allowance) -> None:
        self._receive = receive
        self._allowance = allowance
        self._held: deque[Message] = deque()
        self._held_bytes = 0
        self._error: Exception | None = None

    async def read(self, max_bytes: int) -> Reading:
        """Take messages until the body is complete or exceeds `max_bytes`. Call it once, and `release` afterwards in any case.

        Only a cancellation raises. An exception of the server's is kept for the application, which would have met it as well.
        """
        while True:
            try:
                message = await self._receive()
            except Exception as error:
                self._error = error
                return Reading.GONE
            self._held.append(message)
            if message["type"] != "http.request":
                return Reading.GONE
            piece_bytes = len(message.get("body", b""))
            self._held_bytes += piece_bytes
            self._allowance.left_bytes -= piece_bytes
            if self._held_bytes > max_bytes or self._allowance.left_bytes < 0:
                return Reading.TOO_LARGE
            if not message.get("more_body", False):
                return Reading.COMPLETE

    def release(self) -> None:
        """Give back the allowance: from here on the bytes are the application's. Twice is harmless."""
        self._allowance.left_bytes += self._held_bytes
        self._held_bytes = 0

    def joined(self) -> bytes:
        """Return the bytes held."""
        return b"".join([message.get("body", b"") for message in self._held])

    def insert(self, insertion: "Insertion") -> None:
        """Write into what is held. The cuts stay where they are, the messages of the server are not changed but replaced."""
        offset = insertion.offset
        for index, message in enumerate(self._held):
            piece = message.get("body", b"")
            if offset <= len(piece):
                self._held[index] = {**message, "body": piece[:offset] + insertion.text + piece[offset:]}
                return
            offset -= len(piece)
        raise AssertionError("bug: an insertion outside the body")

    async def replay(self) -> Message:
        """The `receive` of the application: what was held, then what the server says."""
        if self._held:
            return self._held.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await self._receive()


class Insertion(NamedTuple):
    """Bytes to write into a body, and where."""

    offset: int
    text: bytes


def priority_at_end(body: bytes, priority: int) -> Insertion | None:
    """Return what puts "priority" behind the last member of a JSON object. A member that comes twice counts in its last place.

    `body` must be valid JSON, an object. All other bytes stay, so numbers, escapes and order do too. None: not in UTF-8.
    """
    if json.detect_encoding(body) not in ("utf-8", "utf-8-sig"):
        return None
    inside = body.rstrip(_WHITE)[:-1]
    comma = b"" if inside.rstrip(_WHITE).endswith(b"{") else b","
    return Insertion(len(inside), b'%s"priority":%d' % (comma, priority))


def priority_at_start(beginning: bytes, priority: int) -> Insertion | None:
    """Return what puts "priority" before the first member, for a body that is too large to be held and whose end nobody has seen.

    A member of the client's own, coming later, wins over it. None: the beginning is not that of a JSON object in UTF-8, or is too
    short to show its first member, without which a comma might be wrong.
    """
    start = beginning.removeprefix(b"\xef\xbb\xbf").lstrip(_WHITE)
    if not start.startswith(b"{") or not start[1:].lstrip(_WHITE).startswith(b'"'):
        return None
    return Insertion(len(beginning) - len(start) + 1, b'"priority":%d,' % priority)
