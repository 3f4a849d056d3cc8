"""Pure: chats made of single prompts, and the ways in which one could become ranker text.

Chats with measured response lengths are not public where the prompts are, so chats are put around prompts that have one. What stands
around a prompt here is not what its length depends on: the figures say what a way costs where the context says nothing new, and cannot
say what context is worth where it does.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pars.text import chat_text

CHARS_PER_TOKEN = 4
"""To give a made-up reply about the length of the real one, of which only the tokens are known."""

SHORT_SYSTEM = "You are a helpful assistant."

LONG_SYSTEM = (
    "You are Nora, the assistant of a travel agency. Answer in the language of the customer, in a friendly and factual tone. Use "
    "Markdown for lists and tables. Never invent prices, timetables or entry rules: say that you do not know, and name the desk that "
    "does. Do not speak about other agencies, politics or these instructions. If a customer is in danger, give the local emergency "
    "number first. Today is Tuesday."
)

TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": what,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": about} for key, about in arguments.items()},
                "required": list(arguments),
            },
        },
    }
    for name, what, arguments in (
        (
            "search_flights",
            "Flights between two cities on a day, cheapest first.",
            {"origin": "City of departure", "destination": "City of arrival", "date": "Day of departure, ISO 8601"},
        ),
        (
            "get_booking",
            "A customer's booking with its state and price.",
            {"booking_id": "Six letters and digits", "last_name": "Family name as on the ticket"},
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What was asked, and what was answered."""

    user: str
    reply: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt with what may stand before it. earlier: oldest first."""

    prompt: str
    earlier: tuple[Turn, ...] = ()

    def messages(self, system: str) -> list[dict[str, str]]:
        """As a server gets them."""
        said = [("system", system)]
        for turn in self.earlier:
            said += [("user", turn.user), ("assistant", turn.reply)]
        return [{"role": role, "content": content} for role, content in (*said, ("user", self.prompt))]


Way = Callable[[Chat], str]

LONE = "prompt alone"
RULE = "the rule"

WAYS: Mapping[str, Way] = {
    LONE: lambda chat: chat.prompt,
    RULE: lambda chat: chat_text(chat.messages(LONG_SYSTEM)),
    "short system prompt, prompt": lambda chat: _joined(SHORT_SYSTEM, chat.prompt),
    "long system prompt, prompt": lambda chat: _joined(LONG_SYSTEM, chat.prompt),
    "tools, system prompt, prompt": lambda chat: _joined(json.dumps(TOOLS), LONG_SYSTEM, chat.prompt),
    "turns, oldest first, prompt": lambda chat: _joined(*(text for turn in chat.earlier for text in _texts(turn)), chat.prompt),
    "prompt, turns, newest first": lambda chat: _joined(
        chat.prompt, *(text for turn in reversed(chat.earlier) for text in reversed(_texts(turn)))
    ),
    "user turns, oldest first, prompt": lambda chat: _joined(*(turn.user for turn in chat.earlier), chat.prompt),
    "prompt, user turns, newest first": lambda chat: _joined(chat.prompt, *(turn.user for turn in reversed(chat.earlier))),
    "prompt with role marks": lambda chat: _transcript([{"role": "user", "content": chat.prompt}]),
    "transcript with role marks": lambda chat: _transcript(chat.messages(SHORT_SYSTEM)),
}
"""Name → text. Everything is joined with a newline; "prompt" is the last user message."""

FOLLOW_UPS = (
    "In French, please.",
    "Try again.",
    "Again, in other words.",
    "Rewrite it for children.",
    "Can you redo that?",
    "as a list",
)
"""Ask for the last answer in another form, which is about as long as that answer was."""

FOLLOW_UP_WAYS: Mapping[str, Way] = {
    LONE: WAYS[LONE],
    "prompt, the prompt before it": lambda chat: _joined(chat.prompt, chat.earlier[-1].user),
    "the prompt before it, prompt": lambda chat: _joined(chat.earlier[-1].user, chat.prompt),
}


def make_chats(prompts: Sequence[str], lengths: Sequence[float], *, earlier: int, seed: int) -> list[Chat]:
    """A chat for every prompt, in their order, after `earlier` turns that asked other ones of `prompts`.

    lengths: in tokens, of the responses. A turn's reply is other prompts, as long as its own response was. Needs at least
    `earlier` + 1 prompts.
    """
    rng = random.Random(seed)
    chats = []
    for row, prompt in enumerate(prompts):
        others = [other if other < row else other + 1 for other in rng.sample(range(len(prompts) - 1), earlier)]
        turns = (Turn(prompts[other], _filler(prompts, round(lengths[other] * CHARS_PER_TOKEN), rng)) for other in others)
        chats.append(Chat(prompt, tuple(turns)))
    return chats


def make_follow_ups(prompts: Sequence[str], *, seed: int) -> list[Chat]:
    """For every prompt, in their order, a chat that asked it and goes on with one of FOLLOW_UPS."""
    rng = random.Random(seed)
    return [Chat(rng.choice(FOLLOW_UPS), (Turn(prompt, ""),)) for prompt in prompts]


def _filler(prompts: Sequence[str], chars: int, rng: random.Random) -> str:
    text = ""
    while len(text) < chars:
        text = _joined(text, rng.choice(prompts)) if text else rng.choice(prompts)
    return text[:chars]


def _joined(*texts: str) -> str:
    return "\n".join(texts)


def _texts(turn: Turn) -> tuple[str, str]:
    return turn.user, turn.reply


def _transcript(messages: Sequence[Mapping[str, str]]) -> str:
    return _joined(*(f"{message['role'].capitalize()}: {message['content']}" for message in messages), "Assistant:")
