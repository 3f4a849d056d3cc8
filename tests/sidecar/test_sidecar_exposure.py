"""Where the server may listen, and who may connect to its unix socket."""

import os
import signal
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, put
from sidecar_process import StartSidecar
from sidecar_secured import plain_channel, score_status, secured
from sidecar_served import Served

from pars.address import is_local
from sidecar.access.access import Access
from sidecar.access.socket_access import SocketAccess
from sidecar.errors import AddressError, SettingsError
from sidecar.settings import Settings
from vllm_client import ClientConfig, CredentialsError, RankerClient, Tier

Code = grpc.StatusCode
WIDE = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "pars.internal:1", "127.0.0.1.nip.io:1", "ipv4:127.0.0.1:1", "[::ffff:10.0.0.1]:1"]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "unix:/run/pars.sock"])
def test_what_stays_on_this_machine_may_be_plaintext(address: str) -> None:
    assert is_local(address)
    Settings(bundle="b", address=address).validate()


@pytest.mark.parametrize("address", WIDE)
def test_what_leaves_it_needs_tls_or_somebody_who_says_so(address: str) -> None:
    assert not is_local(address)
    with pytest.raises(SettingsError, match=r"everybody on the way could read the prompts; set tls_cert .* or say insecure=on"):
        Settings(bundle="b", address=address).validate()
    Settings(bundle="b", address=address, insecure=True).validate()
    Settings(bundle="b", address=address, tls_cert="c", tls_key="k").validate()


def test_insecure_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Access.open(Settings(bundle="b", address="0.0.0.0:1", insecure=True))
    Access.open(Settings(bundle="b", insecure=True))
    assert [record.getMessage() for record in caplog.records] == [
        "insecure=on: prompts cross the network to 0.0.0.0:1 in the clear"
    ]


@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [
        ("0600", "", SocketAccess(0o600, -1, -1)),
        ("660", "7:8", SocketAccess(0o660, 7, 8)),
        ("0666", "root", SocketAccess(0o666, 0, -1)),
        ("0660", ":root", SocketAccess(0o660, -1, 0)),
        ("0660", "root:5", SocketAccess(0o660, 0, 5)),
    ],
)
def test_mode_and_owner_are_read(mode: str, owner: str, expected: SocketAccess) -> None:
    assert SocketAccess.parse(mode, owner) == expected


@pytest.mark.parametrize(
    ("mode", "owner", "message"),
    [
        ("", "", "socket_mode is ''"),
        ("rw", "", "socket_mode is 'rw'"),
        ("0888", "", "socket_mode is '0888'"),
        ("4755", "", "socket_mode is '4755'"),
        ("0o600", "", "socket_mode is '0o600'"),
        ("0600", "nobody-here", "socket_owner is 'nobody-here'.*nobody-here"),
        ("0600", "root:nobody-here", "socket_owner is 'root:nobody-here'.*nobody-here"),
        ("0600", f"{2**32 - 1}:0", "socket_owner is '4294967295:0'.*no id"),
        ("0600", "-1:0", "socket_owner is '-1:0'"),
    ],
)
def test_a_wrong_mode_or_owner_is_refused_with_the_settings(mode: str, owner: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(bundle="b", socket_mode=mode, socket_owner=owner).validate()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_is_never_wider_than_asked_whatever_the_umask(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = tmp_path / "pars.sock"
    before_given: list[int] = []
    chown = os.chown

    def watching_chown(target: Any, *arguments: Any, **options: Any) -> None:
        before_given.append(stat.S_IMODE(Path(target).stat().st_mode))
        chown(target, *arguments, **options)

    monkeypatch.setattr(os, "chown", watching_chown)
    umask = os.umask(0)
    try:
        access = Access(socket=SocketAccess(mode, os.getuid(), os.getgid()))
        async with secured(served, access, address=f"unix:{path}") as address, plain_channel(address) as channel:
            found = path.stat()
            assert await score_status(channel) == (Code.OK, "")
        assert os.umask(0) == 0, "the umask was not put back"
    finally:
        os.umask(umask)
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())
    assert before_given == [0o600], "open to others before it had its owner"
    assert not path.exists()


async def test_the_owner_is_set(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "pars.sock"
    group_id = _group_of_ours()
    async with secured(served, Access(socket=SocketAccess(0o660, -1, group_id)), address=f"unix:{path}"):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), group_id)


async def test_an_owner_that_cannot_be_set_stops_the_start_and_leaves_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pars.sock"

    # What the kernel says to a process that is not root; the tests may be.
    def refused(*arguments: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(AddressError, match="cannot set socket_mode and socket_owner: Operation not permitted"):
        async with secured(served, Access(socket=SocketAccess(0o660, 1, 1)), address=f"unix:{path}"):
            pass
    assert not path.exists()


def _group_of_ours() -> int:
    """A group that this process may give files to, another than its own where there is one."""
    others = [group for group in os.getgroups() if group != os.getgid()]
    return 1 if os.getuid() == 0 else (others or [os.getgid()])[0]


def test_a_killed_sidecar_leaves_a_path_that_the_next_one_can_use(
    start_sidecar: StartSidecar, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pars.sock"
    arguments = ("--address", f"unix:{path}", "--socket-mode", "0660")
    killed = start_sidecar(tiny_bundle, *arguments)
    killed.serving()
    killed.signal(signal.SIGKILL)
    assert killed.exit_code() == -signal.SIGKILL
    assert path.is_socket(), "nothing was left behind, so this test shows nothing"
    again = start_sidecar(tiny_bundle, *arguments)
    address = again.serving()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    with RankerClient(ClientConfig(address=address, deadline_ms=20_000)) as client:
        assert client.score(["long"], tier=Tier.ENCODER).scores
    again.signal(signal.SIGTERM)
    assert again.exit_code() == 0
    assert not path.exists()


def test_a_sidecar_with_everything_closed_answers_who_has_the_keys(
    start_sidecar: StartSidecar, tiny_bundle: Path, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "ca")
    server, client_pair = authority.issue("server"), authority.issue("client")
    token_file = put(tmp_path / "token", "8f14e45fceea167a")
    sidecar = start_sidecar(
        tiny_bundle,
        *("--address", "0.0.0.0:0", "--tls-cert", str(server.cert), "--tls-key", str(server.key)),
        *("--tls-client-ca", str(authority.cert), "--token-file", str(token_file)),
    )
    address = sidecar.serving().replace("0.0.0.0", "localhost")
    tls = {"tls_ca": str(authority.cert), "tls_cert": str(client_pair.cert), "tls_key": str(client_pair.key)}
    with RankerClient(ClientConfig(address=address, deadline_ms=20_000, token_file=str(token_file), **tls)) as client:
        assert client.score(["long"], tier=Tier.ENCODER).scores
    with (
        RankerClient(ClientConfig(address=address, deadline_ms=20_000, **tls)) as stranger,
        pytest.raises(CredentialsError, match="a bearer token is wanted"),
    ):
        stranger.get_bundle()
    sidecar.signal(signal.SIGTERM)
    assert sidecar.exit_code() == 0
    assert "8f14e45fceea167a" not in "\n".join(sidecar.lines)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--address", "0.0.0.0:0"), "sidecar cannot start: address 0.0.0.0:0 can be reached from elsewhere"),
        (("--token-file", "/nowhere/token"), "sidecar cannot start: token_file /nowhere/token: No such file or directory"),
        (
            ("--tls-cert", "/nowhere/cert", "--tls-key", "/nowhere/key"),
            "sidecar cannot start: tls_key /nowhere/key: No such file or directory",
        ),
        (("--socket-mode", "open"), "sidecar cannot start: socket_mode is 'open'"),
    ],
    ids=["a wide address", "no token file", "no certificate", "no mode"],
)
def test_what_is_not_safe_stops_the_start_with_one_line(
    start_sidecar: StartSidecar, tiny_bundle: Path, arguments: tuple[str, ...], line: str
) -> None:
    sidecar = start_sidecar(tiny_bundle, *arguments)
    assert sidecar.exit_code() == 1
    assert len(sidecar.lines) == 1
    assert sidecar.lines[0].startswith(line)
