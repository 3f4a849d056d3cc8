"""RPCs as Prometheus metrics, under the names and labels of go-grpc-prometheus, which everybody's dashboards and alerts know."""

import time
from collections.abc import Callable
from typing import Any

import grpc
from prometheus_client import CollectorRegistry, Counter, Histogram

from sidecar.telemetry.observed import CallBegin, CallEnd, CallKind

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a call that needs no model (0.4 ms) to the longest a call may wait; one run of an encoder takes 1 ms to a few seconds."""

_LABELS = ("grpc_type", "grpc_service", "grpc_method")


class CallMetrics:
    """Counts the calls of the RPCs that it is made to watch. clock: monotonic, seconds."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = Counter("grpc_server_started_total", "RPCs that reached their handler.", _LABELS, registry=registry)
        self._handled = Counter(
            "grpc_server_handled_total", "RPCs that have ended, by status.", (*_LABELS, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from an RPC's arrival at its handler to its end.",
            _LABELS,
            registry=registry,
            buckets=SECONDS,
        )

    def watch(self, service: str, method: str, kind: CallKind) -> CallBegin:
        """A Watcher. Every status is there from the start, at 0: a rate cannot be seen of a series that begins with its first error."""
        labels = (kind, service, method)
        started, seconds, clock = self._started.labels(*labels), self._seconds.labels(*labels), self._clock
        handled = {code: self._handled.labels(*labels, _code_name(code)) for code in grpc.StatusCode}

        def begin(_context: Any) -> CallEnd:
            started.inc()
            began_s = clock()

            def end(code: grpc.StatusCode, _reply: object) -> None:
                seconds.observe(clock() - began_s)
                handled[code].inc()

            return end

        return begin


def _code_name(code: grpc.StatusCode) -> str:
    """As Go writes it: DeadlineExceeded for DEADLINE_EXCEEDED; OK stays, and Canceled has one l."""
    if code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
        return "OK" if code is grpc.StatusCode.OK else "Canceled"
    return code.name.title().replace("_", "")
