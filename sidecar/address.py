"""Where to listen: `host:port` or `unix:/path`. Checks what gRPC would get wrong in silence."""

import errno
import socket
import stat
from pathlib import Path

from sidecar.errors import AddressError, SettingsError

UNIX = "unix:"


def check_address(address: str) -> None:
    """Raise SettingsError unless the address is `host:port` (port 0: any free one) or `unix:/absolute/path`."""
    if address.startswith(UNIX):
        if not address.removeprefix(UNIX).startswith("/"):
            raise SettingsError(f"address {address!r}: a unix socket needs an absolute path, as in unix:/run/pars.sock")
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise SettingsError(f"address {address!r} is neither host:port nor unix:/path")


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
