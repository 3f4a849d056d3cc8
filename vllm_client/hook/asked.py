"""What a request tells the hook, whatever its form was."""

from dataclasses import dataclass

CHARS_PER_TOKEN = 4
"""For estimates, both ways: of a prompt whose beginning alone the ranker read, and of one that came as token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a client. Only what a priority needs; no part of it is ever logged."""

    texts: tuple[str, ...] = ()
    """Ranker texts (`pars.text`), clipped, at most `max_prompts` of them. Empty: nothing here can be scored."""
    prompt_chars: int = 0
    """Characters of everything that the model will read, before clipping."""
    max_tokens: int | None = None
    """The caller's limit on response tokens; None: none given."""
    samples: int = 1
    """Responses asked for per text, at least 1."""
    client_priority: int | None = None
    """The priority the client set itself; None: none that the server would obey."""
    class_delay_ms: int = 0
    """Delay of the request's traffic class, see HookSettings.classes."""
