"""A second server around the engine of a Served one, with access as a test wants it, and channels to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from certificates import Pair
from sidecar_rig import WAIT_S
from sidecar_served import MAX_MESSAGE_BYTES, Served, status_of

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.access.access import Access
from sidecar.access.tls import TlsFiles, server_credentials
from sidecar.server import Server
from sidecar.telemetry.telemetry import Telemetry

Status = tuple[grpc.StatusCode, str]


@asynccontextmanager
async def secured(
    served: Served,
    access: Access,
    *,
    address: str = "127.0.0.1:0",
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[str]:
    """The address of a server with this access. It stops with the Served one's engine, so one per test, or one after the other."""
    server = Server(
        served.engine,
        served.health,
        max_message_bytes=max_message_bytes,
        max_stream_items=4,
        access=access,
        seen_by=telemetry,
    )
    try:
        yield await server.start(address)
    finally:
        await server._server.stop(None)


def tls_access(pair: Pair, client_ca: Path | None = None, **others: Any) -> Access:
    return Access(tls=server_credentials(TlsFiles(pair.cert, pair.key, client_ca)), **others)


def tls_channel(address: str, ca: Path, client: Pair | None = None, **options: int) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        None if client is None else client.key.read_bytes(),
        None if client is None else client.cert.read_bytes(),
    )
    return grpc.aio.secure_channel(address, credentials, options=_alone(options))


def plain_channel(address: str, **options: int) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    return grpc.aio.insecure_channel(address, options=_alone(options))


async def score_status(channel: grpc.aio.Channel, token: str | None = None, **call_options: Any) -> Status:
    """How a Score call ends; OK when it is answered."""
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    request = ranker_pb2.ScoreRequest(prompts=["long"])
    return await status_of(stub.Score(request, **{"timeout": WAIT_S, "metadata": metadata, **call_options}))


def _alone(options: dict[str, int]) -> list[tuple[str, int]]:
    # Channels to one address share their connections otherwise.
    return [("grpc.use_local_subchannel_pool", 1), *((f"grpc.{name}", value) for name, value in options.items())]
