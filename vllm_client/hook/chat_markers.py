"""Pure: the last user message out of a text that a chat template rendered.

Where the hook sits on the engine, messages are one text already, which begins with the system prompt. A ranker reads a few hundred
tokens from the beginning, so it would give all requests of a service one score.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

Render = Callable[[list[dict[str, str]]], object]

_FIRST, _REPLY, _LAST = "first7question", "given7answer", "last7question"
"""Contents that no template contains."""

SHORTEST_MARKER = 3
"""Characters, white space aside. A shorter one would be found in the middle of sentences."""


@dataclass(frozen=True, slots=True)
class ChatMarkers:
    """What a template writes around the content of a user message."""

    before: str
    after: str
    """May be empty."""

    def last_user_text(self, rendered: str) -> str:
        """Return the content of the last user message; `rendered` itself when it has none, as a plain prompt."""
        _, found, tail = rendered.rpartition(self.before)
        if not found:
            return rendered
        content = tail.partition(self.after)[0] if self.after else tail
        return content if content and not content.isspace() else rendered


def learn_markers(render: Render) -> ChatMarkers | None:
    """Render two conversations and see what surrounds their contents. None when the template cannot do that, or marks nothing.

    `render` takes messages of a conversation and returns the text with the beginning of a reply. It may raise anything.
    """
    first = {"role": "user", "content": _FIRST}
    try:
        short = render([first])
        long = render([first, {"role": "assistant", "content": _REPLY}, {"role": "user", "content": _LAST}])
        head, tail = _around(str(short), _FIRST)
        _, rest = _around(str(long), _FIRST)
        after_first, rest = _around(rest, _REPLY)
        before_last, _ = _around(rest, _LAST)
    except Exception:  # A template is a program of strangers, and so is what renders it.
        return None
    # What is alike in both places belongs to the message: a system prompt, or how a reply begins, differs.
    before = _common_start(head[::-1], before_last[::-1])[::-1]
    after = _common_start(tail, after_first)
    return ChatMarkers(before, after) if len("".join(before.split())) >= SHORTEST_MARKER else None


def _around(text: str, content: str) -> tuple[str, str]:
    before, found, after = text.partition(content)
    if not found:
        raise ValueError("the template drops messages")
    return before, after


def _common_start(one: str, other: str) -> str:
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(first for first, _ in alike)
