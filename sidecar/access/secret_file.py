"""Reading files that hold credentials, with errors an operator can act on. Their content never gets into a message."""

import os
import stat
from pathlib import Path

from sidecar.errors import CredentialsError

MAX_BYTES = 1024 * 1024
"""Far more than any chain of certificates. Keeps a wrong path, to a device or a model, from filling the memory."""


def read_public(setting: str, path: Path) -> bytes:
    """The content of a file that anybody may read. `setting` names it in errors. Raises CredentialsError."""
    return _read(setting, path, secret=False)


def read_secret(setting: str, path: Path) -> bytes:
    """The content of a file that not everybody on this machine may read. Raises CredentialsError.

    The group may: that is how one secret is handed to one service. A secret that everybody can read is none, and a warning would
    be read after the fact.
    """
    return _read(setting, path, secret=True)


def _read(setting: str, path: Path, *, secret: bool) -> bytes:
    try:
        # Not blocking: a named pipe would otherwise hold the start, or a handshake, until somebody writes to it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - pathlib opens no descriptors
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise CredentialsError(f"{setting} {path}: this is not a file")
            if secret and about.st_mode & stat.S_IROTH:
                raise CredentialsError(
                    f"{setting} {path}: everybody on this machine can read it; take that away with chmod o-rwx, "
                    "or defaultMode: 0440 of a Kubernetes volume"
                )
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"{setting} {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise CredentialsError(f"{setting} {path}: larger than {MAX_BYTES} bytes")
    return content
