"""Pure: the headers of an ASGI request, a list of (name, value) in bytes with lower-case names."""

from collections.abc import Iterable, Mapping, Sequence

Headers = Sequence[tuple[bytes, bytes]]

PRIORITY_HEADER = b"x-vllm-priority"


def first(headers: Headers, name: bytes) -> bytes | None:
    """Return the value that counts when a header comes twice, which for Starlette, and so for vLLM, is the first."""
    return next((value for key, value in headers if key == name), None)


def replaced(headers: Headers, name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """Return a copy in which `name` occurs once, with this value."""
    return [*without(headers, name), (name, value)]


def without(headers: Headers, name: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in headers if pair[0] != name]


def as_text(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Return name → value, the first of each name."""
    texts: dict[str, str] = {}
    for name, value in headers:
        texts.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return texts


def sent_priority(headers: Headers) -> int | None:
    """Return the priority that a client's header gives it; None when there is none, or one that vLLM passes over.

    Read as vLLM reads it, by int(), so that " 5 " and "1_0" count. It may exceed 64 bits; vLLM answers such a request with a 500.
    """
    value = first(headers, PRIORITY_HEADER)
    if value is None:
        return None
    try:
        return int(value.decode("latin-1"))
    except ValueError:
        return None


def body_bytes(headers: Headers) -> int | None:
    """Return the length that the client declared; None for a chunked body, or a declaration that is no number."""
    value = first(headers, b"content-length")
    return int(value) if value is not None and len(value) <= 18 and value.isdigit() else None


def lengthened(headers: Headers, more_bytes: int) -> list[tuple[bytes, bytes]]:
    """Return a copy whose declared length, if there is one, is `more_bytes` larger."""
    declared = body_bytes(headers)
    return (
        list(headers)
        if declared is None
        else [
            (name, b"%d" % (declared + more_bytes)) if name == b"content-length" else (name, value) for name, value in headers
        ]
    )


def is_encoded(headers: Headers) -> bool:
    """Whether the body is compressed, or altered in some other way that has to be undone before it can be read."""
    return (first(headers, b"content-encoding") or b"identity").lower() != b"identity"


def may_be_json(headers: Headers) -> bool:
    """Whether the media type says JSON, or nothing. vLLM refuses every other type."""
    media_type = first(headers, b"content-type")
    return media_type is None or b"json" in media_type.lower()
