"""OpenTelemetry spans of the scoring RPCs, sent over OTLP. Needs the extra `otel`; imported only when tracing is on.

Endpoint, headers, sampler, queue and everything else is set by OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_ENDPOINT first of
all. A span joins its caller's trace by the W3C header `traceparent`. It says what the reply says of the call as a whole, and
nothing of any prompt.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from pars.v1 import ranker_pb2
from sidecar.errors import StartError
from sidecar.telemetry.observed import CallBegin, CallEnd, CallKind

DEFAULT_SERVICE_NAME = "pars-sidecar"

FLUSH_S = 3.0
"""How long close() waits for the last spans to be sent. A collector that is gone must not hold up a stop."""

TRACED_SERVICE = "pars.v1.RankerService"
"""Health probes and reflection would bury the rest: a probe every few seconds, for ever, and no caller with a trace."""

OUR_FAULT = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What makes a server's span an error, by OpenTelemetry's semantic conventions; the other codes are the caller's doing."""

_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = logging.getLogger(__name__)


class Tracing:
    """Makes spans and sends them from a thread of its own, out of a bounded queue; what does not fit is dropped."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises StartError when OpenTelemetry's variables ask for what is not to be had."""
        protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), "grpc")
        if protocol != "grpc":
            raise StartError(f"traces are sent over grpc only, and {' or '.join(_PROTOCOLS)} says {protocol!r}")
        try:
            exporter = OTLPSpanExporter()
            resource = Resource.create()
            if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
                resource = resource.merge(Resource({SERVICE_NAME: DEFAULT_SERVICE_NAME}))
            # No atexit hook: that one waits as long as it takes.
            self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        except Exception as error:  # the SDK parses its variables here and raises whatever int() and its enums do
            raise StartError(f"OpenTelemetry cannot be set up: {error}") from error
        self._tracer = self._provider.get_tracer("sidecar")
        self._parents = TraceContextTextMapPropagator()

    def watch(self, service: str, method: str, kind: CallKind) -> CallBegin | None:
        """A Watcher: a span for each call of an RPC of ours."""
        if service != TRACED_SERVICE:
            return None
        name = f"{service}/{method}"
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

        def begin(context: Any) -> CallEnd:
            span = self._tracer.start_span(name, self._parent(context), SpanKind.SERVER, attributes)

            def end(code: grpc.StatusCode, reply: object) -> None:
                if span.is_recording():
                    span.set_attribute("rpc.grpc.status_code", code.value[0])
                    span.set_attributes(said_of_call(reply))
                    if code in OUR_FAULT:
                        span.set_status(Status(StatusCode.ERROR, code.name))
                span.end()

            return end

        return begin

    def close(self) -> None:
        """Send what is queued, for at most FLUSH_S, and stop."""
        # The SDK's own shutdown takes no deadline.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            _log.warning("the last traces could not be sent within %g s", FLUSH_S)

    def _parent(self, context: Any) -> Context:
        carrier: dict[str, list[str]] = {}
        for key, value in context.invocation_metadata() or ():
            if key in self._parents.fields:
                carrier.setdefault(key, []).append(value)
        return self._parents.extract(carrier, Context())


def said_of_call(reply: object) -> dict[str, AttributeValue]:
    """What a reply says of its whole call, as span attributes. Empty for other messages and for none."""
    if isinstance(reply, ranker_pb2.ScoreResponse):
        tier, prompts = reply.scores[0].tier, len(reply.scores)
    elif isinstance(reply, ranker_pb2.CompareResponse):
        tier, prompts = reply.comparisons[0].score_a.tier, 2 * len(reply.comparisons)
    else:
        return {}
    return {
        "pars.tier": ranker_pb2.Tier.Name(tier),
        "pars.prompts": prompts,
        "pars.bundle_id": reply.bundle_id,
        "pars.tokenize_time_ns": reply.timing.tokenize_time_ns,
        "pars.queue_time_ns": reply.timing.queue_time_ns,
        "pars.infer_time_ns": reply.timing.infer_time_ns,
    }
