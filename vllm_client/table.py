"""Pure: any text → aligned lines for a terminal. Prompts come from anywhere and must break neither table nor screen."""

import unicodedata
from collections.abc import Iterator, Sequence

_ELLIPSIS = "…"


def one_line(text: str, max_cells: int | None = None) -> str:
    """Return `text` as one printable line, cut to `max_cells` terminal cells with an ellipsis when it does not fit.

    Control characters become their pictures (a newline is ␊), so an escape sequence is shown and not obeyed; invisible format
    characters are dropped, the ones that turn the writing direction round above all; what has no glyph becomes U+FFFD.
    """
    cells = 0
    shown: list[tuple[str, int]] = []
    for char, width in _printable(text):
        cells += width
        if max_cells is not None and cells > max_cells:
            return _cut(shown, max_cells)
        shown.append((char, width))
    return "".join(char for char, _ in shown)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], max_cells: int) -> list[str]:
    """Return the lines of a table, header first: right-aligned columns of ASCII, then one column of any text, cut to fit.

    Every row has the header's length. Lines have no trailing blanks and at most `max_cells` cells, but the last column always
    keeps at least 10.
    """
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header) - 1)]
    last_cells = max(10, max_cells - sum(widths) - 2 * len(widths))
    return ["  ".join([*map(str.rjust, row, widths), one_line(row[-1], last_cells)]).rstrip() for row in (header, *rows)]


def _printable(text: str) -> Iterator[tuple[str, int]]:
    """Yield each character that shows, with its width in terminal cells: 2 for wide ones, 0 for combining marks."""
    for char in text:
        code, category = ord(char), unicodedata.category(char)
        if code < 0x20:
            yield chr(0x2400 + code), 1
        elif code == 0x7F:
            yield "\u2421", 1
        elif category in ("Zl", "Zp"):
            yield "\u2424", 1
        elif category in ("Cc", "Cs", "Co", "Cn"):
            yield "\ufffd", 1
        elif category == "Cf" or 0xFE00 <= code <= 0xFE0F:
            continue  # Variation selectors too: terminals disagree on how wide they make their neighbour.
        elif category in ("Mn", "Me"):
            yield char, 0
        else:
            yield char, 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(shown: list[tuple[str, int]], max_cells: int) -> str:
    cells = sum(width for _, width in shown)
    while shown and cells > max_cells - 1:
        cells -= shown.pop()[1]
    return "".join(char for char, _ in shown) + _ELLIPSIS
