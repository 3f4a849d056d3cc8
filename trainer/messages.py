"""Conversations of a column → the texts a ranker reads, by the rule that the hook goes by as well (`pars.text.chat_text`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pars.text import chat_text
from trainer.errors import DataError


def conversation_texts(values: Sequence[Any], name: str, path: Path) -> list[str]:
    """The ranker text of every row, same length and order, "" for a row without a conversation or without text from a user.

    values: of column `name` of `path`; each a list of {"role", "content"} or, where a format has no lists, the JSON of one. A reply at
    its end is the answer whose length the row has; like all that is not the user's, it is no part of the text. Raises DataError, naming
    file, column and row, for anything else.
    """
    return [_text(value, f"{path}: column {name!r}, row {row}") for row, value in enumerate(values, start=1)]


def _text(value: Any, where: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return ""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: neither a list of messages nor JSON: {error}") from error
    if not isinstance(value, list):
        raise DataError(f"{where}: {type(value).__name__}, expected a list of messages")
    for message in value:
        # Any role goes, any content too, as in the hook. Without the two names it is another format, which must not pass for silence.
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise DataError(f'{where}: expected every message to be an object with "role" and "content"')
    return chat_text(value)
