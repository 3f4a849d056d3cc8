"""The mechanics of a bidirectional stream of independent items: concurrent answers, bounded reading ahead, nothing left behind."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc

from sidecar.errors import InvalidRequestError, NotServingError
from sidecar.wire import readable

Item = TypeVar("Item")
Reply = TypeVar("Reply")


class _PeerGoneError(Exception):
    """A reply could not be written: the client hung up."""


async def answer_items(
    context: Any,
    answer: Callable[[Item], Awaitable[Reply]],
    *,
    unpack: Callable[[Any], Sequence[Item]],
    pack: Callable[[list[Reply]], object],
    max_unanswered: int,
    stopping: asyncio.Event,
) -> None:
    """Read items and write each reply as soon as it is ready. Ends when the client half-closes or has gone.

    unpack: the items of a message, at least one. pack: a message of the first replies of a list, which it takes out, at least one.
    Raises InvalidRequestError after an unreadable message and NotServingError when `stopping` is set, in both cases after everything
    begun before is answered. An item counts as unanswered until its reply is written, so a client that does not read is no longer
    read from, and gRPC's flow control stops it.
    `answer` turns its own failures into replies; what it raises ends the stream.
    """
    slots = asyncio.Semaphore(max_unanswered)
    ready: list[Reply] = []
    writing = False

    async def answer_one(item: Item) -> None:
        nonlocal writing
        ready.append(await answer(item))
        if writing:
            return  # gRPC takes one write at a time; whoever writes takes this one along
        writing = True
        try:
            while before := len(ready):
                message = pack(ready)
                written = before - len(ready)
                try:
                    await context.write(message)
                except Exception as error:  # depending on how the client went: a usage error or an internal one
                    raise _PeerGoneError from error
                for _ in range(written):
                    slots.release()
        finally:
            writing = False

    async def read(tasks: asyncio.TaskGroup) -> InvalidRequestError | None:
        while True:
            await slots.acquire()
            message = await context.read()
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                return None
            try:
                first, *more = unpack(readable(message))
            except InvalidRequestError as error:
                return error
            tasks.create_task(answer_one(first))
            for item in more:
                await slots.acquire()
                tasks.create_task(answer_one(item))

    peer_gone = False
    try:
        # Whatever ends this block, by then the group has cancelled and awaited all of its tasks.
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read(tasks))
            stopped = tasks.create_task(stopping.wait())
            await asyncio.wait((reader, stopped), return_when=asyncio.FIRST_COMPLETED)
            reader.cancel()
            stopped.cancel()
    except* _PeerGoneError:
        peer_gone = True
    if peer_gone:
        return
    if not reader.cancelled() and (error := reader.result()) is not None:
        raise error
    if stopping.is_set():
        raise NotServingError("the server is stopping")
