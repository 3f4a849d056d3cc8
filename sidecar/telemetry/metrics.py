"""What a running sidecar counts, as Prometheus metrics in a registry of its own. Nothing global, no text of any prompt.

Every labelled child is looked up once: per RPC when it is registered, per ranker when the server starts. The number of series is
bounded by construction: RPCs and rankers are the server's own, the other labels are closed lists.
"""

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.observer import Observer, RejectionCause, ReloadOutcome, TierReason
from sidecar.telemetry.call_metrics import SECONDS, CallMetrics

PROMPTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384)

ANSWERS: tuple[tuple[str, TierReason], ...] = (
    ("encoder", "encoder"),
    ("ngram", "asked"),
    ("ngram", "no_time"),
    ("ngram", "overload"),
    ("ngram", "late"),
)
"""Every tier with every reason it answers for."""


class Metrics(Observer):
    """Counts what it is told, in `registry`. calls: a watcher of RPCs that counts in the same registry.

    rankers: the names of those that the server has. Any other is counted under the empty name: a label that somebody else could
    choose would have no bound.
    """

    def __init__(self, rankers: Iterable[str]) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.calls = CallMetrics(registry)
        self._families = _Families(registry)
        self._bundles = _BundleInfo(registry)
        self._serving = Gauge("pars_serving", "1 while health says SERVING, else 0.", registry=registry)
        build = Gauge("pars_build_info", "1, with the version of the sidecar.", ("version",), registry=registry)
        build.labels(importlib.metadata.version("pars-sidecar")).set(1)
        self._rejections = {cause: self._families.rejections.labels(cause) for cause in get_args(RejectionCause)}
        self._rankers = {ranker: _OneRanker(self._families, ranker) for ranker in rankers}

    def watch_health(self, serving: Callable[[], bool]) -> None:
        """Ask this for the health at every scrape, on the thread that answers it."""
        self._serving.set_function(serving)

    def scored(self, ranker: str, tier: str, reason: TierReason, prompts: int, queue_s: float) -> None:
        to = self._of(ranker)
        (to.answers.get((tier, reason)) or self._families.answers.labels(ranker, tier, reason)).inc()
        if tier == "encoder":  # the other one has no queue
            to.encoder_prompts.inc(prompts)
            to.queue_seconds.observe(queue_s)
        else:
            to.ngram_prompts.inc(prompts)

    def rejected(self, cause: RejectionCause) -> None:
        self._rejections[cause].inc()

    def batch_ran(self, ranker: str, prompts: int, tokens: int, padded_tokens: int, seconds: float, ok: bool) -> None:
        to = self._of(ranker)
        to.batch_prompts.observe(prompts)
        to.batch_tokens.observe(padded_tokens)
        to.infer_seconds.observe(seconds)
        to.real_tokens.inc(tokens)
        to.padded_tokens.inc(padded_tokens)
        if not ok:
            to.failed_batches.inc()

    def watch_waiting(self, ranker: str, prompts: Callable[[], int]) -> None:
        self._of(ranker).waiting_prompts.set_function(prompts)

    def serving(self, ranker: str, bundle_id: str, model_name: str, execution_provider: str) -> None:
        self._bundles.show(ranker, bundle_id, model_name, execution_provider)

    def reloaded(self, ranker: str, outcome: ReloadOutcome) -> None:
        self._of(ranker).reloads[outcome].inc()

    def _of(self, ranker: str) -> "_OneRanker":
        found = self._rankers.get(ranker)
        if found is None:
            found = self._rankers.setdefault("", _OneRanker(self._families, ""))
        return found


class _Families:
    """The metrics themselves, without the values of their labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, doc: str, *labels: str) -> Counter:
            return Counter(name, doc, labels, registry=registry)

        def histogram(name: str, doc: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, doc, ("ranker",), registry=registry, buckets=buckets)

        self.answers = counter(
            "pars_answers_total",
            "Calls and stream items answered, by the tier that answered and why it did.",
            *("ranker", "tier", "reason"),
        )
        self.scored_prompts = counter(
            "pars_scored_prompts_total", "Prompts of answered calls and stream items.", "ranker", "tier"
        )
        self.rejections = counter("pars_rejections_total", "Calls and stream items answered with an error, by cause.", "cause")
        self.queue_seconds = histogram(
            "pars_queue_seconds",
            "Time a call or item that the encoder answered waited: from its token ids until its last prompt entered a batch.",
            SECONDS,
        )
        self.infer_seconds = histogram("pars_infer_seconds", "Time of one model run, failed ones included.", SECONDS)
        self.batch_prompts = histogram("pars_batch_prompts", "Prompts in one model run.", PROMPTS)
        self.batch_tokens = histogram("pars_batch_tokens", "Tokens in one model run, padding included.", TOKENS)
        self.real_tokens = counter("pars_real_tokens_total", "Tokens run through the model, padding left out.", "ranker")
        self.padded_tokens = counter("pars_padded_tokens_total", "Tokens run through the model, padding included.", "ranker")
        self.failed_batches = counter("pars_failed_batches_total", "Model runs that failed.", "ranker")
        self.reloads = counter("pars_reloads_total", "Reloads of a bundle that ended, by outcome.", "ranker", "outcome")
        self.waiting_prompts = Gauge(
            "pars_waiting_prompts", "Prompts that are in no batch yet.", ("ranker",), registry=registry
        )


class _OneRanker:
    """One ranker's children, there from the start: a rate cannot be seen of a series that begins with its first event."""

    def __init__(self, families: _Families, ranker: str) -> None:
        self.answers = {(tier, reason): families.answers.labels(ranker, tier, reason) for tier, reason in ANSWERS}
        self.encoder_prompts = families.scored_prompts.labels(ranker, "encoder")
        self.ngram_prompts = families.scored_prompts.labels(ranker, "ngram")
        self.queue_seconds = families.queue_seconds.labels(ranker)
        self.infer_seconds = families.infer_seconds.labels(ranker)
        self.batch_prompts = families.batch_prompts.labels(ranker)
        self.batch_tokens = families.batch_tokens.labels(ranker)
        self.real_tokens = families.real_tokens.labels(ranker)
        self.padded_tokens = families.padded_tokens.labels(ranker)
        self.failed_batches = families.failed_batches.labels(ranker)
        self.reloads = {outcome: families.reloads.labels(ranker, outcome) for outcome in get_args(ReloadOutcome)}
        self.waiting_prompts = families.waiting_prompts.labels(ranker)


class _BundleInfo(Collector):
    """Which bundle answers for each ranker. A collector of our own, so that no scrape sees two bundles of a ranker, or none."""

    NAME = "pars_bundle_info"

    def __init__(self, registry: CollectorRegistry) -> None:
        self._labels_of: dict[str, list[str]] = {}
        registry.register(self)

    def show(self, ranker: str, bundle_id: str, model_name: str, execution_provider: str) -> None:
        # A new table, not a change of the old one, which a scrape may be reading.
        self._labels_of = self._labels_of | {ranker: [ranker, bundle_id, model_name, execution_provider]}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            self.NAME,
            "1, with the bundle that answers for a ranker.",
            labels=["ranker", "bundle_id", "model_name", "execution_provider"],
        )
        for labels in self._labels_of.values():
            family.add_metric(labels, 1)
        yield family
