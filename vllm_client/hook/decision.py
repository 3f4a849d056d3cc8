"""What the hook says about a request, and why."""

from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    """Why a request has the priority it has. The values are the label of `pars_hook_requests_total`."""

    SCORED = "scored"
    # Not asked, on purpose.
    GATED = "gated"
    """Too few requests in flight for an order to matter."""
    UNSAMPLED = "unsampled"
    """Outside the sampled share."""
    EQUAL = "equal_policy"
    CLIENT_PRIORITY = "client_priority"
    """The client set one, and it is kept."""
    FCFS_ENGINE = "fcfs_engine"
    """The engine runs without --scheduling-policy priority: a priority would do nothing."""
    NO_PLACE = "no_place"
    """This server takes a priority for such a request nowhere, as vLLM before 0.28 for /v1/messages."""
    # Not asked, because nothing there can be scored.
    NO_TEXT = "no_text"
    """Token ids, images alone, an empty conversation."""
    TOO_LARGE = "too_large"
    """The body exceeds max_body_bytes."""
    UNREADABLE = "unreadable"
    """Compressed, or not JSON, or not an object of a known shape."""
    # Asked or about to be, in vain. These are the failures.
    UNCONNECTED = "unconnected"
    """No connection to the sidecar at this moment."""
    BREAKER_OPEN = "breaker_open"
    DEADLINE = "deadline"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    """The sidecar, or the encoder of the request, refused the prompts."""
    SERVER_FAULT = "server_fault"
    BAD_REPLY = "bad_reply"
    """NaN, a wrong count, a quantile outside [0, 1]."""
    HOOK_FAULT = "hook_fault"
    """A bug of ours, logged with its traceback."""


class Decision(NamedTuple):
    """The hook's word on one request."""

    priority: int | None
    """An int64 for the engine. None: leave the request as it is."""
    outcome: Outcome
