"""Bind, serve, stop in order. Owns the gRPC server."""

import asyncio
import contextlib
import logging

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from sidecar.access.access import Access
from sidecar.access.auth import TokenInterceptor
from sidecar.address import clear_stale_socket, real_address
from sidecar.engine import Engine
from sidecar.errors import AddressError
from sidecar.health import LIFECYCLE, Health
from sidecar.servicer import SERVICE, RankerServicer
from sidecar.telemetry.observed import WatchedRegistrar
from sidecar.telemetry.telemetry import Telemetry

QUIET_S = 0.05
"""A stopping server closes its sockets once no call has come for this long on an event loop that kept up. gRPC cancels the calls it
holds unhandled at that moment, and CANCELLED, unlike UNAVAILABLE, does not tell a client to go elsewhere."""

FLUSH_S = 1.0
"""How long finished replies may take to leave the process, after which calls still open (idle reflection streams, clients that
do not read) are cut off."""

HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

_log = logging.getLogger(__name__)


class Server:
    """The gRPC server around one engine. health needs the component LIFECYCLE."""

    def __init__(
        self,
        engine: Engine,
        health: Health,
        *,
        max_message_bytes: int,
        max_stream_items: int,
        access: Access | None = None,
        seen_by: Telemetry | None = None,
    ) -> None:
        """access: who may connect and call; None is plaintext, no token, and a unix socket for the process's own user.
        seen_by: who is told of calls, of health and reflection too; None is nobody."""
        self._engine = engine
        self._health = health
        self._access = access or Access()
        seen_by = seen_by or Telemetry()
        self._servicer = RankerServicer(engine, max_stream_items, seen_by.observer)
        tokens = self._access.tokens
        self._server = grpc.aio.server(
            interceptors=() if tokens is None else (TokenInterceptor(tokens, seen_by.observer),),
            options=[
                *self._access.limits.channel_options(),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # With it, a second server on a busy port would start and take half of the calls.
                ("grpc.so_reuseport", 0),
            ],
        )
        registrar = WatchedRegistrar(self._server, seen_by.watchers)
        registrar.add_registered_method_handlers(SERVICE, self._servicer.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(health, registrar)
        # Not enable_server_reflection: it looks at the type of what it is given, and takes our registrar for a server of threads.
        services = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(services)  # type: ignore[attr-defined] # the stubs mean another aio
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, registrar)

    async def start(self, address: str) -> str:
        """Bind, start and become SERVING. Returns the real address. Raises AddressError."""
        clear_stale_socket(address)
        try:
            with self._access.socket.applied(address):
                port = self._bind(address)
        except RuntimeError as error:
            raise AddressError(
                f"cannot listen on {address}: it is in use, not allowed or not an address of this host"
            ) from error
        await self._server.start()
        self._health.set(LIFECYCLE, True)
        return real_address(address, port)

    def _bind(self, address: str) -> int:
        if self._access.tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._access.tls)

    async def ended(self) -> None:
        """Wait until the gRPC server has ended, by stop() or by a fault of its own, which is raised."""
        await self._server.wait_for_termination()

    async def stop(self, grace_s: float, cut_short: asyncio.Event) -> None:
        """NOT_SERVING, refuse new calls, finish the admitted ones within the grace, close engine and sockets.

        cut_short ends the grace at once. Callers that are refused or cut off get UNAVAILABLE.
        """
        self._health.set(LIFECYCLE, False)
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
        loop = asyncio.get_running_loop()
        while True:
            seen, began_s = self._servicer.calls_seen, loop.time()
            await asyncio.sleep(QUIET_S)
            kept_up = loop.time() - began_s < 2 * QUIET_S
            if kept_up and self._servicer.calls_seen == seen:
                return
