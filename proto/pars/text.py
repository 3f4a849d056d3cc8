"""The text a ranker reads. Trainer, sidecar and hook go through this file, so that they cannot disagree.

Standard library only: the hook imports it inside somebody else's server.
"""

MAX_CHARS = 16_384
"""Characters of a prompt that are worth tokenising.

Rankers read a few hundred tokens at most, and a token is rarely longer than ten characters, so nothing past this can reach
the model in practice. Without the cut a 1 MB prompt costs a tokenizer about a second.
"""


def clip(text: str, max_chars: int = MAX_CHARS) -> tuple[str, bool]:
    """Return the beginning of `text`, at most `max_chars` characters, and whether anything was cut."""
    return text[:max_chars], len(text) > max_chars
