"""Everything that can go wrong, in one tree.

SidecarError
├── StartError             the process cannot start or a bundle cannot be opened: one line for the operator, exit code 1
│   ├── SettingsError      a setting is out of range, or two of them cannot work together
│   ├── BundleError        the bundle folder is damaged or not a bundle
│   ├── ProviderError      the execution provider asked for is not there
│   ├── WarmUpError        golden prompts no longer have their golden scores
│   ├── CredentialsError   a certificate, key or token file cannot be used
│   └── AddressError       the address cannot be listened on
├── ServerEndedError       the gRPC server ended by itself: exit code 1, so that whoever watches the process starts it again
├── ModelError             a model run failed or returned nonsense; what callers see of it is ScoringFailedError
└── CallError              one call fails; `code` is the gRPC status its caller gets
    ├── InvalidRequestError     INVALID_ARGUMENT
    ├── OverloadedError         RESOURCE_EXHAUSTED
    ├── NotServingError         UNAVAILABLE
    ├── DeadlineError           DEADLINE_EXCEEDED
    └── ScoringFailedError      INTERNAL

Messages of CallErrors go out to callers: they never contain prompt text, token ids or file names.
"""

from typing import ClassVar

import grpc

from sidecar.observer import RejectionCause


class SidecarError(Exception):
    """Root of the tree."""


class StartError(SidecarError):
    """The process cannot start."""


class SettingsError(StartError):
    """A setting is out of range, or two of them cannot work together."""


class BundleError(StartError):
    """The bundle folder is damaged or not a bundle."""


class ProviderError(StartError):
    """The execution provider asked for is not there."""


class WarmUpError(StartError):
    """Golden prompts no longer have their golden scores."""


class CredentialsError(StartError):
    """A certificate, key or token file cannot be used. The message never holds what is in it."""


class AddressError(StartError):
    """The address cannot be listened on."""


class ServerEndedError(SidecarError):
    """The gRPC server ended without being asked to."""


class ModelError(SidecarError):
    """A model run failed or returned nonsense."""


class CallError(SidecarError):
    """One call fails. `code` is the status its caller gets, the message is what the caller reads, `cause` is what is counted."""

    code: ClassVar[grpc.StatusCode]
    cause: ClassVar[RejectionCause]


class InvalidRequestError(CallError):
    """The request is wrong; sending it again cannot help."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    cause = "invalid"


class OverloadedError(CallError):
    """No permit, or too much is waiting already for an answer in time."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    cause = "overload"


class NotServingError(CallError):
    """Starting, draining or stopped."""

    code = grpc.StatusCode.UNAVAILABLE
    cause = "stopping"


class DeadlineError(CallError):
    """The caller's deadline has passed, or will have before an answer could be ready."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    cause = "deadline"


class ScoringFailedError(CallError):
    """The model failed on the batch this call was in."""

    code = grpc.StatusCode.INTERNAL
    cause = "model"
