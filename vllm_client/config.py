"""Settings of a client."""

import math
from dataclasses import dataclass

from pars import DEFAULT_ADDRESS

MAX_DEADLINE_MS = 3_600_000
"""An hour. Whoever asks for more has most likely mixed up seconds and milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """Settings of a client, checked when made. Raises ValueError naming the setting, its value and what would be right."""

    address: str = DEFAULT_ADDRESS
    """Where the sidecar listens: `host:port` (IPv6 as `[::1]:50151`) or `unix:/path`. Empty is refused."""

    deadline_ms: float = 1000.0
    """Milliseconds a call may take, unless the call says otherwise. Zero is refused: a call without a deadline can hang its
    caller for ever. A second suits programs and people; a scheduler in front of an engine wants about 10, since a late
    answer is worth less to it than none. Sane: 2 to 60,000; at most an hour."""

    max_reconnect_backoff_ms: int = 2000
    """Longest pause in milliseconds between two attempts to reach a sidecar that is gone; calls fail at once meanwhile. gRPC's
    own default of two minutes would leave a restarted sidecar unused for that long. Zero is refused: it would connect in a busy
    loop. Sane: 200 to 10,000; at least 100."""

    max_in_flight: int = 256
    """Calls on one `ScoreStream` that may be unanswered at a time; more wait for room, within their own deadline. Bounds what
    a frozen server can make us hold. Zero is refused. Sane: 16 to 1024."""

    def __post_init__(self) -> None:
        _check_address(self.address)
        check_timeout_ms("deadline_ms", self.deadline_ms)
        if self.max_reconnect_backoff_ms < 100:
            raise ValueError(f"max_reconnect_backoff_ms must be at least 100, not {self.max_reconnect_backoff_ms}")
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {self.max_in_flight}")

    def timeout_ms(self, override_ms: float | None) -> float:
        """Return the deadline of one call in milliseconds: the override when given, which must be valid, else `deadline_ms`."""
        if override_ms is None:
            return self.deadline_ms
        return check_timeout_ms("timeout_ms", override_ms)


def check_timeout_ms(name: str, value_ms: float) -> float:
    """Return `value_ms`, or raise ValueError when it is no usable number of milliseconds."""
    if not (math.isfinite(value_ms) and 0 < value_ms <= MAX_DEADLINE_MS):
        raise ValueError(f"{name} must be more than 0 and at most {MAX_DEADLINE_MS} milliseconds, not {value_ms}")
    return value_ms


def _check_address(address: str) -> None:
    if address.startswith("unix:"):
        if address.removeprefix("unix:").strip("/"):
            return
    else:
        host, colon, port = address.rpartition(":")
        bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
        if host and colon and not bare_ipv6 and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535:
            return
    raise ValueError(f"address must be host:port, [ipv6]:port or unix:/path, not {address!r}")
