"""Named components behind grpc.health.v1: the server is SERVING when all of them are well, and each can be asked for by its name.

Our own servicer on the standard protocol, because the one in grpcio-health-checking holds a lock while it writes to a watcher
(one that does not read then blocks every change of status) and never ends a Watch (an open one then uses up the whole grace
of a stop).
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICES = ("", "pars.v1.RankerService")
"""Names of the whole; the empty one is what probes ask for when they are told nothing."""

LIFECYCLE = "lifecycle"
"""The component that is well from the end of the start to the beginning of the stop."""


MAX_WATCHES = 1_024
"""Open at a time. Health is open to everybody, and each holds a task for as long as its connection lives."""


def ranker_component(ranker: str) -> str:
    """The component that is well while the named ranker's model is."""
    return f"ranker/{ranker}"


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """All components start unwell. Not thread-safe: everything happens on the event loop's thread."""

    def __init__(self, *components: str) -> None:
        self._well = dict.fromkeys(components, False)
        self._closed = False
        self._changed = asyncio.Event()
        self._watches = 0

    @property
    def serving(self) -> bool:
        return all(self._well.values())

    def set(self, component: str, well: bool) -> None:
        """Note that a component is well, or is not."""
        assert component in self._well, f"bug in ours: no health component {component!r}"
        self._well[component] = well
        self._wake_watchers()

    def close(self) -> None:
        """End every Watch after its last status."""
        self._closed = True
        self._wake_watchers()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """NOT_FOUND for a service that is neither ours nor a component."""
        if not self._knows(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._response(request.service)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Sends the status at once and after each change; SERVICE_UNKNOWN where Check says NOT_FOUND, as the protocol has it.

        RESOURCE_EXHAUSTED when too many are open.
        """
        if self._watches >= MAX_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watches are open")
        self._watches += 1
        try:
            await self._watch(request, context)
        finally:
            self._watches -= 1

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        sent = None
        while True:
            changed = self._changed
            response = self._response(request.service)
            if response != sent:
                await context.write(response)
                sent = response
            if self._closed:
                return
            await changed.wait()

    def _knows(self, service: str) -> bool:
        return service in SERVICES or service in self._well

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        status = health_pb2.HealthCheckResponse.ServingStatus
        if not self._knows(service):
            return health_pb2.HealthCheckResponse(status=status.SERVICE_UNKNOWN)
        well = self.serving if service in SERVICES else self._well[service]
        return health_pb2.HealthCheckResponse(status=status.SERVING if well else status.NOT_SERVING)

    def _wake_watchers(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
