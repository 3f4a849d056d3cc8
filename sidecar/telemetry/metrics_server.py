"""The page that Prometheus reads: plain HTTP, `GET /metrics`, on a few threads of its own.

Bounded in everything a stranger could use up: connections, bytes read, time per connection. Nothing here can hold up a call, but
for the interpreter's lock: rendering a page takes it for some milliseconds, at each scrape.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.address import real_address
from sidecar.errors import AddressError

PATH = "/metrics"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

THREADS = 4
"""Connections served at a time; a few more wait. One Prometheus needs one, and an idle stranger must not stand in its way."""

BACKLOG = 16

MAX_HEAD_BYTES = 8 * 1024

CONNECTION_S = 2.0
"""From the first look at a connection to the last byte of the reply; then it is closed. Well below a scrape's timeout of 10 s."""

PAUSE_S = 1.0
"""After an accept that failed, for want of file descriptors: trying again at once would only burn a core."""

JOIN_S = 2.0
"""How long close() waits for each thread. They have nothing to finish."""

_log = logging.getLogger(__name__)


class MetricsServer:
    """Serves the metrics of one registry from construction until close(). address: as bound, with the real port."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """address: host:port; port 0: any free one. Raises AddressError when it cannot be listened on."""
        self._page = _WithoutCreated(registry)
        self._socket = _listen(address)
        self.address = real_address(address, self._socket.getsockname()[1])
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._work, name=f"metrics-{n}", daemon=True) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Free the port and hang up."""
        with self._lock:
            self._closing.set()
            for connection in self._open:
                _shut_down(connection)
        _shut_down(self._socket)  # wakes those in accept; closing would not
        for thread in self._threads:
            thread.join(JOIN_S)
        self._socket.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                self._closing.wait(PAUSE_S)
                continue
            with connection:
                with self._lock:
                    if self._closing.is_set():
                        return
                    self._open.add(connection)
                try:
                    self._answer(connection)
                except OSError:
                    pass  # gone or too slow; TimeoutError is one of these
                except Exception as error:
                    _log.error("the metrics page failed with %s", type(error).__name__)
                finally:
                    with self._lock:
                        self._open.remove(connection)

    def _answer(self, connection: socket.socket) -> None:
        give_up_s = time.monotonic() + CONNECTION_S
        head = b""
        while b"\r\n\r\n" not in head:
            connection.settimeout(max(give_up_s - time.monotonic(), 0.001))
            part = connection.recv(MAX_HEAD_BYTES)
            head += part
            if not part or len(head) > MAX_HEAD_BYTES:
                return
        reply = self._reply(head)
        connection.settimeout(max(give_up_s - time.monotonic(), 0.001))
        connection.sendall(reply)

    def _reply(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if path != PATH:
            return _http("404 Not Found", "text/plain", f"metrics are at {PATH}\n".encode())
        if method != "GET":
            return _http("405 Method Not Allowed", "text/plain", b"", "Allow: GET\r\n")
        return _http("200 OK", CONTENT_TYPE, generate_latest(self._page))


class _WithoutCreated(Collector):
    """The registry without its `_created` series: in this format they are a gauge beside every counter, which nobody asks for.

    prometheus_client can leave them out too, but only for a whole process.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _http(status: str, content_type: str, body: bytes, more_headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more_headers}Connection: close\r\n\r\n"
    return head.encode("ascii") + body


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        return socket.create_server((where[0], where[1]), family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise AddressError(f"cannot serve metrics on {address}: {error.strerror}") from error
    except OSError as error:
        # Not error.strerror: create_server appends the address to it, once more.
        raise AddressError(f"cannot serve metrics on {address}: {os.strerror(error.errno or 0)}") from error


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
