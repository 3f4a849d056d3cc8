"""How a client is wired to the sidecar: channel options and the stub."""

from collections.abc import Sequence
from typing import Any

import grpc

from pars.v1 import ranker_pb2_grpc
from vllm_client.config import ClientConfig
from vllm_client.credentials import tls_credentials

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Largest reply taken, in bytes. 256 scores need about 10 kB and a manifest with its golden prompts some 100 kB."""

CONNECT_PATIENCE_MS = 2000
"""Milliseconds for one attempt to connect. gRPC's own 20 s would let every call to a silent host pay its whole deadline."""


def channel_options(config: ClientConfig) -> list[tuple[str, int]]:
    """Return the gRPC channel arguments, each set for a reason."""
    return [
        ("grpc.initial_reconnect_backoff_ms", 100),
        # The name misleads: it is the least time that one connection attempt gets.
        ("grpc.min_reconnect_backoff_ms", CONNECT_PATIENCE_MS),
        ("grpc.max_reconnect_backoff_ms", config.max_reconnect_backoff_ms),
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
        # No limit of ours on requests: the server has one and says so. A second one here could only disagree with it.
        ("grpc.max_send_message_length", -1),
        # The sidecar is next door. An http_proxy variable meant for the outside world must not carry prompts to a proxy.
        ("grpc.enable_http_proxy", 0),
    ]


def sync_channel(config: ClientConfig) -> grpc.Channel:
    """A channel to `config.address`, with TLS where the config has it. Raises CredentialsError."""
    credentials = tls_credentials(config)
    if credentials is None:
        return grpc.insecure_channel(config.address, options=channel_options(config))
    return grpc.secure_channel(config.address, credentials, options=channel_options(config))


def async_channel(config: ClientConfig, further_options: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """The same for asyncio. Needs a running loop."""
    credentials = tls_credentials(config)
    options = [*channel_options(config), *further_options]
    if credentials is None:
        return grpc.aio.insecure_channel(config.address, options=options)
    return grpc.aio.secure_channel(config.address, credentials, options=options)


def ranker_stub(channel: grpc.Channel | grpc.aio.Channel) -> Any:
    """Return the generated stub on `channel`. It has no types of its own, so callers state what they get from it."""
    return ranker_pb2_grpc.RankerServiceStub(channel)  # type: ignore[no-untyped-call]
