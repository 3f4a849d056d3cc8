"""Pure: endpoint and JSON → asked. The bodies come from strangers; whatever is in them, nothing here raises."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pars.text import chat_text, clip, encodable
from vllm_client.hook.asked import CHARS_PER_TOKEN, Asked
from vllm_client.hook.values import MAX_COUNT, MAX_NODES, UnknownShapeError, count, priority, text_chars

_COMPLETION_TOKENS = 16
"""What OpenAI's completions, and vLLM, take for a max_tokens that is not there."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a body says, by the endpoint that it is for."""

    candidates: Sequence[str]
    """Ranker texts, one per prompt that has one, not clipped; no more than were asked for."""
    prompts: int
    """How many prompts there are, with text or without."""
    prompt_chars: int
    max_tokens: Any
    """As it stands there."""


_Reader = Callable[[dict[str, Any], int], _Reading]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path of the server that takes prompts, and where vLLM looks there for a priority."""

    suffix: str
    """The end of its path; before it may stand a root path."""
    read: _Reader
    reads_header: bool = True
    """X-Vllm-Priority, from vllm_client.hook.host.HEADER_SINCE on."""
    reads_body: bool = True
    """The field "priority"."""


def endpoint_of(path: str) -> Endpoint | None:
    """Return the endpoint that a request's path means; None for all that the hook leaves alone."""
    if not path.endswith(_SUFFIXES):
        return None
    return next((endpoint for endpoint in ENDPOINTS if path.endswith(endpoint.suffix)), None)


def read_request(
    endpoint: Endpoint, body: bytes, *, max_prompts: int, header_priority: int | None = None, class_delay_ms: int = 0
) -> Asked | None:
    """Return what a body asks for; None when it is no JSON object of the endpoint's shape, and the server will refuse it.

    `header_priority` is the one that the server would obey, which then wins over the body's, as in vLLM. Parsed as vLLM parses,
    so a member that comes twice counts in its last place and a byte order mark is no error.
    """
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict):
            return None
        body_priority = priority(fields["priority"]) if endpoint.reads_body and "priority" in fields else None
        reading = endpoint.read(fields, max_prompts)
    except (ValueError, RecursionError, UnknownShapeError):  # No JSON, no Unicode, too many digits; too deep; the wrong shape.
        return None
    texts = tuple(encodable(clip(text)[0]) for text in reading.candidates)
    samples = min(max(count(fields.get("n")) or 1, 1), MAX_COUNT) * max(reading.prompts, 1)
    return Asked(
        texts=texts,
        prompt_chars=reading.prompt_chars,
        max_tokens=count(reading.max_tokens),
        # Per text that is scored: with more prompts than that, each stands for several. Rounded up.
        samples=min(-(-samples // max(len(texts), 1)), MAX_COUNT),
        client_priority=body_priority if header_priority is None else header_priority,
        class_delay_ms=class_delay_ms,
    )


def _completion(fields: dict[str, Any], max_prompts: int) -> _Reading:
    prompt = fields.get("prompt")
    max_tokens = fields.get("max_tokens", _COMPLETION_TOKENS)
    if prompt is None:  # Embeddings in its place, which no ranker reads.
        return _Reading((), 1, 0, max_tokens)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list):
        raise UnknownShapeError
    if not prompts or isinstance(prompts[0], int):
        return _Reading((), 1, len(prompts) * CHARS_PER_TOKEN, max_tokens)
    if isinstance(prompts[0], list):
        tokens = sum(len(ids) for ids in prompts[:MAX_NODES] if isinstance(ids, list))
        return _Reading((), len(prompts), tokens * CHARS_PER_TOKEN, max_tokens)
    texts = prompts[:max_prompts]
    if not all(isinstance(text, str) for text in texts):
        raise UnknownShapeError
    return _Reading(texts, len(prompts), text_chars(prompts) + text_chars(fields.get("suffix")), max_tokens)


def _chat(fields: dict[str, Any], max_prompts: int) -> _Reading:
    messages = _messages(fields.get("messages"))
    return _Reading(_texts([messages]), 1, text_chars(messages) + _extra_chars(fields), _chat_limit(fields))


def _chat_batch(fields: dict[str, Any], max_prompts: int) -> _Reading:
    conversations = fields.get("messages")
    if not isinstance(conversations, list):
        raise UnknownShapeError
    texts = _texts([_messages(conversation) for conversation in conversations[:max_prompts]])
    return _Reading(texts, len(conversations), text_chars(conversations) + _extra_chars(fields), _chat_limit(fields))


def _responses(fields: dict[str, Any], max_prompts: int) -> _Reading:
    given = fields.get("input")
    texts = [given] if isinstance(given, str) else _texts([_messages(given)])
    chars = text_chars(given) + text_chars(fields.get("instructions")) + _extra_chars(fields)
    return _Reading(texts, 1, chars, fields.get("max_output_tokens"))


def _anthropic(fields: dict[str, Any], max_prompts: int) -> _Reading:
    messages = _messages(fields.get("messages"))
    chars = text_chars(messages) + text_chars(fields.get("system")) + _extra_chars(fields)
    return _Reading(_texts([messages]), 1, chars, fields.get("max_tokens"))


def _invocation(fields: dict[str, Any], max_prompts: int) -> _Reading:
    # vLLM tries the shapes in this order as well.
    return (_chat if "messages" in fields else _completion)(fields, max_prompts)


ENDPOINTS = (
    Endpoint("/v1/chat/completions", _chat),
    Endpoint("/v1/completions", _completion),
    Endpoint("/v1/responses", _responses),
    Endpoint("/v1/messages", _anthropic, reads_body=False),
    Endpoint("/v1/chat/completions/batch", _chat_batch, reads_header=False),
    Endpoint("/invocations", _invocation),
)
"""Where vLLM reads a priority, found in 0.27.1 to 0.32.0."""

_SUFFIXES = tuple(endpoint.suffix for endpoint in ENDPOINTS)


def _messages(found: object) -> list[Any]:
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found[:MAX_NODES]):
        raise UnknownShapeError
    return found


def _texts(conversations: Sequence[list[Any]]) -> list[str]:
    return [text for messages in conversations if (text := chat_text(messages))]


def _chat_limit(fields: dict[str, Any]) -> Any:
    newer = fields.get("max_completion_tokens")
    return fields.get("max_tokens") if newer is None else newer


def _extra_chars(fields: dict[str, Any]) -> int:
    return text_chars(fields.get("tools"), names=True) + text_chars(fields.get("documents"), names=True)
