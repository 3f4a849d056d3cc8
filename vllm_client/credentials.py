"""What a client shows the sidecar: its certificate, its token. Read from files, never from variables or flags."""

import os
import time
from pathlib import Path

import grpc

from vllm_client.config import ClientConfig
from vllm_client.errors import CredentialsError

LOOK_INTERVAL_S = 1.0
"""Between two looks at the token file. A new token is in use that soon; a look costs two microseconds."""

Metadata = tuple[tuple[str, str], ...]


def tls_credentials(config: ClientConfig) -> grpc.ChannelCredentials | None:
    """Credentials from the files as they are now; None for plaintext. Raises CredentialsError.

    gRPC's Python client cannot take others later: a rotated client certificate or CA needs a new channel. The hook makes one for
    each connection; of other clients make a new one.
    """
    if not config.tls_ca:
        return None
    return grpc.ssl_channel_credentials(
        _read("tls_ca", config.tls_ca),
        _read("tls_key", config.tls_key) if config.tls_key else None,
        _read("tls_cert", config.tls_cert) if config.tls_cert else None,
    )


class Token:
    """The first token of a file, as metadata of a call. Another one is used as soon as the file has it.

    The sidecar's own token file will do: it may hold several, of which it takes any.
    """

    def __init__(self, path: str) -> None:
        """Empty path: no token. Raises CredentialsError when the file cannot be used."""
        self._path = path
        self._changed_ns = _changed_ns(path) if path else 0
        self._metadata = _metadata(path) if path else None
        self._next_look_s = time.monotonic() + LOOK_INTERVAL_S

    def metadata(self) -> Metadata | None:
        """For one call. A file that cannot be used any more leaves the last token: the sidecar is the one to refuse it."""
        if self._path and (now_s := time.monotonic()) >= self._next_look_s:
            self._next_look_s = now_s + LOOK_INTERVAL_S
            self._look()
        return self._metadata

    def _look(self) -> None:
        try:
            changed_ns = _changed_ns(self._path)
            # Files changed less than a look ago are read once more, because their time may stand still meanwhile.
            if changed_ns != self._changed_ns or time.time_ns() - changed_ns < 2e9 * LOOK_INTERVAL_S:
                self._metadata = _metadata(self._path)
                self._changed_ns = changed_ns
        except CredentialsError:
            return


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path).st_ctime_ns  # noqa: PTH116 - half the cost of Path.stat
    except OSError as error:
        raise CredentialsError(f"token_file {path}: {error.strerror}") from error


def _metadata(path: str) -> Metadata:
    lines = _read("token_file", path).split(b"\n")
    token = next((line.strip() for line in lines if line.strip()), b"")
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):
        raise CredentialsError(f"token_file {path}: its first line is not a token of visible ASCII")
    return (("authorization", f"Bearer {token.decode()}"),)


def _read(setting: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{setting} {path}: {error.strerror}") from error
