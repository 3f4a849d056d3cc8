"""Causes and times: kept here, exported through prometheus_client where that can be imported, summed up in the log now and then."""

import functools
import importlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vllm_client.hook.decision import Outcome

ASK_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1)
"""Of `pars_hook_ask_seconds`: half a millisecond to ten times the default deadline."""

RECENT_ASKS = 1024
"""Times from which the log's percentiles are taken: the latest ones."""

GaugeName = Literal["in_flight", "backlog_seconds", "connected", "breaker_open", "shadow"]

_GAUGES: Mapping[GaugeName, str] = {
    "in_flight": "Requests inside the PARS hook's server, as its load gate counts them.",
    "backlog_seconds": "How long the engine needs for the requests that wait, as the PARS hook with the longest queue sees it.",
    "connected": "Streams to the PARS sidecar that are up: one for each API server when all is well.",
    "breaker_open": "PARS hooks whose circuit breaker is open.",
    "shadow": "PARS hooks that only watch.",
}

_LARGEST: frozenset[GaugeName] = frozenset({"backlog_seconds"})
"""Gauges of which the largest counts, where there are several API servers; the others add up."""


class Counters:
    """What one hook counts. To be used on one thread."""

    def __init__(
        self,
        *,
        log_interval_s: float = 60.0,
        logger: logging.Logger | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log_interval_s`: least seconds between two lines in the log, 0 for none."""
        self.counts: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
        """Requests by outcome, since the start."""
        self.gauges: dict[GaugeName, float] = dict.fromkeys(_GAUGES, 0)
        self._log = logger or logging.getLogger("vllm_client")
        self._log_interval_s = log_interval_s
        self._monotonic_s = monotonic_s
        self._told = dict(self.counts)
        # When the first request after the last line was counted. None: there was none.
        self._window_began_s: float | None = None
        self._recent_asks_s: deque[float] = deque(maxlen=RECENT_ASKS)
        self._metrics: _Metrics | None = None
        try:
            self._metrics = _metrics_of_this_process()
        except Exception as error:  # Such as a metrics folder that cannot be written, or names that another copy of us took.
            self._log.warning("PARS hook: nothing is exported to Prometheus: %s: %s", type(error).__name__, error)

    def count(self, outcome: Outcome) -> None:
        """Count one request, and write the line if it is due."""
        self.counts[outcome] += 1
        if self._metrics is not None:
            self._metrics.requests[outcome].inc()
        if self._log_interval_s:
            now_s = self._monotonic_s()
            if self._window_began_s is None:
                self._window_began_s = now_s
            elif now_s - self._window_began_s >= self._log_interval_s:
                self._tell(now_s - self._window_began_s)

    def observe_ask_s(self, seconds: float) -> None:
        """Take down how long a request was held for its score, whatever came of it."""
        self._recent_asks_s.append(seconds)
        if self._metrics is not None:
            self._metrics.ask_seconds.observe(seconds)

    def set_gauge(self, name: GaugeName, value: float) -> None:
        change = value - self.gauges[name]
        if change:
            self.gauges[name] = value
            if self._metrics is None:
                return
            if name in _LARGEST:
                self._metrics.gauges[name].set(value)
            else:
                # Not set(): another hook in this process has its share in the same gauge.
                self._metrics.gauges[name].inc(change)

    def _tell(self, window_s: float) -> None:
        fresh = {outcome: count - self._told[outcome] for outcome, count in self.counts.items()}
        causes = ", ".join(f"{count:,} {outcome}" for outcome, count in fresh.items() if count)
        line = f"last {window_s:,.0f} s: {sum(fresh.values()):,} requests: {causes}"
        if self._recent_asks_s:
            asks_ms = [1000 * seconds for seconds in sorted(self._recent_asks_s)]
            p50, p99 = asks_ms[len(asks_ms) // 2], asks_ms[len(asks_ms) * 99 // 100]
            line += f"; ask p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        self._log.info("PARS hook, %s", line)
        self._told = dict(self.counts)
        self._window_began_s = None
        self._recent_asks_s.clear()


@dataclass(frozen=True, slots=True)
class _Metrics:
    """Objects of prometheus_client, which has no types that we could name without importing it."""

    requests: Mapping[Outcome, Any]
    ask_seconds: Any
    gauges: Mapping[GaugeName, Any]


@functools.cache  # A name can be registered once per process, however many hooks there are.
def _metrics_of_this_process() -> _Metrics | None:
    try:
        prometheus = importlib.import_module("prometheus_client")
    except ImportError:
        return None
    requests = prometheus.Counter("pars_hook_requests", "Requests by what the PARS hook made of them.", ["outcome"])
    # The modes are for vLLM's multiprocess mode: over those API servers that are alive.
    gauges = {
        name: prometheus.Gauge(f"pars_hook_{name}", doc, multiprocess_mode="livemax" if name in _LARGEST else "livesum")
        for name, doc in _GAUGES.items()
    }
    return _Metrics(
        requests={outcome: requests.labels(outcome.value) for outcome in Outcome},  # All of them now, so that each shows as 0.
        ask_seconds=prometheus.Histogram(
            "pars_hook_ask_seconds", "How long requests were held for their score.", buckets=ASK_BUCKETS_S
        ),
        gauges=gauges,
    )
