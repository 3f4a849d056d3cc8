"""Certificate authorities and certificates of the tests' own, as PEM files. Elliptic keys, since those are made in no time."""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    cert: Path
    key: Path

    def move_to(self, other: "Pair") -> None:
        """Take the other's place, as a rotation does: under new names first, then one rename each."""
        for mine, theirs in ((self.key, other.key), (self.cert, other.cert)):
            put(theirs, mine.read_bytes())


class Authority:
    """A CA with its certificate in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._cert = _certificate(name, self._key, None, self._key, days=1)
        self.cert = folder / f"{name}.pem"
        self.cert.write_bytes(_pem(self._cert))

    def issue(self, name: str, *, days: int = 1) -> Pair:
        """A certificate for localhost and 127.0.0.1, with the name as its common name; expired when days is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        pair = Pair(self._folder / f"{name}.cert.pem", self._folder / f"{name}.key.pem")
        pair.cert.write_bytes(_pem(_certificate(name, key, self._cert, self._key, days=days)))
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        put(pair.key, private)
        return pair


def put(path: Path, content: bytes | str, mode: int = 0o600) -> Path:
    """Write a file in one step: nobody ever sees half of it, nor a wider mode."""
    new = path.with_name(path.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
        file.write(content.encode() if isinstance(content, str) else content)
    new.chmod(mode)
    return new.replace(path)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
