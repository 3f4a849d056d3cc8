"""Bearer tokens: what is open, what is closed, rotation, and that no token shows anywhere."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, put
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sidecar_rig import WAIT_S
from sidecar_secured import plain_channel, score_status, secured, tls_access, tls_channel
from sidecar_served import SERVICE, Served, status_of

from pars.v1 import ranker_pb2, ranker_pb2_grpc
from sidecar.access.access import Access
from sidecar.access.auth import LOOK_INTERVAL_S, Tokens
from sidecar.errors import CredentialsError, SettingsError
from sidecar.observer import Observer, RejectionCause
from sidecar.settings import Settings
from sidecar.telemetry.telemetry import Telemetry

Code = grpc.StatusCode
TOKEN = "8f14e45fceea167a"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return put(tmp_path / "token", TOKEN + "\n")


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ([], Code.UNAUTHENTICATED),
        (bearer(TOKEN), Code.OK),
        ([("authorization", f"bearer  {TOKEN} ")], Code.OK),
        (bearer(TOKEN[:-1]), Code.UNAUTHENTICATED),
        (bearer(TOKEN + "x"), Code.UNAUTHENTICATED),
        (bearer(TOKEN.upper()), Code.UNAUTHENTICATED),
        (bearer(""), Code.UNAUTHENTICATED),
        ([("authorization", TOKEN)], Code.UNAUTHENTICATED),
        ([("authorization", f"Basic {TOKEN}")], Code.UNAUTHENTICATED),
        ([*bearer(TOKEN), *bearer("other")], Code.UNAUTHENTICATED),
        ([*bearer("other"), *bearer(TOKEN)], Code.UNAUTHENTICATED),
        ([("x-authorization", f"Bearer {TOKEN}")], Code.UNAUTHENTICATED),
    ],
    ids=[
        "none",
        "the right one",
        "the right one in sloppy form",
        "a part of it",
        "more than it",
        "in capitals",
        "an empty one",
        "without its scheme",
        "with another scheme",
        "a wrong one behind it",
        "a wrong one before it",
        "under another name",
    ],
)
async def test_only_the_right_token_opens_the_door(
    served: Served, token_file: Path, metadata: Sequence[tuple[str, str]], code: grpc.StatusCode
) -> None:
    async with secured(served, Access(tokens=Tokens(token_file))) as address, plain_channel(address) as channel:
        assert (await score_status(channel, metadata=tuple(metadata)))[0] is code


async def test_everything_but_health_is_closed(served: Served, token_file: Path) -> None:
    async with secured(served, Access(tokens=Tokens(token_file))) as address, plain_channel(address) as channel:
        stub, any_method = ranker_pb2_grpc.RankerServiceStub(channel), channel.unary_unary("/other.Service/Method")
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([listing]))
        calls = {
            "Score": stub.Score(ranker_pb2.ScoreRequest(prompts=["long"]), timeout=WAIT_S),
            "Compare": stub.Compare(ranker_pb2.CompareRequest(), timeout=WAIT_S),
            "GetBundle": stub.GetBundle(ranker_pb2.GetBundleRequest(), timeout=WAIT_S),
            "ScoreStream": stub.ScoreStream(iter([ranker_pb2.ScoreStreamRequest()]), timeout=WAIT_S).read(),
            "reflection": reflection.read(),
            "a method that nobody has": any_method(b"", timeout=WAIT_S),
        }
        refused = (Code.UNAUTHENTICATED, "a bearer token is wanted")
        assert {name: await status_of(call) for name, call in calls.items()} == dict.fromkeys(calls, refused)
        health = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_with_the_token_everything_is_open(served: Served, token_file: Path) -> None:
    async with secured(served, Access(tokens=Tokens(token_file))) as address, plain_channel(address) as channel:
        stub, metadata = ranker_pb2_grpc.RankerServiceStub(channel), tuple(bearer(TOKEN))
        assert (await stub.GetBundle(ranker_pb2.GetBundleRequest(), metadata=metadata, timeout=WAIT_S)).manifest.bundle_id
        stream = stub.ScoreStream(metadata=metadata, timeout=WAIT_S)
        await stream.write(ranker_pb2.ScoreStreamRequest(id=7, request=ranker_pb2.ScoreRequest(prompts=["long"])))
        assert (await stream.read()).id == 7
        stream.cancel()
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(metadata=metadata, timeout=WAIT_S)
        await info.write(listing)
        assert (await info.read()).list_services_response.service
        info.cancel()


async def test_a_stranger_is_refused_before_the_message_is_parsed(served: Served, token_file: Path) -> None:
    async with secured(served, Access(tokens=Tokens(token_file))) as address, plain_channel(address) as channel:
        score: Any = channel.unary_unary(SERVICE + "Score")
        rubbish = b"\xff\xff"
        code, _ = await status_of(score(rubbish, timeout=WAIT_S))
        assert code is Code.UNAUTHENTICATED
        # The message is really one that cannot be parsed: with the token that is what the caller is told.
        code, _ = await status_of(score(rubbish, timeout=WAIT_S, metadata=tuple(bearer(TOKEN))))
        assert code is not Code.UNAUTHENTICATED
        assert code is not Code.OK


async def test_a_stranger_is_refused_before_the_message_is_there(served: Served, token_file: Path) -> None:
    async with secured(served, Access(tokens=Tokens(token_file))) as address, plain_channel(address) as channel:
        # A unary method called as a stream whose one message never comes.
        call: Any = channel.stream_unary(SERVICE + "Score")(timeout=WAIT_S)
        assert (await status_of(call))[0] is Code.UNAUTHENTICATED


async def test_tokens_are_rotated_without_a_restart(served: Served, token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    clock = Clock()
    old, new = TOKEN, "c9f0f895fb98ab91"

    async def codes() -> list[grpc.StatusCode]:
        return [(await score_status(channel, token))[0] for token in (old, new)]

    access = Access(tokens=Tokens(token_file, clock=clock))
    async with secured(served, access) as address, plain_channel(address) as channel:
        assert await codes() == [Code.OK, Code.UNAUTHENTICATED]
        put(token_file, f"{new}\n\n {old} \n")
        assert await codes() == [Code.OK, Code.UNAUTHENTICATED], "looked at more than once a second"
        clock.now_s += LOOK_INTERVAL_S
        assert await codes() == [Code.OK, Code.OK]
        put(token_file, new)
        clock.now_s += LOOK_INTERVAL_S
        assert await codes() == [Code.UNAUTHENTICATED, Code.OK]
        for broken in (b"\n \n", b"two words", b"\xff"):
            put(token_file, broken)
            for _ in range(2):
                clock.now_s += LOOK_INTERVAL_S
                assert await codes() == [Code.UNAUTHENTICATED, Code.OK]
        token_file.unlink()  # noqa: ASYNC240
        clock.now_s += LOOK_INTERVAL_S
        assert await codes() == [Code.UNAUTHENTICATED, Code.OK]
        put(token_file, old)
        clock.now_s += LOOK_INTERVAL_S
        assert await codes() == [Code.OK, Code.UNAUTHENTICATED]
    told = [record.levelname for record in caplog.records if record.name == "sidecar.access.reread"]
    # Two words and bytes that are no text are one problem, so told once.
    assert told == ["INFO", "INFO", "ERROR", "ERROR", "ERROR", "INFO"]
    for token in (old, new, "two words"):
        assert token not in caplog.text


def test_the_same_length_written_in_place_in_the_same_moment_is_noticed(token_file: Path) -> None:
    clock = Clock()
    tokens = Tokens(token_file, clock=clock)
    other = TOKEN[::-1]
    with token_file.open("r+") as file:  # Same file, same size, and most likely the same time of change.
        file.write(other)
    clock.now_s += LOOK_INTERVAL_S
    assert tokens.objection(bearer(other)) == ""
    assert tokens.objection(bearer(TOKEN)) != ""


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("", 0o600, "it holds no token"),
        ("\n \n", 0o600, "it holds no token"),
        ("Bearer abc\n", 0o600, "token 1 has other than visible ASCII"),
        ("good\nschlüssel\n", 0o600, "token 2 has other than visible ASCII"),
        ("x" * 4_097, 0o600, "more than 4096 characters"),
        ("good\n", 0o644, "everybody on this machine can read it"),
    ],
    ids=["empty", "blank", "with its scheme", "not ASCII", "too long", "for everybody to read"],
)
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: str, mode: int, message: str) -> None:
    path = put(tmp_path / "token", content, mode)
    with pytest.raises(CredentialsError, match=message) as caught:
        Tokens(path)
    assert all(line not in str(caught.value) for line in content.split())


def test_what_is_not_a_file_stops_the_start(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "No such file"), (tmp_path, "this is not a file|Is a directory")):
        with pytest.raises(CredentialsError, match=message):
            Tokens(path)


def test_the_group_may_read_it(tmp_path: Path) -> None:
    assert Tokens(put(tmp_path / "token", TOKEN, 0o440)).objection(bearer(TOKEN)) == ""


async def test_token_and_certificate_are_both_wanted_where_both_are_set(
    served: Served, token_file: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "ca")
    client = authority.issue("client")
    access = tls_access(authority.issue("server"), authority.cert, tokens=Tokens(token_file))
    async with secured(served, access) as address:
        async with tls_channel(address, authority.cert, client) as channel:
            assert (await score_status(channel, TOKEN))[0] is Code.OK
            assert (await score_status(channel))[0] is Code.UNAUTHENTICATED
        async with tls_channel(address, authority.cert) as channel:
            assert (await score_status(channel, TOKEN))[0] is Code.UNAVAILABLE


class Seen(Observer):
    def __init__(self) -> None:
        self.rejections: list[RejectionCause] = []

    def rejected(self, cause: RejectionCause) -> None:
        self.rejections.append(cause)


async def test_refused_calls_are_counted_and_health_is_not(served: Served, token_file: Path) -> None:
    seen = Seen()
    access, telemetry = Access(tokens=Tokens(token_file)), Telemetry(observer=seen)
    async with secured(served, access, telemetry=telemetry) as address, plain_channel(address) as channel:
        await score_status(channel)
        await score_status(channel, "wrong")
        assert (await score_status(channel, TOKEN))[0] is Code.OK
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
    assert seen.rejections == ["unauthenticated"] * 2


@pytest.mark.parametrize("insecure", [False, True])
def test_a_token_never_crosses_a_network_in_the_clear(insecure: bool) -> None:
    wide = Settings(bundle="b", address="0.0.0.0:50151", token_file="t", insecure=insecure)
    with pytest.raises(SettingsError, match="without TLS everybody on the way could read the tokens of token_file"):
        wide.validate()
    for address in ("127.0.0.1:50151", "[::1]:50151", "localhost:50151", "unix:/run/pars.sock"):
        Settings(bundle="b", address=address, token_file="t", insecure=insecure).validate()
    Settings(bundle="b", address="0.0.0.0:50151", token_file="t", tls_cert="c", tls_key="k").validate()
