"""Where to listen: `host:port` or `unix:/path`. Checks what gRPC would get wrong in silence."""

import errno
import socket
import stat
from pathlib import Path

from pars.address import UNIX, is_local
from sidecar.errors import AddressError, SettingsError


def check_address(address: str) -> None:
    """Raise SettingsError unless the address is `host:port` (port 0: any free one) or `unix:/absolute/path`."""
    if address.startswith(UNIX):
        if not address.removeprefix(UNIX).startswith("/"):
            raise SettingsError(f"address {address!r}: a unix socket needs an absolute path, as in unix:/run/pars.sock")
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise SettingsError(f"address {address!r} is neither host:port nor unix:/path")


def check_exposure(address: str, *, tls: bool, token: bool, insecure: bool) -> None:
    """Raise SettingsError when prompts or tokens would cross a network in the clear without anybody having said so."""
    if tls and address.startswith(UNIX):
        raise SettingsError(
            f"address {address}: a unix socket has no TLS; socket_mode and socket_owner say who may connect, "
            "so leave tls_cert, tls_key and tls_client_ca out"
        )
    if tls or is_local(address):
        return
    if token:
        raise SettingsError(
            f"address {address} can be reached from elsewhere, and without TLS everybody on the way could read the tokens of token_file; "
            "set tls_cert and tls_key, or listen on 127.0.0.1 or a unix socket"
        )
    if not insecure:
        raise SettingsError(
            f"address {address} can be reached from elsewhere, and without TLS everybody on the way could read the prompts; "
            "set tls_cert and tls_key, listen on 127.0.0.1 or a unix socket, or say insecure=on"
        )


def real_address(address: str, port: int) -> str:
    """The address with the port that was really bound."""
    if address.startswith(UNIX):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def clear_stale_socket(address: str) -> None:
    """Remove the socket file of a server that is gone. Does nothing for TCP or when there is no file.

    Raises AddressError when somebody listens there or the file is no socket: gRPC would unlink either without a word.
    """
    if not address.startswith(UNIX):
        return
    path = Path(address.removeprefix(UNIX))
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{address}: the file there is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(str(path))
    if code == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif code != errno.ENOENT:
        raise AddressError(f"{address}: another process listens there")
