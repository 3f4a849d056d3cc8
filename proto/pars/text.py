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


def encodable(text: str) -> str:
    """Return `text` with a "?" for each lone surrogate: JSON can spell one, UTF-8 and tokenizers cannot take it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def chat_text(messages: object) -> str:
    """Return how a conversation looks to a ranker: the text of the last user message that has any, "" when none has.

    The rule, for training and serving alike; docs/decisions/0011-a-chat-is-its-last-user-message.md has the figures behind it:

    - One turn, the last of the user's, as it was written: no marks of roles, nothing stripped. `clip`, and then the number of tokens
      that a ranker reads, cut its end.
    - No other turn. What stands before the question fills the few hundred tokens that are read; what stands behind it changes what the
      ranker takes the question for. So no system prompt, no tool schemas, calls or results, no earlier turn, no reply: in a loop of
      tool calls the text stays the same, and a reply that ends the conversation, which in training is the answer, cannot leak.
    - A follow-up such as "continue" is no exception. It is scored alone, and a ranker trained on your conversations learns how long
      the responses to it are.
    - Nothing of the request around the messages. `max_tokens`, `n` and the length of everything that is read before the response go to
      the policy (vllm_client/priority.py), temperature, `stop` and `min_tokens` nowhere.

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
        # None: tables give every part of a column the members that any of them has.
        part = part.get("text") if part.get("type") in (None, "text", "input_text") else None
    return part if isinstance(part, str) else ""
