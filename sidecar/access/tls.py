"""TLS and mutual TLS of the server, with files that may be rotated under it.

Every handshake looks at the files' times, so a new certificate holds from the next connection on; connections that are open keep
theirs. Keys are read as gRPC reads them, in PEM and without a password.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar.access.reread import Reread
from sidecar.access.secret_file import read_public, read_secret
from sidecar.errors import CredentialsError


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. cert: the server's own certificate, then those that lead to its CA. client_ca: with it, every client
    must show a certificate of one of these CAs."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class _Material:
    cert: bytes
    key: bytes
    client_ca: bytes | None


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files. Raises CredentialsError when the files of now cannot be used."""
    paths = [path for path in (files.cert, files.key, files.client_ca) if path is not None]
    material = Reread("TLS files", paths, lambda: _read(files))
    given = material.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # On gRPC's threads. None leaves things as they are, which spares gRPC making its TLS context anew for each connection.
        nonlocal given
        current = material.current()
        if current is given:
            return None
        given = current
        return _configuration(current)

    fetcher: Callable[[], grpc.ServerCertificateConfiguration | None] = changed
    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        fetcher,  # type: ignore[arg-type]  # the stubs forget that None is allowed
        require_client_authentication=files.client_ca is not None,
    )


def _configuration(material: _Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.client_ca)


def _read(files: TlsFiles) -> _Material:
    key = read_secret("tls_key", files.key)
    cert = read_public("tls_cert", files.cert)
    client_ca = None if files.client_ca is None else read_public("tls_client_ca", files.client_ca)
    # gRPC would take anything, and then fail every handshake. From the files again: Python takes keys in no other way.
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise CredentialsError(
            f"tls_cert {files.cert} and tls_key {files.key}: not a certificate and its key, in PEM and without a password"
            f" ({_reason(error)})"
        ) from error
    if client_ca is not None:
        try:
            # PEM is ASCII; people write comments in their own language around it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
        except (OSError, ValueError) as error:
            raise CredentialsError(f"tls_client_ca {files.client_ca}: no certificates in PEM ({_reason(error)})") from error
    return _Material(cert=cert, key=key, client_ca=client_ca)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
