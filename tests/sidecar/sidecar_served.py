"""A real gRPC server in this process, on a free port, with a client channel to it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from sidecar_rig import WAIT_S, Rig

from pars.v1 import ranker_pb2_grpc
from sidecar.batching import BatchLimits, CostModel
from sidecar.engine import Engine, EngineLimits
from sidecar.health import LIFECYCLE, Health, ranker_component
from sidecar.lane import Lane
from sidecar.permits import Permits
from sidecar.ranker import Ranker
from sidecar.rankers import LiveRanker, Rankers
from sidecar.runner import BatchRunner
from sidecar.server import Server

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
MAX_PROMPTS = 8
SERVICE = "/pars.v1.RankerService/"


@dataclass
class Served:
    """server, engine and health as in production; stub and raw calls go over TCP."""

    server: Server
    engine: Engine
    health: Health
    address: str
    channel: grpc.aio.Channel
    stopped: bool = False

    @classmethod
    async def start(
        cls, ranker: Ranker, rig: Rig | None = None, *, max_stream_items: int = 4, address: str = "127.0.0.1:0"
    ) -> "Served":
        """Around the rig's engine when one is given, else around the ranker."""
        component = ranker_component("default")
        health = Health(LIFECYCLE, component)
        health.set(component, True)
        if rig is None:
            runner = BatchRunner(
                ranker.encoder.scorer,
                CostModel(1.0, 0.1),
                BatchLimits(8, 128),
                workers=2,
                window_prompts=128,
                on_health=lambda well: health.set(component, well),
            )
            engine = Engine(
                Rankers({"default": LiveRanker("default", ranker, runner)}),
                Lane("tokenizer"),
                Lane("ngram"),
                Permits(64, 2 * MAX_MESSAGE_BYTES),
                Permits(64, 2 * MAX_MESSAGE_BYTES),
                EngineLimits(MAX_PROMPTS),
            )
        else:
            engine = rig.engine
        server = Server(engine, health, max_message_bytes=MAX_MESSAGE_BYTES, max_stream_items=max_stream_items)
        try:
            real = await server.start(address)
        except BaseException:
            await engine.close()
            raise
        return cls(server, engine, health, real, grpc.aio.insecure_channel(real))

    @property
    def stub(self) -> ranker_pb2_grpc.RankerServiceStub:
        return ranker_pb2_grpc.RankerServiceStub(self.channel)

    @property
    def health_stub(self) -> health_pb2_grpc.HealthStub:
        return health_pb2_grpc.HealthStub(self.channel)

    async def raw(self, method: str, content: bytes) -> bytes:
        """A unary call with bytes of the test's choice."""
        call: Any = self.channel.unary_unary(SERVICE + method)
        reply: bytes = await call(content, timeout=WAIT_S)
        return reply

    async def stop(self, grace_s: float = WAIT_S) -> None:
        self.stopped = True
        await self.server.stop(grace_s, asyncio.Event())

    async def close(self) -> None:
        await self.channel.close()
        if not self.stopped:
            await self.stop(0.0)


StartServed = Callable[..., Awaitable[Served]]


async def status_of(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """The status a call ends with; OK when it is answered."""
    try:
        await asyncio.wait_for(call, WAIT_S)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""
