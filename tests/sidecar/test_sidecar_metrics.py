"""What is counted, and the page it is read from: names, values, bounds, and a real sidecar that is scraped."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import prometheus_client
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sidecar_process import REPOSITORY, StartSidecar
from sidecar_rig import WAIT_S
from sidecar_scrape import Series, label_sets, page_of, series_of, value
from sidecar_served import MAX_MESSAGE_BYTES, Served, status_of
from sidecar_tiny import make_bundle

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.access.access import Access
from sidecar.access.auth import Tokens
from sidecar.errors import AddressError, SettingsError, StartError
from sidecar.server import Server
from sidecar.settings import Settings
from sidecar.telemetry import metrics_server
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.metrics_server import MAX_HEAD_BYTES, THREADS, MetricsServer
from sidecar.telemetry.telemetry import Telemetry, telemetry

RPC = {"grpc_type": "unary", "grpc_service": "pars.v1.RankerService", "grpc_method": "Score"}
UNITS = ("_seconds", "_prompts", "_tokens", "_total", "_info")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["default", "llama"])


@pytest.fixture
def served_metrics(metrics: Metrics) -> Iterator[MetricsServer]:
    server = MetricsServer(metrics.registry, "127.0.0.1:0")
    yield server
    server.close()


class TestWhatIsCounted:
    def read(self, metrics: Metrics, name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    def test_answers_by_tier_and_reason(self, metrics: Metrics) -> None:
        metrics.scored("llama", "encoder", "encoder", 3, 0.002)
        metrics.scored("llama", "ngram", "asked", 2, 0.2)
        metrics.scored("llama", "ngram", "late", 5, 0.0)
        answers = {
            (tier, reason): self.read(metrics, "pars_answers_total", ranker="llama", tier=tier, reason=reason)
            for tier, reason in [("encoder", "encoder"), ("ngram", "asked"), ("ngram", "late"), ("ngram", "overload")]
        }
        assert answers == {("encoder", "encoder"): 1, ("ngram", "asked"): 1, ("ngram", "late"): 1, ("ngram", "overload"): 0}
        assert self.read(metrics, "pars_scored_prompts_total", ranker="llama", tier="encoder") == 3
        assert self.read(metrics, "pars_scored_prompts_total", ranker="llama", tier="ngram") == 7

    def test_queue_time_is_the_encoders(self, metrics: Metrics) -> None:
        metrics.scored("default", "encoder", "encoder", 1, 0.004)
        metrics.scored("default", "ngram", "no_time", 1, 0.0)
        assert self.read(metrics, "pars_queue_seconds_count", ranker="default") == 1
        assert self.read(metrics, "pars_queue_seconds_bucket", ranker="default", le="0.0025") == 0
        assert self.read(metrics, "pars_queue_seconds_bucket", ranker="default", le="0.005") == 1

    def test_a_batch(self, metrics: Metrics) -> None:
        metrics.batch_ran("default", 4, 100, 160, 0.02, True)
        metrics.batch_ran("default", 1, 10, 10, 0.3, False)
        assert self.read(metrics, "pars_batch_prompts_sum", ranker="default") == 5
        assert self.read(metrics, "pars_batch_tokens_sum", ranker="default") == 170
        assert self.read(metrics, "pars_real_tokens_total", ranker="default") == 110
        assert self.read(metrics, "pars_padded_tokens_total", ranker="default") == 170
        assert self.read(metrics, "pars_infer_seconds_sum", ranker="default") == pytest.approx(0.32)
        assert self.read(metrics, "pars_infer_seconds_count", ranker="default") == 2
        assert self.read(metrics, "pars_failed_batches_total", ranker="default") == 1
        assert self.read(metrics, "pars_infer_seconds_count", ranker="llama") == 0

    def test_rejections_reloads_and_waiting_prompts(self, metrics: Metrics) -> None:
        metrics.rejected("overload")
        metrics.reloaded("llama", "refused")
        metrics.watch_waiting("llama", lambda: 7)
        metrics.watch_waiting("llama", lambda: 6)
        assert self.read(metrics, "pars_rejections_total", cause="overload") == 1
        assert self.read(metrics, "pars_rejections_total", cause="bug") == 0
        assert self.read(metrics, "pars_reloads_total", ranker="llama", outcome="refused") == 1
        assert self.read(metrics, "pars_waiting_prompts", ranker="llama") == 6

    def test_health_is_asked_for_when_it_is_read(self, metrics: Metrics) -> None:
        assert self.read(metrics, "pars_serving") == 0
        health = {"well": True}
        metrics.watch_health(lambda: health["well"])
        assert self.read(metrics, "pars_serving") == 1
        health["well"] = False
        assert self.read(metrics, "pars_serving") == 0

    def test_a_swapped_bundle_leaves_no_series_behind(self, metrics: Metrics) -> None:
        metrics.serving("llama", "1" * 16, "model-a", "CPUExecutionProvider")
        metrics.serving("default", "2" * 16, "model-b", "CPUExecutionProvider")
        metrics.serving("llama", "3" * 16, "model-c", "CUDAExecutionProvider")
        family = next(each for each in metrics.registry.collect() if each.name == "pars_bundle_info")
        assert sorted((each.labels["ranker"], each.labels["bundle_id"]) for each in family.samples) == [
            ("default", "2" * 16),
            ("llama", "3" * 16),
        ]

    def test_no_name_of_a_stranger_becomes_a_label(self, metrics: Metrics) -> None:
        for stranger in range(100):
            metrics.scored(f"ranker-{stranger}", "encoder", "encoder", 1, 0.0)
            metrics.batch_ran(f"ranker-{stranger}", 1, 1, 1, 0.0, True)
        rankers = {each.labels.get("ranker") for family in metrics.registry.collect() for each in family.samples}
        assert rankers == {None, "", "default", "llama"}
        assert self.read(metrics, "pars_answers_total", ranker="", tier="encoder", reason="encoder") == 100

    def test_the_global_registry_stays_as_it_is(self, metrics: Metrics) -> None:
        known = {family.name for family in metrics.registry.collect()}
        assert not {name for name in known if name.startswith(("pars_", "grpc_"))} & {
            family.name for family in prometheus_client.REGISTRY.collect()
        }


class TestPage:
    def test_it_keeps_promtools_rules(self, metrics: Metrics, served_metrics: MetricsServer) -> None:
        metrics.calls.watch("pars.v1.RankerService", "Score", "unary")
        metrics.serving("default", "1" * 16, "model-a", "CPUExecutionProvider")
        page = page_of(served_metrics.address)
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.M))
        helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.M))
        assert kinds.keys() == helps.keys()
        for name, kind in kinds.items():
            assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
            assert name.endswith("_total") == (kind == "counter"), name
            assert not name.endswith(("_count", "_sum", "_bucket", "_created", "_ms", "_milliseconds")), name
        ours = {name for name in kinds if name.startswith(("pars_", "grpc_"))}
        assert {name for name in ours if not name.endswith(UNITS)} == {"pars_serving"}
        assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total", "python_info"} <= kinds.keys()
        assert "python_gc_collections_total" in kinds

    def test_every_series_is_there_before_its_first_event(self, metrics: Metrics, served_metrics: MetricsServer) -> None:
        metrics.calls.watch("pars.v1.RankerService", "Score", "unary")
        series = series_of(page_of(served_metrics.address))
        codes = {labels["grpc_code"] for labels in label_sets(series, "grpc_server_handled_total")}
        assert len(codes) == len(grpc.StatusCode)
        assert {"OK", "Canceled", "DeadlineExceeded", "Unknown"} <= codes
        assert value(series, "grpc_server_handled_total", **RPC, grpc_code="Internal") == 0
        assert value(series, "pars_answers_total", ranker="llama", tier="ngram", reason="overload") == 0

    def test_a_call_is_counted_and_timed(self, metrics: Metrics, served_metrics: MetricsServer) -> None:
        begin = metrics.calls.watch("pars.v1.RankerService", "Score", "unary")
        end = begin(None)
        begin(None)
        end(grpc.StatusCode.DEADLINE_EXCEEDED, None)
        series = series_of(page_of(served_metrics.address))
        assert value(series, "grpc_server_started_total", **RPC) == 2
        assert value(series, "grpc_server_handled_total", **RPC, grpc_code="DeadlineExceeded") == 1
        assert value(series, "grpc_server_handled_total", **RPC, grpc_code="OK") == 0
        assert value(series, "grpc_server_handling_seconds_count", **RPC) == 1


def http(address: str, request: bytes) -> bytes:
    """What is answered to these bytes until the server hangs up."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as connection:
        connection.sendall(request)
        return until_hung_up(connection)


def until_hung_up(connection: socket.socket) -> bytes:
    answer = b""
    try:
        while part := connection.recv(65_536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


class TestStrangers:
    @pytest.mark.parametrize(
        ("request_line", "status"),
        [
            (b"GET /metrics HTTP/1.1", b"200 OK"),
            (b"GET /metrics?name=x HTTP/1.0", b"200 OK"),
            (b"GET / HTTP/1.1", b"404 Not Found"),
            (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed"),
            (b"\xff\x00 junk", b"404 Not Found"),
        ],
        ids=["the page", "a query is let pass", "another path", "another method", "junk"],
    )
    def test_each_request_has_one_answer(self, served_metrics: MetricsServer, request_line: bytes, status: bytes) -> None:
        answer = http(served_metrics.address, request_line + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert int(re.findall(rb"Content-Length: (\d+)", head)[0]) == len(body)

    def test_who_sends_too_much_is_hung_up_on(self, served_metrics: MetricsServer) -> None:
        assert http(served_metrics.address, b"GET /" + b"a" * (4 * MAX_HEAD_BYTES)) == b""
        assert page_of(served_metrics.address)

    def test_who_sends_nothing_is_hung_up_on(self, monkeypatch: pytest.MonkeyPatch, served_metrics: MetricsServer) -> None:
        monkeypatch.setattr(metrics_server, "CONNECTION_S", 0.1)
        assert http(served_metrics.address, b"GET /metrics HTTP/1.1\r\n") == b""

    def test_idle_connections_are_served_a_few_at_a_time_and_hold_nobody_up_for_ever(
        self, monkeypatch: pytest.MonkeyPatch, served_metrics: MetricsServer
    ) -> None:
        monkeypatch.setattr(metrics_server, "CONNECTION_S", 0.1)
        host, _, port = served_metrics.address.rpartition(":")
        idle = [socket.create_connection((host, int(port)), timeout=WAIT_S) for _ in range(2 * THREADS)]
        assert page_of(served_metrics.address)
        for connection in idle:
            assert until_hung_up(connection) == b""
            connection.close()

    def test_an_idle_connection_does_not_stand_in_the_way(
        self, monkeypatch: pytest.MonkeyPatch, served_metrics: MetricsServer
    ) -> None:
        monkeypatch.setattr(metrics_server, "CONNECTION_S", WAIT_S)
        host, _, port = served_metrics.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as idle:
            assert page_of(served_metrics.address)
            idle.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert until_hung_up(idle).startswith(b"HTTP/1.1 200 OK")

    def test_a_collector_that_raises_does_not_end_the_server(self, metrics: Metrics, served_metrics: MetricsServer) -> None:
        metrics.watch_health(lambda: 1 // 0 == 0)
        for _ in range(2 * THREADS):
            assert http(served_metrics.address, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        metrics.watch_health(lambda: True)
        assert value(series_of(page_of(served_metrics.address)), "pars_serving") == 1

    def test_closing_hangs_up_and_frees_the_port(self, metrics: Metrics) -> None:
        first = MetricsServer(metrics.registry, "127.0.0.1:0")
        host, _, port = first.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as idle:
            idle.sendall(b"GET")
            first.close()
            assert until_hung_up(idle) == b""
        again = MetricsServer(metrics.registry, first.address)
        assert page_of(again.address)
        again.close()

    def test_a_busy_port_is_said_in_one_line(self, served_metrics: MetricsServer, metrics: Metrics) -> None:
        with pytest.raises(AddressError, match=rf"^cannot serve metrics on {served_metrics.address}: Address already in use$"):
            MetricsServer(metrics.registry, served_metrics.address)

    def test_an_address_of_nobody(self, metrics: Metrics) -> None:
        with pytest.raises(StartError, match="cannot serve metrics on 192\\.0\\.2\\.1:0"):
            MetricsServer(metrics.registry, "192.0.2.1:0")


@pytest.mark.parametrize("address", ["unix:/run/metrics.sock", "9151", "localhost:", "localhost:65536"])
def test_an_address_that_prometheus_could_not_read(address: str) -> None:
    with pytest.raises(SettingsError, match="address"):
        Settings(bundle="b", metrics_address=address).validate()
    Settings(bundle="b", metrics_address="0.0.0.0:9151").validate()


async def test_a_stranger_is_counted_and_no_handler_runs(served: Served, metrics: Metrics, tmp_path: Path) -> None:
    token_file = tmp_path / "tokens"
    token_file.write_text("sesame")
    token_file.chmod(0o600)
    server = Server(
        served.engine,
        served.health,
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_stream_items=4,
        access=Access(tokens=Tokens(token_file)),
        seen_by=Telemetry(metrics, (metrics.calls.watch,)),
    )
    async with grpc.aio.insecure_channel(await server.start("127.0.0.1:0")) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        code, _ = await status_of(stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S))
    await server._server.stop(None)  # the engine is the other server's, which stops it
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert metrics.registry.get_sample_value("pars_rejections_total", {"cause": "unauthenticated"}) == 1
    assert metrics.registry.get_sample_value("grpc_server_started_total", RPC) == 0


def test_off_means_that_nothing_is_imported() -> None:
    """A fresh interpreter: neither library is loaded, and nobody watches the RPCs."""
    program = (
        "import sys, sidecar.__main__\n"
        "from sidecar.telemetry.telemetry import Telemetry, telemetry\n"
        "with telemetry(metrics_address='', tracing=False, rankers=['default']) as seen_by:\n"
        "    assert seen_by.watchers == () and type(seen_by.observer).__name__ == 'Observer'\n"
        "sys.exit(any(name.partition('.')[0] in ('prometheus_client', 'opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=REPOSITORY, timeout=WAIT_S * 3).returncode == 0


def test_telemetry_closes_what_it_opened() -> None:
    with telemetry(metrics_address="127.0.0.1:0", tracing=False, rankers=["default"]) as seen_by:
        assert isinstance(seen_by.observer, Metrics)
    with telemetry(metrics_address="127.0.0.1:0", tracing=False, rankers=["default"]):
        pass


def scrape(address: str) -> Series:
    return series_of(page_of(address))


def test_a_real_sidecar_is_scraped(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    """1. serves its page before the first call 2. counts calls of every service by status 3. says which bundle answers 4. forgets
    the old bundle after a swap 5. shows no prompt 6. writes nothing where another server's processes meet 7. frees its port."""
    folder, shared = tmp_path / "current", tmp_path / "shared"
    shared.mkdir()
    make_bundle(tmp_path / "first")
    folder.symlink_to("first")
    sidecar = start_sidecar(
        folder, *("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"), PROMETHEUS_MULTIPROC_DIR=str(shared)
    )
    metrics_address = sidecar.wait_for(r"metrics address=(\S+) path=/metrics").group(1)
    address = sidecar.serving()
    before = scrape(metrics_address)
    assert value(before, "pars_serving") == 1
    assert value(before, "pars_infer_seconds_count", ranker="default") == 0
    assert {tuple(labels[each] for each in RPC) for labels in label_sets(before, "grpc_server_started_total")} >= {
        ("unary", "pars.v1.RankerService", "Score"),
        ("bidi_stream", "pars.v1.RankerService", "ScoreStream"),
        ("unary", "pars.v1.RankerService", "Compare"),
        ("unary", "pars.v1.RankerService", "GetBundle"),
        ("unary", "grpc.health.v1.Health", "Check"),
        ("server_stream", "grpc.health.v1.Health", "Watch"),
        ("bidi_stream", "grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"),
    }
    with grpc.insecure_channel(address) as channel:
        ranker = ranker_pb2_grpc.RankerServiceStub(channel)
        ranker.Score(ranker_pb2.ScoreRequest(prompts=["long", "very long", "writesecret"]), timeout=WAIT_S)
        ranker.Score(ranker_pb2.ScoreRequest(prompts=["short"], tier=ranker_pb2.TIER_NGRAM), timeout=WAIT_S)
        with pytest.raises(grpc.RpcError):
            ranker.Score(ranker_pb2.ScoreRequest(ranker="writesecret", prompts=["long"]), timeout=WAIT_S)
        list(ranker.ScoreStream(iter([ranker_pb2.ScoreStreamRequest(request={"prompts": ["long"]})]), timeout=WAIT_S))
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    page = page_of(metrics_address)
    series = series_of(page)
    assert value(series, "grpc_server_handled_total", **RPC, grpc_code="OK") == 2
    assert value(series, "grpc_server_handled_total", **RPC, grpc_code="InvalidArgument") == 1
    stream = RPC | {"grpc_type": "bidi_stream", "grpc_method": "ScoreStream"}
    assert value(series, "grpc_server_handled_total", **stream, grpc_code="OK") == 1
    health = {"grpc_type": "unary", "grpc_service": "grpc.health.v1.Health", "grpc_method": "Check"}
    assert value(series, "grpc_server_handled_total", **health, grpc_code="OK") == 1
    assert value(series, "pars_answers_total", ranker="default", tier="encoder", reason="encoder") == 2
    assert value(series, "pars_answers_total", ranker="default", tier="ngram", reason="asked") == 1
    assert value(series, "pars_rejections_total", cause="invalid") == 1
    assert value(series, "pars_batch_prompts_sum", ranker="default") == 4
    assert value(series, "pars_queue_seconds_count", ranker="default") == 2
    assert (
        value(series, "pars_padded_tokens_total", ranker="default")
        >= value(series, "pars_real_tokens_total", ranker="default")
        > 0
    )
    assert value(series, "pars_waiting_prompts", ranker="default") == 0
    assert "writesecret" not in page

    make_bundle(tmp_path / "second", name="another")
    old = label_sets(series, "pars_bundle_info")
    (tmp_path / "next").symlink_to("second")
    (tmp_path / "next").replace(folder)
    sidecar.signal(signal.SIGHUP)
    sidecar.wait_for("swapped ranker=default")
    give_up = time.monotonic() + WAIT_S
    while not value(swapped := scrape(metrics_address), "pars_reloads_total", ranker="default", outcome="swapped"):
        assert time.monotonic() < give_up, "the log tells of a swap and the metrics do not"
    new = label_sets(swapped, "pars_bundle_info")
    assert [len(old), len(new)] == [1, 1]
    assert old[0]["bundle_id"] != new[0]["bundle_id"]
    assert [new[0]["ranker"], new[0]["model_name"]] == ["default", "another"]

    assert not list(shared.iterdir())
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    host, _, port = metrics_address.rpartition(":")
    with socket.socket() as listener:
        assert listener.connect_ex((host, int(port))) != 0


def test_a_busy_metrics_port_stops_the_start(start_sidecar: StartSidecar, tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        sidecar = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0", "--metrics-address", address)
        assert sidecar.exit_code() == 1
    assert sidecar.lines == [f"sidecar cannot start: cannot serve metrics on {address}: Address already in use"]
