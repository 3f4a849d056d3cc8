"""Which addresses stay on this machine. Sidecar and clients agree on it here, since no token may leave it in the clear.

Standard library only: the hook imports it inside somebody else's server.
"""

import ipaddress

UNIX = "unix:"
"""What an address that is a socket file begins with; every other one is `host:port`."""


def is_local(address: str) -> bool:
    """Whether what is sent to the address stays on this machine: unix sockets, loopback addresses and `localhost`.

    Any other name counts as leaving it, whatever it resolves to today.
    """
    if address.startswith(UNIX):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
