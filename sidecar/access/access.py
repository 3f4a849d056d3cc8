"""Who may reach the server, and how much of it: everything the settings say of that, read before anything is loaded."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pars.address import is_local
from sidecar.access.auth import Tokens
from sidecar.access.limits import ConnectionLimits
from sidecar.access.socket_access import SocketAccess
from sidecar.access.tls import TlsFiles, server_credentials
from sidecar.settings import Settings

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """tls: None is plaintext. tokens: None lets everybody call."""

    tls: grpc.ServerCredentials | None = None
    tokens: Tokens | None = None
    socket: SocketAccess = field(default_factory=SocketAccess)
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)

    @classmethod
    def open(cls, settings: Settings) -> "Access":
        """Read the files that the settings name. Raises CredentialsError, SettingsError."""
        tls = None
        if settings.tls_cert:
            client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
            tls = server_credentials(TlsFiles(Path(settings.tls_cert), Path(settings.tls_key), client_ca))
        elif not is_local(settings.address):
            _log.warning("insecure=on: prompts cross the network to %s in the clear", settings.address)
        return cls(
            tls,
            Tokens(Path(settings.token_file)) if settings.token_file else None,
            SocketAccess.parse(settings.socket_mode, settings.socket_owner),
            ConnectionLimits(
                max_connections=settings.max_connections, max_streams_per_connection=settings.max_streams_per_connection
            ),
        )
