"""Bearer tokens: who may call. Only in the way of calls when a token file is configured.

A call shows `authorization: Bearer TOKEN`, as RFC 6750 has it. Without a token that is known it ends with UNAUTHENTICATED before
its message is received, let alone parsed. Health stays open: probes carry no secrets, and learn one bit.
"""

import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from sidecar.access.reread import Reread
from sidecar.access.secret_file import read_secret
from sidecar.errors import CredentialsError
from sidecar.observer import Observer

LOOK_INTERVAL_S = 1.0
"""Between two looks at the token file: a withdrawn token is good for this much longer. Once per call would cost each a stat."""

MAX_TOKEN_CHARS = 4_096
"""Half of what the metadata of a call may hold, see limits."""

OPEN_TO_ALL = "/grpc.health.v1.Health/"

NO_TOKEN = "a bearer token is wanted"
NOT_A_TOKEN = "one bearer token is wanted, as authorization: Bearer TOKEN"
WRONG_TOKEN = "the bearer token is not one of the server's"

_TOKEN = re.compile(rb"[!-~]+")
_SCHEME = "bearer "


class Tokens:
    """The tokens of a file, one per line; more than one so that callers can move from the old one to the new.

    Only hashes are kept. Comparing those takes the same time whatever was sent.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises CredentialsError for a file that cannot be used, an empty one included: it would lock everybody out."""
        self._digests = Reread("token_file", [path], lambda: _read(path), interval_s=LOOK_INTERVAL_S, clock=clock)

    def objection(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """Why a call with this metadata is refused, in words for its caller; empty when it is not."""
        shown = [value for name, value in metadata if name == "authorization"]
        if not shown:
            return NO_TOKEN
        value = shown[0]
        if len(shown) > 1 or not isinstance(value, str) or value[: len(_SCHEME)].lower() != _SCHEME:
            return NOT_A_TOKEN
        digest = _digest(value[len(_SCHEME) :].strip().encode(errors="replace"))
        known = False
        for good in self._digests.current():
            known |= hmac.compare_digest(digest, good)  # No early end: how many lines were compared tells nothing.
        return "" if known else WRONG_TOKEN


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Lets a call pass to its handler, or answers it itself. What nobody handles is refused to strangers too."""

    def __init__(self, tokens: Tokens, observer: Observer) -> None:
        self._tokens = tokens
        self._observer = observer

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        if details.method.startswith(OPEN_TO_ALL):
            return await continuation(details)
        objection = self._tokens.objection(details.invocation_metadata)
        if not objection:
            return await continuation(details)
        self._observer.rejected("unauthenticated")
        return _refusal(objection)


def _refusal(objection: str) -> Any:
    async def refuse(_requests: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, objection)

    # As a stream, whatever the method is: gRPC receives a unary call's message before it runs the handler.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _read(path: Path) -> tuple[bytes, ...]:
    tokens = [line.strip() for line in read_secret("token_file", path).splitlines() if line.strip()]
    if not tokens:
        raise CredentialsError(f"token_file {path}: it holds no token")
    for number, token in enumerate(tokens, start=1):
        if not _TOKEN.fullmatch(token) or len(token) > MAX_TOKEN_CHARS:
            raise CredentialsError(
                f"token_file {path}: token {number} has other than visible ASCII in it, or more than {MAX_TOKEN_CHARS} characters"
            )
    return tuple(_digest(token) for token in tokens)


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
