"""The sidecar as a process: started, called over TCP and unix sockets, stopped with real signals."""

import asyncio
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sidecar_process import REPOSITORY, START_S, StartSidecar
from sidecar_rig import WAIT_S
from sidecar_tiny import expected_score, make_bundle, make_slow_graph, read_manifest, write_manifest

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.__main__ import serve
from sidecar.access.access import Access
from sidecar.errors import ServerEndedError
from sidecar.loading import load_ranker
from sidecar.server import Server
from sidecar.settings import Settings
from sidecar.telemetry.telemetry import Telemetry


def score(address: str, *prompts: str) -> list[float]:
    with grpc.insecure_channel(address) as channel:
        request = ranker_pb2.ScoreRequest(prompts=prompts)
        reply = ranker_pb2_grpc.RankerServiceStub(channel).Score(request, timeout=WAIT_S)
    return [answer.score for answer in reply.scores]


def can_listen(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return listener.connect_ex((host, int(port))) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_life_over_tcp(start_sidecar: StartSidecar, tiny_bundle: Path, number: signal.Signals) -> None:
    """1. starts on a free port and says which 2. is SERVING 3. scores 4. stops on the signal with code 0 5. frees the port."""
    sidecar = start_sidecar(tiny_bundle, PARS_SIDECAR_ADDRESS="127.0.0.1:0")
    address = sidecar.serving()
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert score(address, "long", "short") == [2.0, -1.0]
    sidecar.signal(number)
    assert sidecar.exit_code() == 0
    assert can_listen(address)
    assert [line.split(": ", 1)[1] for line in sidecar.lines[2:]] == [f"{number.name}: stopping", "stopped"]


def test_a_life_over_a_unix_socket(start_sidecar: StartSidecar, tiny_bundle: Path, tmp_path: Path) -> None:
    """1. starts on a socket 2. is killed and leaves it behind 3. starts again on the same path 4. refuses a second one there
    5. stops and leaves no socket."""
    path = tmp_path / "pars.sock"
    address = f"unix:{path}"
    killed = start_sidecar(tiny_bundle, "--address", address)
    assert killed.serving() == address
    killed.close()
    assert stat.S_ISSOCK(path.stat().st_mode)
    sidecar = start_sidecar(tiny_bundle, "--address", address)
    sidecar.serving()
    second = start_sidecar(tiny_bundle, "--address", address)
    assert second.exit_code() == 1
    assert second.lines[-1:] == [f"sidecar cannot start: {address}: another process listens there"]
    assert score(address, "very") == [0.25]
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    assert not path.exists()


def test_a_busy_port_stops_the_start(start_sidecar: StartSidecar, tiny_bundle: Path) -> None:
    first = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0")
    address = first.serving()
    second = start_sidecar(tiny_bundle, "--address", address)
    assert second.exit_code() == 1
    assert (
        second.lines[-1]
        == f"sidecar cannot start: cannot listen on {address}: it is in use, not allowed or not an address of this host"
    )
    assert score(address, "long") == [2.0]


def test_a_failed_warm_up_stops_the_start_with_one_line(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    manifest = read_manifest(folder)
    manifest["goldenPrompts"][0]["score"] = 7.0
    write_manifest(folder, manifest)
    sidecar = start_sidecar(folder)
    assert sidecar.exit_code() == 1
    assert len(sidecar.lines) == 1
    assert sidecar.lines[0].startswith("sidecar cannot start: golden prompt 0: score is 2.375 here and 7 in the bundle")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-batch-tokens", "8"], "max_batch_tokens 8 is below the 16 tokens"),
        (["--workers", "x"], "--workers is 'x'"),
        (["--provider", "cuda"], "provider cuda was asked for"),
    ],
    ids=["limits that cannot work", "no number", "no GPU"],
)
def test_what_cannot_work_stops_the_start_with_one_line(
    start_sidecar: StartSidecar, tiny_bundle: Path, arguments: list[str], message: str
) -> None:
    sidecar = start_sidecar(tiny_bundle, *arguments)
    assert sidecar.exit_code() == 1
    assert len(sidecar.lines) == 1
    assert sidecar.lines[0].startswith(f"sidecar cannot start: {message}")


def test_a_stop_answers_every_admitted_call_of_a_full_queue(start_sidecar: StartSidecar, tiny_bundle: Path) -> None:
    """1. sixty-four callers call without pause 2. SIGTERM comes 3. every call is answered: scored, or UNAVAILABLE."""
    sidecar = start_sidecar(tiny_bundle, "--address", "127.0.0.1:0")
    address = sidecar.serving()
    outcomes: queue.Queue[grpc.StatusCode] = queue.Queue()

    def caller() -> None:
        with grpc.insecure_channel(address) as channel:
            stub = ranker_pb2_grpc.RankerServiceStub(channel)
            while True:
                try:
                    reply = stub.Score(ranker_pb2.ScoreRequest(prompts=["long short"] * 32), timeout=WAIT_S)
                    assert [answer.score for answer in reply.scores] == [1.0] * 32
                    outcomes.put(grpc.StatusCode.OK)
                except grpc.RpcError as error:
                    outcomes.put(error.code())
                    return

    callers = [threading.Thread(target=caller) for _ in range(64)]
    for thread in callers:
        thread.start()
    for _ in range(100):
        assert outcomes.get(timeout=WAIT_S) is grpc.StatusCode.OK
    sidecar.signal(signal.SIGTERM)
    for thread in callers:
        thread.join(timeout=WAIT_S * 2)
        assert not thread.is_alive()
    ended = [outcomes.get_nowait() for _ in range(outcomes.qsize())]
    assert set(ended) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert ended.count(grpc.StatusCode.UNAVAILABLE) == 64
    assert sidecar.exit_code() == 0


@pytest.mark.parametrize(
    ("grace_s", "signals", "said"),
    [("60", 2, "SIGTERM again: stopping at once"), ("0.1", 1, "the grace is over; the callers still waiting get UNAVAILABLE")],
    ids=["a second signal", "the end of the grace"],
)
def test_a_stop_is_cut_short(start_sidecar: StartSidecar, tmp_path: Path, grace_s: str, signals: int, said: str) -> None:
    """1. forty slow calls wait for one worker, far longer than anybody wants to 2. the stop begins 3. it is cut short
    4. every caller is told UNAVAILABLE 5. the exit code is 0 all the same."""
    bundle = make_bundle(tmp_path / "bundle", graph=make_slow_graph)
    sidecar = start_sidecar(bundle, "--address=127.0.0.1:0", "--workers=1", "--max-batch-prompts=1", f"--grace-s={grace_s}")
    address = sidecar.serving()
    with grpc.insecure_channel(address) as channel:
        stub = ranker_pb2_grpc.RankerServiceStub(channel)
        first = stub.Score(ranker_pb2.ScoreRequest(prompts=["short"]), timeout=START_S)
        assert first.scores[0].score == -1.0
        calls = [stub.Score.future(ranker_pb2.ScoreRequest(prompts=["short"]), timeout=START_S) for _ in range(40)]
        calls[0].result(timeout=START_S)  # the queue has formed and moves
        for _ in range(signals):
            sidecar.signal(signal.SIGTERM)
            sidecar.wait_for("SIGTERM: stopping|SIGTERM again")
        codes = [call.code() for call in calls]  # waits for each
    assert codes.count(grpc.StatusCode.UNAVAILABLE) >= 30
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert sidecar.exit_code() == 0
    assert any(line.endswith(said) for line in sidecar.lines)


def test_serving_loads_no_training_library(tiny_bundle: Path) -> None:
    code = "import sys, sidecar.__main__; print([m for m in ('torch', 'transformers', 'optimum', 'onnx') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=START_S, check=True
    )
    assert done.stdout.strip() == "[]"


async def test_the_process_ends_when_its_server_does(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a port would be found by nobody: whoever watches it starts another when it ends."""
    started: asyncio.Queue[Server] = asyncio.Queue()
    start = Server.start

    async def noted(server: Server, address: str) -> str:
        real = await start(server, address)
        started.put_nowait(server)
        return real

    monkeypatch.setattr(Server, "start", noted)
    settings = Settings(bundle=str(tiny_bundle), address="127.0.0.1:0", provider="cpu")
    loaded = {"default": load_ranker(tiny_bundle, settings)}
    serving = asyncio.create_task(serve(settings, Access.open(settings), loaded, Telemetry()))
    server = await asyncio.wait_for(started.get(), WAIT_S)
    await server._server.stop(None)  # what gRPC does to itself when its loop fails
    with pytest.raises(ServerEndedError):
        await asyncio.wait_for(serving, WAIT_S)
    assert loaded == {}, "nobody else holds a model that may be replaced"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 0)], ids=["SIGTERM", "SIGHUP"])
def test_signals_before_it_serves(start_sidecar: StartSidecar, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """SIGTERM ends it, also where it is the first process of a container; SIGHUP does no harm."""
    slow = make_bundle(tmp_path / "slow", graph=make_slow_graph, with_ngram=False)
    manifest = read_manifest(slow)
    manifest["goldenPrompts"] = [{"prompt": "short", "score": expected_score("short")}] * 20  # 0.1 s each
    write_manifest(slow, manifest)
    sidecar = start_sidecar(slow, "--address", "127.0.0.1:0", "--log-level", "debug")
    sidecar.wait_for("loading")
    sidecar.signal(number)
    if number is signal.SIGHUP:
        sidecar.serving()
        sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == code
