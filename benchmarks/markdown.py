"""Markdown as lists of lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

WIDTH = 128


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Cells hold no vertical bar."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def plural(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def paragraph(*sentences: str) -> list[str]:
    """One paragraph, wrapped; no sentences, no lines."""
    return textwrap.wrap(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)
