"""Pure: single values of a JSON body, taken as the server would take them. What strangers write must not raise or take long."""

MAX_COUNT = 2**31 - 1
"""Larger numbers of tokens or samples are nonsense, and would overflow where a policy multiplies them."""

MAX_NODES = 20_000
"""Values of a body that are looked at to measure it. A megabyte of brackets holds half a million, and the event loop waits."""

# What no model reads as text: names of the protocol, and media.
_UNREAD = frozenset(
    {
        *{"type", "role", "id", "call_id", "tool_call_id", "tool_use_id", "status", "is_error", "detail", "media_type"},
        *{"cache_control", "signature", "encrypted_content", "prompt_embeds", "image_embeds", "audio_embeds", "image_pil"},
        *{"image_url", "video_url", "audio_url", "input_audio", "source", "file_data", "file_url"},
    }
)


class UnknownShapeError(Exception):
    """The server will refuse this body, and should see it as it came."""


def text_chars(value: object, *, names: bool = False) -> int:
    """Return the characters of the text in a JSON value, protocol and media aside; with the names of members for a schema."""
    total, waiting, seen = 0, [value], 0
    while waiting and seen < MAX_NODES:
        seen += 1
        found = waiting.pop()
        if isinstance(found, str):
            total += len(found)
        elif isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            waiting += [child for name, child in found.items() if name not in _UNREAD]
            total += sum(map(len, found)) if names else 0
    return total


def count(value: object) -> int | None:
    """A count as JSON gives it; None for what is none, which is then the server's to refuse."""
    return min(value, MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def priority(value: object) -> int:
    """Read the body's priority as vLLM does (pydantic 2, lax), where "5", "5.0", 5.0 and true are numbers. Raises UnknownShapeError.

    Taking them for no priority would let a client that writes "5" escape `client_priority=override`.
    """
    number: int | None = None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, str):
        digits, _, zeros = value.strip().partition(".")
        if digits.isascii() and (zeros.strip("0") == "" and (zeros or "." not in value)):
            try:
                number = int(digits)
            except ValueError:
                number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise UnknownShapeError
    return number
