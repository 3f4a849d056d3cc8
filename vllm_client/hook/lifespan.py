"""The ASGI lifespan: the hook starts and stops with its server, or keeps it from starting with settings that cannot be meant."""

from collections.abc import Awaitable, Callable

from vllm_client.hook.body import Message, Receive

Send = Callable[[Message], Awaitable[None]]


async def refuse_to_start(receive: Receive, send: Send, reason: str) -> None:
    """Answer lifespan.startup with the reason. uvicorn logs it and exits with 3; vLLM exits with it."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": reason})


def watched(
    receive: Receive, send: Send, on_startup: Callable[[], None], on_shutdown: Callable[[], Awaitable[None]]
) -> tuple[Receive, Send]:
    """Return `receive` and `send` for the application, through which every message passes unchanged.

    `on_startup` is called when the application is up, just before the server learns it; `on_shutdown` when the server asks it to
    stop, which is after the last request. Neither may raise.
    """

    async def watched_receive() -> Message:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await on_shutdown()
        return message

    async def watched_send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            on_startup()
        await send(message)

    return watched_receive, watched_send
