"""Which eyes are open on a running sidecar, by its settings: metrics, traces, both or none. What is off is not even imported."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.errors import StartError
from sidecar.observer import Observer
from sidecar.telemetry.observed import Watcher

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """observer: for the engine and all below it. watchers: of the RPCs, for the server."""

    observer: Observer = Observer()  # noqa: RUF009 - it has no state
    watchers: tuple[Watcher, ...] = ()


@contextlib.contextmanager
def telemetry(*, metrics_address: str, tracing: bool, rankers: Iterable[str]) -> Iterator[Telemetry]:
    """Open what is asked for and close it at the end. metrics_address: empty for no metrics. rankers: names of all the server has.

    Raises StartError: the address is busy, or the packages for traces are not there.
    """
    observer = Observer()
    watchers: list[Watcher] = []
    with contextlib.ExitStack() as open_parts:
        if metrics_address:
            # There the processes of one server, such as vLLM's, add up their counters. The sidecar is a server of its own.
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
            from sidecar.telemetry.metrics import Metrics
            from sidecar.telemetry.metrics_server import PATH, MetricsServer

            observer = metrics = Metrics(rankers)
            watchers.append(metrics.calls.watch)
            server = MetricsServer(metrics.registry, metrics_address)
            open_parts.callback(server.close)
            _log.info("metrics address=%s path=%s", server.address, PATH)
        if tracing:
            try:
                from sidecar.telemetry.tracing import Tracing
            except ImportError as error:
                raise StartError(
                    f"tracing is on and {error.name} is not installed: pip install 'pars-sidecar[otel]', or tracing off"
                ) from error
            traces = Tracing(os.environ)
            open_parts.callback(traces.close)
            watchers.append(traces.watch)
            _log.info("tracing is on")
        yield Telemetry(observer, tuple(watchers))
