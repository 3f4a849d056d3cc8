"""TLS, tokens and the ranker's name, from every client: blocking, asyncio, stream, terminal, hook."""

import asyncio
import json
import logging
import subprocess
import sys
import time

import grpc
import pytest
from certificates import Authority, put
from scripted_ranker import TIMEOUT_S, ScriptedRanker

from vllm_client import AsyncRankerClient, ClientConfig, CredentialsError, HookSettings, RankerClient, UnavailableError
from vllm_client import credentials as credentials_module
from vllm_client.hook.link import Link
from vllm_client.hook.settings import HookSettingsError

TOKEN, OTHER_TOKEN = "8f14e45fceea167a", "c9f0f895fb98ab91"
PATIENT = {"deadline_ms": 20_000}


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "ca")


@pytest.fixture
def serve():
    """Starts rankers; stops them."""
    started = []

    def start(*arguments, **options):
        started.append(ScriptedRanker(*arguments, **options))
        return started[-1]

    yield start
    for ranker in started:
        ranker.stop()


def server_tls(authority, *, client_ca=None):
    pair = authority.issue("server")
    return grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())],
        None if client_ca is None else client_ca.read_bytes(),
        require_client_auth=client_ca is not None,
    )


def tls(authority, pair=None):
    files = {"tls_ca": str(authority.cert)}
    return files if pair is None else files | {"tls_cert": str(pair.cert), "tls_key": str(pair.key)}


async def use_every_call(config):
    """All methods of both clients and a stream."""
    with RankerClient(config) as client:
        client.score(["a"])
        client.compare([("a", "b")])
        client.get_bundle()
        client.score_all(["a"])
    async with AsyncRankerClient(config) as async_client:
        await async_client.score(["a"])
        await async_client.compare([("a", "b")])
        await async_client.get_bundle()
        await async_client.score_all(["a"])
        async with async_client.stream() as stream:
            await stream.score(["a"])


# TLS.


async def test_every_call_goes_over_tls(serve, authority):
    ranker = serve(tls=server_tls(authority))
    await use_every_call(ClientConfig(address=ranker.address, **PATIENT, **tls(authority)))


async def test_every_call_goes_over_mutual_tls(serve, authority):
    ranker = serve(tls=server_tls(authority, client_ca=authority.cert))
    await use_every_call(ClientConfig(address=ranker.address, **PATIENT, **tls(authority, authority.issue("client"))))


@pytest.mark.parametrize(
    "shown",
    [
        lambda authority, other: {},
        lambda authority, other: tls(other),
        lambda authority, other: tls(authority),
        lambda authority, other: tls(authority, other.issue("client")),
        lambda authority, other: tls(authority, authority.issue("client", days=-1)),
    ],
    ids=["plaintext", "trusting another CA", "no certificate", "of another CA", "expired"],
)
def test_who_shows_the_wrong_thing_is_unavailable_and_nothing_was_sent(serve, authority, tmp_path, shown):
    ranker = serve(tls=server_tls(authority, client_ca=authority.cert))
    config = ClientConfig(address=ranker.address, **PATIENT, **shown(authority, Authority(tmp_path, "other")))
    with RankerClient(config) as client, pytest.raises(UnavailableError):
        client.score(["a"])
    assert ranker.requests == []


def test_a_certificate_for_another_host_is_not_taken(serve, authority):
    ranker = serve("127.0.0.2:0", tls=server_tls(authority))
    with (
        RankerClient(ClientConfig(address=ranker.address, **PATIENT, **tls(authority))) as client,
        pytest.raises(UnavailableError, match="Hostname Verification Check failed"),
    ):
        client.score(["a"])


# Tokens.


async def test_every_call_shows_the_token(serve, tmp_path):
    ranker = serve(allowed_tokens={TOKEN})
    path = put(tmp_path / "token", f"\n {TOKEN} \n{OTHER_TOKEN}\n")
    await use_every_call(ClientConfig(address=ranker.address, token_file=str(path), **PATIENT))


async def test_without_the_token_every_call_says_what_is_missing(serve):
    ranker = serve(allowed_tokens={TOKEN})
    config = ClientConfig(address=ranker.address, **PATIENT)
    with RankerClient(config) as client, pytest.raises(CredentialsError, match=r"^UNAUTHENTICATED: a bearer token is wanted$"):
        client.score(["a"])
    async with AsyncRankerClient(config) as async_client:
        with pytest.raises(CredentialsError, match=r"^UNAUTHENTICATED: a bearer token is wanted$"):
            await async_client.score(["a"])
        async with async_client.stream() as stream:
            # gRPC names the status, or an internal error when it notices first that nothing can be written any more.
            with pytest.raises(
                UnavailableError, match=r"the stream is gone: (UNAUTHENTICATED: a bearer token is wanted|INTERNAL)"
            ):
                await stream.score(["a"])
    assert ranker.requests == []


def test_a_new_token_is_used_as_soon_as_the_file_has_it(serve, tmp_path, monkeypatch):
    allowed = {TOKEN}
    ranker = serve(allowed_tokens=allowed)
    path = put(tmp_path / "token", TOKEN)
    now_s = time.monotonic()
    monkeypatch.setattr(credentials_module.time, "monotonic", lambda: now_s)
    with RankerClient(ClientConfig(address=ranker.address, token_file=str(path), **PATIENT)) as client:
        client.score(["a"])
        put(path, OTHER_TOKEN)
        client.score(["a"])  # Not looked at again yet.
        allowed.clear()
        allowed.add(OTHER_TOKEN)
        now_s += credentials_module.LOOK_INTERVAL_S
        client.score(["a"])
        for breaks in (lambda: put(path, ""), lambda: put(path, "two words"), path.unlink):
            breaks()
            now_s += credentials_module.LOOK_INTERVAL_S
            client.score(["a"])  # The last token that was good.


@pytest.mark.parametrize("content", ["", "\n\n", "two words", "schlüssel"])
def test_a_token_file_that_cannot_be_used_is_named(tmp_path, content):
    path = put(tmp_path / "token", content)
    with pytest.raises(CredentialsError, match=f"^token_file {path}: its first line is not a token of visible ASCII$"):
        RankerClient(ClientConfig(token_file=str(path)))


@pytest.mark.parametrize("setting", ["token_file", "tls_ca", "tls_cert", "tls_key"])
def test_a_missing_file_is_named(authority, tmp_path, setting):
    files = tls(authority, authority.issue("client")) | {"token_file": str(put(tmp_path / "token", TOKEN))}
    files[setting] = "/nowhere/file"
    with pytest.raises(CredentialsError, match=f"^{setting} /nowhere/file: No such file or directory$"):
        RankerClient(ClientConfig(**files))


# What cannot work together.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_file": "t", "address": "10.0.0.1:50151"}, "token_file needs tls_ca: '10.0.0.1:50151' is another machine"),
        ({"token_file": "t", "address": "pars.internal:1"}, "token_file needs tls_ca: 'pars.internal:1' is another machine"),
        ({"tls_ca": "ca", "address": "unix:/run/p.sock"}, "tls_ca is set, and 'unix:/run/p.sock' is a unix socket"),
        ({"tls_ca": "ca", "tls_cert": "c"}, "tls_cert needs tls_key and tls_ca"),
        ({"tls_key": "k", "tls_cert": "c"}, "tls_cert needs tls_key and tls_ca"),
        ({"tls_ca": "ca", "tls_key": "k"}, "tls_key needs tls_cert"),
    ],
    ids=["a token in the clear", "to a name", "TLS on a unix socket", "no key", "no CA", "no certificate"],
)
def test_what_cannot_work_together_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ClientConfig(**settings)
    with pytest.raises(HookSettingsError, match=f"^{message}"):
        HookSettings(**settings)
    field = message.partition(" ")[0]
    with pytest.raises(HookSettingsError, match=f"^PARS_HOOK_{field.upper()} {message.partition(' ')[2]}"):
        HookSettings.from_environment({f"PARS_HOOK_{name.upper()}": value for name, value in settings.items()})


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/p.sock"])
def test_on_this_machine_a_token_needs_no_tls(address):
    assert ClientConfig(address=address, token_file="t").token_file == "t"


# The ranker's name.


async def test_every_request_names_the_ranker(serve):
    ranker = serve()
    await use_every_call(ClientConfig(address=ranker.address, ranker="llama", **PATIENT))
    asked = [getattr(request, "request", request).ranker for request in ranker.requests]
    assert asked == ["llama"] * 11
    ranker.requests.clear()
    with RankerClient(ClientConfig(address=ranker.address, **PATIENT)) as client:
        client.score(["a"])
    assert [request.ranker for request in ranker.requests] == [""]


# The terminal.


def test_the_terminal_has_all_of_it(serve, authority, tmp_path):
    ranker = serve(tls=server_tls(authority, client_ca=authority.cert), allowed_tokens={TOKEN})
    client = authority.issue("client")
    token = put(tmp_path / "token", TOKEN)

    def run(*flags):
        command = [sys.executable, "-m", "vllm_client", "score", "a", "--json", "--address", ranker.address, *flags]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    files = ("--tls-ca", authority.cert, "--tls-cert", client.cert, "--tls-key", client.key)
    good = run(*map(str, files), "--token-file", str(token), "--ranker", "llama")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["prompt"] == "a"
    assert {request.ranker for request in ranker.requests} == {"llama"}

    stranger = run(*map(str, files))
    assert (stranger.returncode, stranger.stdout) == (1, "")
    assert "a bearer token is wanted" in stranger.stderr
    nothing = run(*map(str, files), "--token-file", "/nowhere/token")
    assert (nothing.returncode, nothing.stderr) == (
        1,
        f"vllm_client: {ranker.address}: token_file /nowhere/token: No such file or directory\n",
    )
    wrong = run("--tls-key", "k")
    assert wrong.returncode == 2
    assert "tls_key needs tls_cert" in wrong.stderr
    assert TOKEN not in good.stdout + stranger.stderr + wrong.stderr


# The hook.


async def connected(link):
    async with asyncio.timeout(TIMEOUT_S):
        while not link.connected:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)


async def test_the_hook_reads_rotated_files_when_it_connects_again(serve, authority, tmp_path, caplog):
    caplog.set_level(logging.INFO, "vllm_client")
    old_ca, new_ca = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    pair, token = old_ca.issue("client"), tmp_path / "token"
    first = serve(tls=server_tls(authority, client_ca=old_ca.cert), allowed_tokens={TOKEN})
    settings = HookSettings(
        address=first.address, deadline_ms=20_000, ranker="llama", token_file=str(token), **tls(authority, pair)
    )
    link = Link(settings)
    link.start()
    # There is no token yet. The hook says so, goes on trying, and finds it when it is there.
    async with asyncio.timeout(TIMEOUT_S):
        while "token_file" not in caplog.text:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)
    put(token, TOKEN)
    await connected(link)
    assert (await link.ask(["abc"])).scores[0].score == 3
    assert {request.request.ranker for request in first.requests if hasattr(request, "request")} == {"llama"}

    # The sidecar comes back with other demands, which the files meet by then.
    new_ca.issue("rotated").move_to(pair)
    put(token, OTHER_TOKEN)
    await asyncio.to_thread(first.stop)
    second = serve(first.address, tls=server_tls(authority, client_ca=new_ca.cert), allowed_tokens={OTHER_TOKEN})
    async with asyncio.timeout(TIMEOUT_S):
        while not second.requests:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.002)
    await connected(link)
    assert (await link.ask(["abcd"])).scores[0].score == 4
    await link.close()
    assert TOKEN not in caplog.text
    assert OTHER_TOKEN not in caplog.text
