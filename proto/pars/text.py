"""The text a ranker reads. Trainer, sidecar and hook go through this file, so that they cannot disagree.

Standard library only: the hook imports it inside somebody else's server.
"""

from typing import Any

MAX_CHARS = 16_384
"""Characters of a prompt that are worth tokenising.

Rankers read a few hundred tokens at most, and a token is rarely longer than ten characters, so nothing past this can reach
the model in practice. Without the cut a 1 MB prompt costs a tokenizer about a second.
"""


MAX_LOOKS = 4_096
"""Messages and parts of a conversation that are looked at for its text. No honest one hides it deeper, and a megabyte holds
half a million."""


def clip(text: str, max_chars: int = MAX_CHARS) -> tuple[str, bool]:
    """Return the beginning of `text`, at most `max_chars` characters, and whether anything was cut."""
    return text[:max_chars], len(text) > max_chars


def chat_text(messages: object) -> str:
    """Return how a conversation looks to a ranker: the text of the last user message that has any, "" when none has.

    Rankers are trained on single prompts, so they are asked about the one that the response answers: not about the system prompt,
    which is alike in most requests of a service, nor about earlier turns, which would fill the few hundred tokens that a ranker
    reads before the question comes. Trainer and hook must both go through this function, or a ranker is asked about a kind of
    text that it never saw.

    `messages` is a list of {"role": ..., "content": ...} as in JSON; content is text, or a list of parts, of which the text ones
    are joined with a newline ("text", OpenAI's and Anthropic's, and "input_text", of OpenAI's responses). A message of images or
    tool results alone has no text, nor has one of white space alone; the one before it counts then. Whatever has another shape is
    passed over, nothing raises, and no more than `MAX_LOOKS` messages and parts are looked at: this reads what strangers send.
    """
    looks = MAX_LOOKS
    for message in reversed(messages) if isinstance(messages, list) else ():
        looks -= 1
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                parts = content[: max(looks, 0)]
                looks -= len(parts)
                content = "\n".join([text for part in parts if (text := _part_text(part))])
            if isinstance(content, str) and content and not content.isspace():
                return content
        if looks <= 0:
            break
    return ""


def _part_text(part: Any) -> str:
    if isinstance(part, dict):
        part = part.get("text") if part.get("type", "text") in ("text", "input_text") else None
    return part if isinstance(part, str) else ""
