"""Settings of a client."""

import math
from dataclasses import dataclass

from pars import DEFAULT_ADDRESS
from pars.address import UNIX, is_local

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

    ranker: str = ""
    """Name of the ranker that is asked, of a sidecar that has several. Empty: its default."""

    tls_ca: str = ""
    """PEM file with the CA of the sidecar's certificate, which must be for the host in `address`. Empty: plaintext."""

    tls_cert: str = ""
    """PEM file with the client's own certificate, where the sidecar wants one. Needs `tls_key` and `tls_ca`."""

    tls_key: str = ""
    """PEM file with the key of `tls_cert`, without a password."""

    token_file: str = ""
    """File whose first line is the bearer token. Read again when it changes. Empty: no token. Without TLS only a sidecar on this
    machine is sent one."""

    def __post_init__(self) -> None:
        _check_address(self.address)
        self._check_credentials()
        check_timeout_ms("deadline_ms", self.deadline_ms)
        if self.max_reconnect_backoff_ms < 100:
            raise ValueError(f"max_reconnect_backoff_ms must be at least 100, not {self.max_reconnect_backoff_ms}")
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, not {self.max_in_flight}")

    def _check_credentials(self) -> None:
        if self.tls_ca and self.address.startswith(UNIX):
            raise ValueError(f"tls_ca is set, and {self.address!r} is a unix socket, which has no TLS")
        if self.tls_cert and not (self.tls_key and self.tls_ca):
            raise ValueError("tls_cert needs tls_key and tls_ca beside it")
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key needs tls_cert beside it")
        if self.token_file and not (self.tls_ca or is_local(self.address)):
            raise ValueError(
                f"token_file needs tls_ca: {self.address!r} is another machine, and in the clear everybody on the way could read the token"
            )

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
