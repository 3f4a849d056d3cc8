"""Where a priority goes so that the server obeys it, and putting it there."""

from collections.abc import MutableMapping
from typing import Any, Literal

from vllm_client.hook.body import HeldBody, priority_at_end, priority_at_start
from vllm_client.hook.headers import PRIORITY_HEADER, Headers, lengthened, replaced, sent_priority, without
from vllm_client.hook.request import Endpoint
from vllm_client.hook.settings import PriorityPlace

Scope = MutableMapping[str, Any]
Place = Literal["header", "body"]


def place_of(endpoint: Endpoint, wanted: PriorityPlace, knows_header: bool | None) -> Place | None:
    """Return the place; None when there is none that the server would look at. `knows_header` is the Host's.

    `wanted` decides where there are both. An endpoint that reads only the other one gets it there: without any, its requests would
    have priority 0 and jump the queue.
    """
    readable: dict[Place, bool] = {
        "header": endpoint.reads_header and (knows_header is not False or wanted == "header"),
        "body": endpoint.reads_body,
    }
    preferred: tuple[Place, ...] = ("body", "header") if wanted == "body" else ("header", "body")
    return next((place for place in preferred if readable[place]), None)


def obeyed_header(endpoint: Endpoint, headers: Headers, knows_header: bool | None) -> int | None:
    """Return the priority that a client's header gives the request here; None when the server would not look at it."""
    return sent_priority(headers) if endpoint.reads_header and knows_header is not False else None


def in_header(scope: Scope, priority: int) -> Scope:
    """Return a copy of the scope with the header. A client's own is replaced."""
    return {**scope, "headers": replaced(scope["headers"], PRIORITY_HEADER, b"%d" % priority)}


def in_body(scope: Scope, body: HeldBody, priority: int, *, complete: bool) -> Scope:
    """Write the field into the body held and return a scope that fits it: with the new length, and without a client's header,
    which would win over the field.

    Of a body too large to be held only the beginning is there, so the field goes to the front, where a field of the client's own
    wins over it. Without any it would be 0, and the largest prompts of all would jump the queue. When such a body is no valid
    JSON, the server's message counts a few characters more; that is the price. A body in another encoding than UTF-8 is left
    alone, and the scope returned as it is.
    """
    insertion = (priority_at_end if complete else priority_at_start)(body.joined(), priority)
    if insertion is None:
        return scope
    headers = lengthened(without(scope["headers"], PRIORITY_HEADER), len(insertion.text))
    body.insert(insertion)
    return {**scope, "headers": headers}
