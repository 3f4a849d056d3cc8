"""Spans as a collector gets them, over OTLP from a real server: names, parents, attributes, and what happens when nobody collects."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from sidecar_process import REPOSITORY, StartSidecar
from sidecar_rig import WAIT_S
from sidecar_served import MAX_MESSAGE_BYTES, Served, status_of

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.errors import StartError
from sidecar.observer import Observer
from sidecar.server import Server
from sidecar.telemetry import tracing
from sidecar.telemetry.telemetry import Telemetry
from sidecar.telemetry.tracing import Tracing, said_of_call

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("tracestate", "vendor=1"))


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Collects spans over OTLP, as any collector does. While held it takes them and does not answer."""

    def __init__(self) -> None:
        self.resources: list[dict[str, str]] = []
        self.spans: list[trace_pb2.Span] = []
        self.held = threading.Event()
        self.go = threading.Event()
        self.go.set()
        self._server = grpc.server(ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:
        self.held.set()
        assert self.go.wait(WAIT_S)
        for resource in request.resource_spans:
            self.resources.append({each.key: each.value.string_value for each in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def close(self) -> None:
        self.go.set()
        self._server.stop(None).wait(WAIT_S)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that OpenTelemetry's variables point at, and no other of these variables."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    yield collector
    collector.close()


@pytest_asyncio.fixture
async def traces(collector: Collector) -> AsyncIterator[Tracing]:
    traces = Tracing(os.environ)
    yield traces
    await asyncio.to_thread(traces.close)


@pytest_asyncio.fixture
async def channel(served: Served, traces: Tracing) -> AsyncIterator[grpc.aio.Channel]:
    """To a second server around the served engine, that is traced."""
    telemetry = Telemetry(Observer(), (traces.watch,))
    server = Server(served.engine, served.health, max_message_bytes=MAX_MESSAGE_BYTES, max_stream_items=4, seen_by=telemetry)
    address = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await server._server.stop(None)  # the engine is the other server's, which stops it


async def collected(traces: Tracing, collector: Collector) -> Sequence[trace_pb2.Span]:
    await asyncio.to_thread(traces.close)
    return collector.spans


def attributes_of(span: trace_pb2.Span) -> dict[str, str | int]:
    return {
        each.key: each.value.string_value if each.value.HasField("string_value") else each.value.int_value
        for each in span.attributes
    }


class CallWithoutMetadata:
    def invocation_metadata(self) -> None:
        return None


def one_call(traces: Tracing, code: grpc.StatusCode) -> None:
    begin = traces.watch("pars.v1.RankerService", "Score", "unary")
    assert begin is not None
    begin(CallWithoutMetadata())(code, None)


async def test_a_call_is_a_span_in_its_callers_trace(channel: grpc.aio.Channel, traces: Tracing, collector: Collector) -> None:
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    request = ranker_pb2.ScoreRequest(prompts=["long", "very secretprompt"])
    reply = await stub.Score(request, timeout=WAIT_S, metadata=PARENT)
    (span,) = await collected(traces, collector)
    assert (span.name, span.kind) == ("pars.v1.RankerService/Score", trace_pb2.Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE_ID, SPAN_ID, "vendor=1")
    assert span.end_time_unix_nano >= span.start_time_unix_nano > 0
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET
    assert attributes_of(span) == {
        "rpc.system": "grpc",
        "rpc.service": "pars.v1.RankerService",
        "rpc.method": "Score",
        "rpc.grpc.status_code": 0,
        "pars.tier": "TIER_ENCODER",
        "pars.prompts": 2,
        "pars.bundle_id": reply.bundle_id,
        "pars.tokenize_time_ns": reply.timing.tokenize_time_ns,
        "pars.queue_time_ns": reply.timing.queue_time_ns,
        "pars.infer_time_ns": reply.timing.infer_time_ns,
    }
    assert b"secretprompt" not in span.SerializeToString()
    assert collector.resources[0]["service.name"] == "pars-sidecar"


@pytest.mark.parametrize(
    "metadata",
    [(), (("traceparent", "junk"),), (("traceparent", "00-" + "0" * 32 + "-" + SPAN_ID + "-01"),)],
    ids=["no parent", "junk for a parent", "an impossible parent"],
)
async def test_a_call_without_a_parent_begins_a_trace(
    channel: grpc.aio.Channel, traces: Tracing, collector: Collector, metadata: Any
) -> None:
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    await stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S, metadata=metadata)
    (span,) = await collected(traces, collector)
    assert len(span.trace_id) == 16
    assert span.parent_span_id == b""


async def test_a_caller_who_does_not_sample_gets_no_span(
    channel: grpc.aio.Channel, traces: Tracing, collector: Collector
) -> None:
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    unsampled = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"),)
    await stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S, metadata=unsampled)
    assert await collected(traces, collector) == []


async def test_a_refused_call_is_the_callers_doing(channel: grpc.aio.Channel, traces: Tracing, collector: Collector) -> None:
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    code, _ = await status_of(stub.Score(ranker_pb2.ScoreRequest(), timeout=WAIT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    (span,) = await collected(traces, collector)
    assert attributes_of(span)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "pars.tier" not in attributes_of(span)
    assert span.status.code == trace_pb2.Status.STATUS_CODE_UNSET


async def test_a_failed_call_is_an_error(traces: Tracing, collector: Collector) -> None:
    one_call(traces, grpc.StatusCode.INTERNAL)
    (span,) = await collected(traces, collector)
    assert (span.status.code, span.status.message) == (trace_pb2.Status.STATUS_CODE_ERROR, "INTERNAL")


async def test_a_stream_is_one_span_and_probes_are_none(
    channel: grpc.aio.Channel, traces: Tracing, collector: Collector
) -> None:
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    items = [ranker_pb2.ScoreStreamRequest(id=n, request={"prompts": ["long"]}) for n in range(3)]
    stub = ranker_pb2_grpc.RankerServiceStub(channel)
    assert len([item async for item in stub.ScoreStream(iter(items), timeout=WAIT_S)]) == 3
    (span,) = await collected(traces, collector)
    assert span.name == "pars.v1.RankerService/ScoreStream"
    assert attributes_of(span)["rpc.grpc.status_code"] == 0


def test_what_is_said_of_a_compare() -> None:
    score = ranker_pb2.PromptScore(tier=ranker_pb2.TIER_NGRAM)
    reply = ranker_pb2.CompareResponse(
        comparisons=[ranker_pb2.Comparison(score_a=score, score_b=score)] * 2, bundle_id="1234", timing={"infer_time_ns": 7}
    )
    said = said_of_call(reply)
    assert (said["pars.tier"], said["pars.prompts"], said["pars.infer_time_ns"]) == ("TIER_NGRAM", 4, 7)
    assert said_of_call(ranker_pb2.GetBundleResponse()) == {}


def test_the_name_of_the_service_can_be_chosen(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    traces = Tracing(os.environ)
    one_call(traces, grpc.StatusCode.OK)
    traces.close()
    assert collector.resources[0]["service.name"] == "ours"


def test_a_collector_that_does_not_answer_does_not_hold_up_a_stop(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.2)
    collector.go.clear()
    traces = Tracing(os.environ)
    one_call(traces, grpc.StatusCode.OK)
    traces.close()  # returns although nothing was let go
    assert collector.held.wait(WAIT_S)
    assert collector.spans == []
    assert "the last traces could not be sent within 0.2 s" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "traces are sent over grpc only.*'http/protobuf'"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "traces are sent over grpc only.*'http/json'"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "junk", "OpenTelemetry cannot be set up"),
    ],
)
def test_variables_that_ask_for_what_is_not_to_be_had(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(StartError, match=message):
        Tracing(os.environ)


def test_without_the_packages_the_start_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.context'] = None\n"
        "from sidecar.telemetry.telemetry import telemetry\n"
        "with telemetry(metrics_address='', tracing=True, rankers=[]): pass"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=6 * WAIT_S)
    assert run.returncode == 1
    assert "sidecar.errors.StartError: tracing is on and opentelemetry.context is not installed: pip install" in run.stderr
    assert "'pars-sidecar[otel]'" in run.stderr


def test_a_real_sidecar_sends_its_last_spans_before_it_ends(
    start_sidecar: StartSidecar, tiny_bundle: Path, collector: Collector
) -> None:
    """1. starts with tracing on 2. answers a call with a parent 3. is stopped at once 4. the collector has the span."""
    sidecar = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0", "--tracing", "on")
    with grpc.insecure_channel(sidecar.serving()) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        stub.Score(ranker_pb2.ScoreRequest(prompts=["long"], tier=ranker_pb2.TIER_NGRAM), timeout=WAIT_S, metadata=PARENT)
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    (span,) = collector.spans
    assert (span.trace_id.hex(), attributes_of(span)["pars.tier"]) == (TRACE_ID, "TIER_NGRAM")


def test_a_real_sidecar_ends_although_nobody_collects(
    start_sidecar: StartSidecar, tiny_bundle: Path, collector: Collector
) -> None:
    collector.go.clear()
    sidecar = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0", "--tracing", "on")
    with grpc.insecure_channel(sidecar.serving()) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S)
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    assert any("the last traces could not be sent within 3 s" in line for line in sidecar.lines)
    assert collector.spans == []
