"""Bind, serve, stop in order. Owns the gRPC server and, while it serves, the signals."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION_SERVICE
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from sidecar.address import clear_stale_socket, real_address
from sidecar.engine import Engine
from sidecar.errors import AddressError
from sidecar.health import Health
from sidecar.servicer import SERVICE, RankerServicer

QUIET_S = 0.02
"""A stopping server closes its sockets once no call has come for this long. gRPC cancels the calls it holds unhandled at that
moment, and CANCELLED, unlike UNAVAILABLE, does not tell a client to go elsewhere."""

FLUSH_S = 1.0
"""How long finished replies may take to leave the process, after which calls still open (idle reflection streams, clients that
do not read) are cut off."""

HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_log = logging.getLogger(__name__)


class Server:
    """The gRPC server around one engine. health needs a component named "lifecycle"."""

    def __init__(self, engine: Engine, health: Health, *, max_message_bytes: int, max_stream_items: int) -> None:
        self._engine = engine
        self._health = health
        self._servicer = RankerServicer(engine, max_stream_items)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # With it, a second server on a busy port would start and take half of the calls.
                ("grpc.so_reuseport", 0),
            ]
        )
        self._server.add_generic_rpc_handlers((self._servicer.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        enable_server_reflection((SERVICE, HEALTH_SERVICE, REFLECTION_SERVICE), self._server)

    async def start(self, address: str) -> str:
        """Bind, start and become SERVING. Returns the real address. Raises AddressError."""
        clear_stale_socket(address)
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {address}: it is in use, not allowed or not an address of this host"
            ) from error
        await self._server.start()
        self._health.set("lifecycle", True)
        return real_address(address, port)

    async def stop(self, grace_s: float, cut_short: asyncio.Event) -> None:
        """NOT_SERVING, refuse new calls, finish the admitted ones within the grace, close engine and sockets.

        cut_short ends the grace at once. Callers that are refused or cut off get UNAVAILABLE.
        """
        self._health.set("lifecycle", False)
        self._servicer.stop_streams()
        drained = asyncio.ensure_future(self._engine.drain())
        cut = asyncio.ensure_future(cut_short.wait())
        await asyncio.wait((drained, cut), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            _log.warning("the grace is over; the callers still waiting get UNAVAILABLE")
        drained.cancel()
        cut.cancel()
        await self._engine.close()
        self._health.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._until_quiet()
        await self._server.stop(FLUSH_S)

    async def _until_quiet(self) -> None:
        seen = -1
        while seen != self._servicer.calls_seen:
            seen = self._servicer.calls_seen
            await asyncio.sleep(QUIET_S)


@dataclass(frozen=True, slots=True)
class StopRequests:
    """first: the first SIGTERM or SIGINT has come. again: the second."""

    first: asyncio.Event = field(default_factory=asyncio.Event)
    again: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequests]:
    """Turn SIGTERM and SIGINT into events while inside. From the second on the handlers are gone: a third kills."""
    loop = asyncio.get_running_loop()
    requests = StopRequests()
    handled = (signal.SIGTERM, signal.SIGINT)

    def restore() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    def on_signal(number: signal.Signals) -> None:
        if requests.first.is_set():
            _log.warning("%s again: stopping at once", number.name)
            requests.again.set()
            restore()
        else:
            _log.info("%s: stopping", number.name)
            requests.first.set()

    for number in handled:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield requests
    finally:
        restore()
