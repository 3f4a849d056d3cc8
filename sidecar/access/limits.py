"""What one peer can take of the server: connections, streams, pings, metadata. All of it is gRPC's own machinery; this says how much.

The hook and the clients of vllm_client send no pings of their own and pass all of this with their defaults.
"""

from dataclasses import dataclass

MAX_CONNECTIONS = 512
"""An API server of vLLM holds one. Below the 1,024 files that a process may often have open, so that the limit is met here, where
it is a clean refusal, and not in accept."""

MAX_STREAMS_PER_CONNECTION = 1_024
"""Calls of one connection under way; gRPC clients hold more back. A quarter of what may wait in the queue by default: one caller
alone cannot fill it."""

MAX_METADATA_BYTES = 8 * 1024
"""Headers of one call; gRPC's own default for the soft limit. As a hard limit too: between two limits gRPC refuses at random."""

HANDSHAKE_MS = 10_000
"""For TLS and the first HTTP/2 frame. gRPC's two minutes would let whoever says nothing hold a connection for that long."""

KEEPALIVE_MS = 30_000
PING_TIMEOUT_MS = 10_000
"""A peer that is silent is pinged, and cut off when it does not answer: one whose machine vanished leaves within 40 s instead of
never. Not shorter, for a vLLM process that is held up in a debugger or a checkpoint should find its connection again."""

MIN_PING_INTERVAL_MS = 10_000
"""The shortest keepalive that Go clients can set. gRPC's default of five minutes would cut off clients that ping twice a minute,
as many do."""

MAX_PING_STRIKES = 2
"""Pings that may come too early before the connection ends with ENHANCE_YOUR_CALM: gRPC's own default, for jitter."""

MAX_PENDING_CALLS = 16_384
"""Calls that wait for our accept loop, of one connection or of all. From gRPC's default of 1,000 on, calls are answered with CANCELLED at
random: no status of ours, and an honest burst meets it too. This many are a few seconds of accepting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How much one peer, or all together, can take. Times in milliseconds; those of an operator are settings."""

    max_connections: int = MAX_CONNECTIONS
    max_streams_per_connection: int = MAX_STREAMS_PER_CONNECTION
    handshake_ms: int = HANDSHAKE_MS
    keepalive_ms: int = KEEPALIVE_MS
    ping_timeout_ms: int = PING_TIMEOUT_MS

    def channel_options(self) -> list[tuple[str, int]]:
        """As arguments of a gRPC server."""
        return [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_streams_per_connection),
            ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
            ("grpc.max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
            ("grpc.server_handshake_timeout_ms", self.handshake_ms),
            ("grpc.keepalive_time_ms", self.keepalive_ms),
            # Both: keepalive_timeout alone leaves the ping's own timeout at a minute (grpcio 1.85, measured).
            ("grpc.keepalive_timeout_ms", self.ping_timeout_ms),
            ("grpc.http2.ping_timeout_ms", self.ping_timeout_ms),
            # A connection without a call is as lost as one with calls, and takes the same room.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
        ]
