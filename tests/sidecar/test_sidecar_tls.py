"""TLS and mutual TLS over real connections, with files that are rotated, broken and mended under a running server."""

import asyncio
import logging
import ssl
from pathlib import Path

import grpc
import pytest
from certificates import Authority, Pair, put
from sidecar_secured import plain_channel, score_status, secured, tls_access, tls_channel
from sidecar_served import Served

from sidecar.access.tls import TlsFiles, server_credentials
from sidecar.errors import AddressError, CredentialsError, SettingsError
from sidecar.settings import Settings

Code = grpc.StatusCode


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "stranger")


async def name_shown(address: str, ca: Path) -> str:
    """The common name in the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return dict(part[0] for part in shown)["commonName"]


async def test_tls_is_spoken_and_plaintext_is_not(served: Served, authority: Authority) -> None:
    async with secured(served, tls_access(authority.issue("server"))) as address:
        async with tls_channel(address, authority.cert) as channel:
            assert await score_status(channel) == (Code.OK, "")
        async with plain_channel(address) as channel:
            assert (await score_status(channel))[0] is Code.UNAVAILABLE


async def test_a_client_that_trusts_somebody_else_does_not_connect(
    served: Served, authority: Authority, stranger: Authority
) -> None:
    async with (
        secured(served, tls_access(authority.issue("server"))) as address,
        tls_channel(address, stranger.cert) as channel,
    ):
        code, message = await score_status(channel)
    assert code is Code.UNAVAILABLE
    assert "CERTIFICATE_VERIFY_FAILED" in message


async def test_with_a_client_ca_only_its_certificates_open_the_door(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    shown: dict[str, Pair | None] = {
        "good": clients.issue("good"),
        "expired": clients.issue("expired", days=-1),
        "of another CA": strangers.issue("other"),
        # The one that vouches for the server vouches for no client.
        "of the server's CA": authority.issue("same"),
        "none": None,
    }
    codes = {}
    async with secured(served, tls_access(authority.issue("server"), clients.cert)) as address:
        for which, pair in shown.items():
            async with tls_channel(address, authority.cert, pair) as channel:
                codes[which], _ = await score_status(channel)
    assert codes == {which: Code.OK if which == "good" else Code.UNAVAILABLE for which in shown}


async def test_a_rotated_certificate_holds_from_the_next_connection_on(
    served: Served, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    first, second = authority.issue("first"), authority.issue("second")
    async with secured(served, tls_access(first)) as address:
        assert await name_shown(address, authority.cert) == "first"
        async with tls_channel(address, authority.cert) as old_connection:
            assert await score_status(old_connection) == (Code.OK, "")
            second.move_to(first)
            assert await name_shown(address, authority.cert) == "second"
            assert await score_status(old_connection) == (Code.OK, "")
        assert await name_shown(address, authority.cert) == "second"
    assert [record.getMessage() for record in caplog.records if record.name == "sidecar.access.reread"] == [
        "TLS files: read again"
    ]


async def test_a_rotated_client_ca_holds_from_the_next_connection_on(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = put(tmp_path / "trusted.pem", old.cert.read_bytes())
    clients = (old.issue("of old"), new.issue("of new"))

    async def codes() -> list[grpc.StatusCode]:
        found = []
        for client in clients:
            async with tls_channel(address, authority.cert, client) as channel:
                found.append((await score_status(channel))[0])
        return found

    async with secured(served, tls_access(authority.issue("server"), trusted)) as address:
        assert await codes() == [Code.OK, Code.UNAVAILABLE]
        put(trusted, old.cert.read_bytes() + new.cert.read_bytes())
        assert await codes() == [Code.OK, Code.OK]
        put(trusted, new.cert.read_bytes())
        assert await codes() == [Code.UNAVAILABLE, Code.OK]


async def test_broken_files_leave_the_old_pair_in_use_and_are_told_once(
    served: Served, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    pair, second = authority.issue("first"), authority.issue("second")
    whole_key = second.key.read_bytes()

    async with secured(served, tls_access(pair)) as address:

        async def shown_twice() -> set[str]:
            return {await name_shown(address, authority.cert) for _ in range(2)}

        put(pair.cert, second.cert.read_bytes())  # The new certificate with the old key.
        assert await shown_twice() == {"first"}
        put(pair.key, whole_key[: len(whole_key) // 2])
        assert await shown_twice() == {"first"}
        pair.key.unlink()
        assert await shown_twice() == {"first"}
        put(pair.key, whole_key, mode=0o644)
        assert await shown_twice() == {"first"}
        pair.key.chmod(0o640)
        assert await shown_twice() == {"second"}
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "sidecar.access.reread"]
    assert [level for level, _ in told] == ["ERROR"] * 4 + ["INFO"]
    assert all("what was read before stays in use" in message for level, message in told if level == "ERROR")
    assert "KEY_VALUES_MISMATCH" in told[0][1]
    assert "No such file" in told[2][1]
    assert "everybody on this machine can read it" in told[3][1]
    assert not any("PRIVATE KEY" in message for _, message in told)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda pair, ca: pair.cert.unlink(), "tls_cert .*No such file"),
        (lambda pair, ca: pair.key.unlink(), "tls_key .*No such file"),
        (lambda pair, ca: put(pair.cert, "rubbish"), "not a certificate and its key, in PEM"),
        (lambda pair, ca: put(pair.key, ""), "not a certificate and its key, in PEM"),
        (lambda pair, ca: put(pair.cert, ca.read_bytes()), "not a certificate and its key.*KEY_VALUES_MISMATCH"),
        (lambda pair, ca: put(pair.key, pair.key.read_bytes(), mode=0o644), "tls_key .*everybody on this machine can read it"),
        (lambda pair, ca: put(ca, ""), "tls_client_ca .*no certificates in PEM"),
        (lambda pair, ca: put(ca, pair.key.read_bytes()), "tls_client_ca .*no certificates in PEM"),
        (lambda pair, ca: put(ca, b"\xff\x00" * 100), "tls_client_ca .*no certificates in PEM"),
        (lambda pair, ca: put(ca, b"\xff" * 2_000_000), "tls_client_ca .*larger than"),
    ],
    ids=[
        "no certificate",
        "no key",
        "rubbish for a certificate",
        "an empty key",
        "somebody else's certificate",
        "a key for everybody to read",
        "an empty client CA",
        "a key for a client CA",
        "no text for a client CA",
        "something huge for a client CA",
    ],
)
def test_broken_files_stop_the_start_with_one_line(authority: Authority, breaks: object, message: str) -> None:
    pair = authority.issue("server")
    assert callable(breaks)
    breaks(pair, authority.cert)
    with pytest.raises(CredentialsError, match=message) as caught:
        server_credentials(TlsFiles(pair.cert, pair.key, authority.cert))
    assert "\n" not in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_key_with_a_password_stops_the_start_and_asks_nobody(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = authority.issue("server")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    put(pair.key, locked)
    with pytest.raises(CredentialsError, match="without a password"):
        server_credentials(TlsFiles(pair.cert, pair.key))


async def test_comments_around_a_client_ca_do_no_harm(served: Served, authority: Authority) -> None:
    client = authority.issue("client")
    put(authority.cert, "# Prüfstelle\n".encode() + authority.cert.read_bytes())
    async with (
        secured(served, tls_access(authority.issue("server"), authority.cert)) as address,
        tls_channel(address, authority.cert, client) as channel,
    ):
        assert await score_status(channel) == (Code.OK, "")


async def test_a_busy_address_is_refused_with_tls_too(served: Served, authority: Authority) -> None:
    with pytest.raises(AddressError, match=f"cannot listen on {served.address}"):
        async with secured(served, tls_access(authority.issue("server")), address=served.address):
            pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_cert": "c"}, "tls_cert and tls_key need each other"),
        ({"tls_key": "k"}, "tls_cert and tls_key need each other"),
        ({"tls_client_ca": "ca"}, "tls_client_ca needs both"),
        ({"tls_cert": "c", "tls_key": "k", "address": "unix:/run/pars.sock"}, "a unix socket has no TLS"),
    ],
    ids=["a certificate alone", "a key alone", "a client CA alone", "on a unix socket"],
)
def test_settings_that_cannot_work_together_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(bundle="b", **settings).validate()
