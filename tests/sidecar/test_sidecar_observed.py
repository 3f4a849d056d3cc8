"""Watched RPCs over a real server: each call is told of once when it begins and once when it ends, with the status it ended with."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sidecar_rig import WAIT_S
from sidecar_served import MAX_MESSAGE_BYTES, Served, status_of

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.observer import Observer
from sidecar.server import Server
from sidecar.telemetry.observed import CallBegin, CallEnd, CallKind, WatchedRegistrar
from sidecar.telemetry.telemetry import Telemetry

S = grpc.StatusCode


class Recorder:
    """A watcher. began: (service, method, kind) as they begin; ended: with status and reply."""

    def __init__(self) -> None:
        self.began: list[tuple[str, str, str]] = []
        self._ended: asyncio.Queue[tuple[str, grpc.StatusCode, object]] = asyncio.Queue()

    def watch(self, service: str, method: str, kind: CallKind) -> CallBegin:
        def begin(_context: Any) -> CallEnd:
            self.began.append((service, method, kind))
            return lambda code, reply: self._ended.put_nowait((method, code, reply))

        return begin

    async def ended(self) -> tuple[str, grpc.StatusCode, object]:
        return await asyncio.wait_for(self._ended.get(), WAIT_S)

    def assert_nothing_more(self) -> None:
        assert self._ended.empty()


class Behaviours:
    """RPCs that end in every way there is."""

    def __init__(self) -> None:
        self.running = asyncio.Event()

    async def ok(self, request: bytes, context: Any) -> bytes:
        return request

    async def aborts(self, request: bytes, context: Any) -> bytes:
        await context.abort(S.RESOURCE_EXHAUSTED, "full")
        raise AssertionError("abort returned")

    async def sets_a_code(self, request: bytes, context: Any) -> bytes:
        context.set_code(S.DATA_LOSS)
        return b""

    async def raises(self, request: bytes, context: Any) -> bytes:
        raise ValueError("a bug")

    async def sets_a_code_and_raises(self, request: bytes, context: Any) -> bytes:
        context.set_code(S.FAILED_PRECONDITION)
        raise ValueError("a bug")

    async def hangs(self, request: bytes, context: Any) -> bytes:
        self.running.set()
        await asyncio.Event().wait()
        return b""

    def blocks_in_a_stub(self, request: bytes, context: Any) -> bytes:
        context.set_code(S.UNIMPLEMENTED)
        raise NotImplementedError


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def behaviours() -> Behaviours:
    return Behaviours()


@pytest_asyncio.fixture
async def channel(recorder: Recorder, behaviours: Behaviours) -> AsyncIterator[grpc.aio.Channel]:
    """To a server with the behaviours as unary RPCs of service `test`, and as streams of one reply of service `streams`."""
    names = [name for name in vars(Behaviours) if not name.startswith("_")]

    def streamed(behaviour: Callable[[bytes, Any], Any]) -> Callable[[Any, Any], AsyncIterator[bytes]]:
        async def stream(requests: Any, context: Any) -> AsyncIterator[bytes]:
            yield await behaviour(b"".join([part async for part in requests]), context)

        return stream

    unary = {name: grpc.unary_unary_rpc_method_handler(getattr(behaviours, name)) for name in names}
    streams = {name: grpc.stream_stream_rpc_method_handler(streamed(getattr(behaviours, name))) for name in names[:-1]}
    server = grpc.aio.server()
    registrar = WatchedRegistrar(server, [recorder.watch])
    registrar.add_registered_method_handlers("test", unary)
    registrar.add_registered_method_handlers("streams", streams)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


ENDINGS = {
    "ok": S.OK,
    "aborts": S.RESOURCE_EXHAUSTED,
    "sets_a_code": S.DATA_LOSS,
    "raises": S.UNKNOWN,
    "sets_a_code_and_raises": S.FAILED_PRECONDITION,
}


@pytest.mark.parametrize("method", [*ENDINGS, "blocks_in_a_stub"])
async def test_a_unary_call_ends_with_the_status_its_caller_sees(
    channel: grpc.aio.Channel, recorder: Recorder, method: str
) -> None:
    call: Any = channel.unary_unary(f"/test/{method}")
    code, _ = await status_of(call(b"x", timeout=WAIT_S))
    assert code is ENDINGS.get(method, S.UNIMPLEMENTED)
    assert recorder.began == [("test", method, "unary")]
    assert await recorder.ended() == (method, code, b"x" if code is S.OK else b"" if method == "sets_a_code" else None)
    recorder.assert_nothing_more()


@pytest.mark.parametrize("method", ENDINGS)
async def test_a_stream_ends_with_the_status_its_caller_sees(
    channel: grpc.aio.Channel, recorder: Recorder, method: str
) -> None:
    call: Any = channel.stream_stream(f"/streams/{method}")
    stream = call(iter([b"x"]), timeout=WAIT_S)

    async def read_all() -> list[bytes]:
        return [part async for part in stream]

    code, _ = await status_of(read_all())
    assert code is ENDINGS[method]
    assert recorder.began == [("streams", method, "bidi_stream")]
    assert await recorder.ended() == (method, code, None)
    recorder.assert_nothing_more()


@pytest.mark.parametrize("service", ["test", "streams"], ids=["unary", "stream"])
async def test_a_caller_who_hangs_up(
    channel: grpc.aio.Channel, recorder: Recorder, behaviours: Behaviours, service: str
) -> None:
    call: Any = start_hanging(channel, service, timeout=None)
    await asyncio.wait_for(behaviours.running.wait(), WAIT_S)
    call.cancel()
    assert await recorder.ended() == ("hangs", S.CANCELLED, None)


@pytest.mark.parametrize("service", ["test", "streams"], ids=["unary", "stream"])
async def test_a_caller_whose_time_is_up(channel: grpc.aio.Channel, recorder: Recorder, service: str) -> None:
    call: Any = start_hanging(channel, service, timeout=1.0)
    assert await call.code() is S.DEADLINE_EXCEEDED
    assert await recorder.ended() == ("hangs", S.DEADLINE_EXCEEDED, None)


def start_hanging(channel: grpc.aio.Channel, service: str, timeout: float | None) -> Any:
    if service == "test":
        unary: Any = channel.unary_unary("/test/hangs")
        return unary(b"", timeout=timeout)
    stream: Any = channel.stream_stream("/streams/hangs")
    return stream(iter([b""]), timeout=timeout)


async def test_an_rpc_that_does_not_exist_is_not_watched(channel: grpc.aio.Channel, recorder: Recorder) -> None:
    call: Any = channel.unary_unary("/test/nothing")
    assert (await status_of(call(b"", timeout=WAIT_S)))[0] is S.UNIMPLEMENTED
    assert recorder.began == []


async def test_several_watchers_and_those_who_do_not_care() -> None:
    first, second = Recorder(), Recorder()
    behaviours = Behaviours()
    server = grpc.aio.server()
    registrar = WatchedRegistrar(server, [first.watch, lambda service, method, kind: None, second.watch])
    registrar.add_registered_method_handlers("test", {"ok": grpc.unary_unary_rpc_method_handler(behaviours.ok)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/test/ok")
        await call(b"x", timeout=WAIT_S)
    assert [await first.ended(), await second.ended()] == [("ok", S.OK, b"x")] * 2
    await server.stop(None)


@pytest_asyncio.fixture
async def watched_server(served: Served, recorder: Recorder) -> AsyncIterator[grpc.aio.Channel]:
    """To a second server around the served engine, that is watched."""
    server = Server(
        served.engine,
        served.health,
        max_message_bytes=MAX_MESSAGE_BYTES,
        max_stream_items=4,
        seen_by=Telemetry(Observer(), (recorder.watch,)),
    )
    address = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
    await server._server.stop(None)  # the engine is the other server's, which stops it


async def test_every_service_of_a_sidecar_is_watched(watched_server: grpc.aio.Channel, recorder: Recorder) -> None:
    ranker = ranker_pb2_grpc.RankerServiceStub(watched_server)
    reply = await ranker.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S)
    assert await recorder.ended() == ("Score", S.OK, reply)
    assert (await status_of(ranker.Score(ranker_pb2.ScoreRequest(), timeout=WAIT_S)))[0] is S.INVALID_ARGUMENT
    assert (await recorder.ended())[:2] == ("Score", S.INVALID_ARGUMENT)
    await ranker.Compare(ranker_pb2.CompareRequest(pairs=[{"prompt_a": "a", "prompt_b": "b"}]), timeout=WAIT_S)
    await ranker.GetBundle(ranker_pb2.GetBundleRequest(), timeout=WAIT_S)
    stream = ranker.ScoreStream(iter([ranker_pb2.ScoreStreamRequest(request={"prompts": ["a"]})]), timeout=WAIT_S)
    assert [item.response.bundle_id async for item in stream] == [reply.bundle_id]
    check: Any = watched_server.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    await check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    reflection = reflection_pb2_grpc.ServerReflectionStub(watched_server)
    listed = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=WAIT_S)
    names = [service.name async for reply in listed for service in reply.list_services_response.service]
    assert sorted(names) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "pars.v1.RankerService",
    ]
    ended = [(await recorder.ended())[:2] for _ in range(5)]
    assert ended == [(each, S.OK) for each in ("Compare", "GetBundle", "ScoreStream", "Check", "ServerReflectionInfo")]
    assert {(service, kind) for service, _, kind in recorder.began} == {
        ("pars.v1.RankerService", "unary"),
        ("pars.v1.RankerService", "bidi_stream"),
        ("grpc.health.v1.Health", "unary"),
        ("grpc.reflection.v1alpha.ServerReflection", "bidi_stream"),
    }
    recorder.assert_nothing_more()
