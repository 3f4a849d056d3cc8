"""What can go wrong when a client talks to the sidecar.

    RankerClientError            any of these; a scheduler that fails open catches this one
    ├── InvalidPromptsError      the request is wrong: no prompts, too many, not valid Unicode. Never retry
    ├── OverloadedError          too many prompts are waiting, or the message is too large. Do not retry
    ├── UnavailableError         nobody there, starting, draining or gone. Retry once, elsewhere if there is an elsewhere
    ├── DeadlineError            the deadline passed first. Go without a score
    ├── CredentialsError         the sidecar does not take the client's token, or a file with its credentials cannot be read
    ├── ServerFaultError         a fault of the server, or not a ranker at all. Its log knows more
    └── BadReplyError            an answer arrived and makes no sense, so none of it is used

Messages never contain prompt text. Wrong arguments of ours (a string where a list belongs, a deadline of zero) are not in this
tree: they are TypeError and ValueError, as everywhere in Python.
"""

from collections.abc import Mapping
from typing import cast

import grpc


class RankerClientError(Exception):
    """Base of everything a client raises about a call."""


class InvalidPromptsError(RankerClientError):
    """The server, or the encoder of the request, refused the prompts."""


class OverloadedError(RankerClientError):
    """The server has no room for this call now, or never for one this large."""


class UnavailableError(RankerClientError):
    """No server answers, it is stopping, or the connection, stream or client was closed."""


class DeadlineError(RankerClientError):
    """No answer within the deadline. The server drops the work by itself."""


class CredentialsError(RankerClientError):
    """The token is missing or not one of the sidecar's, or a token, certificate or key file cannot be read. Trying again as it is
    cannot help."""


class ServerFaultError(RankerClientError):
    """The server failed in a way that is not the caller's doing."""


class BadReplyError(RankerClientError):
    """The reply breaks the promises of ranker.proto: wrong count, a score that is not a number, a quantile outside [0, 1]."""


_ERROR_BY_STATUS: Mapping[grpc.StatusCode, type[RankerClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidPromptsError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAUTHENTICATED: CredentialsError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    # Nobody but a peer that is going away cancels: gRPC reports so the calls cut off by a server's stop or a channel's close.
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}
"""Status codes of ranker.proto to errors. Every other code is a ServerFaultError."""

_STATUS_BY_NUMBER: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def error_from_status(code: grpc.StatusCode, message: str | None) -> RankerClientError:
    """Return the error for a failed call. `message` is the server's, on one line and without prompt text."""
    kind = _ERROR_BY_STATUS.get(code, ServerFaultError)
    return kind(f"{code.name}: {message}" if message else code.name)


def error_from_rpc(error: grpc.RpcError) -> RankerClientError:
    """Return the error for what a grpc stub raised, sync or asyncio."""
    call = cast(grpc.Call, error)  # Both stubs raise an RpcError that is a Call; the type does not say so.
    return error_from_status(call.code(), call.details())


def error_from_number(code: int, message: str) -> RankerClientError:
    """Return the error for an `ItemError`, whose code is a bare number. A number that gRPC does not know is a server fault."""
    status = _STATUS_BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN)
    return error_from_status(status, message)
