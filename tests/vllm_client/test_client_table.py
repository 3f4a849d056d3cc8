"""Any text in, an orderly table out."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllm_client.table import aligned, one_line


def cells(line):
    """Terminal cells, counted apart from the code under test."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n", "two␊lines␍␊"),
        ("\x1b[31mred\x07", "␛[31mred␇"),
        ("tab\there\x7f\0", "tab␉here␡␀"),
        ("turned \u202eround\u202c", "turned round"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("line\u2028separator", "line␤separator"),
        ("lone \ud800", "lone \ufffd"),
        ("c1 \x9b31m", "c1 \ufffd31m"),
        ("日本語", "日本語"),
        ("e\u0301", "e\u0301"),
        ("", ""),
    ],
)
def test_everything_becomes_one_printable_line(text, shown):
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "max_cells", "shown"),
    [
        ("exactly", 7, "exactly"),
        ("too long", 7, "too lo…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("ne\u0301e\u0301", 3, "ne\u0301e\u0301"),
    ],
)
def test_cut_to_cells_not_to_characters(text, max_cells, shown):
    assert one_line(text, max_cells) == shown


@given(st.text(), st.integers(1, 40))
def test_never_wider_than_asked_and_never_a_control_character(text, max_cells):
    shown = one_line(text, max_cells)
    assert cells(shown) <= max_cells
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)


def test_a_megabyte_prompt_is_cut_without_reading_it_all():
    assert one_line("x" * 1_000_000, 10) == "xxxxxxxxx…"


def test_columns_line_up():
    lines = aligned(("#", "score", "prompt"), [("1", "-1.5", "short"), ("10", "2", "wide 日本語 and long")], 24)
    assert lines == [
        " #  score  prompt",
        " 1   -1.5  short",
        "10      2  wide 日本語 …",
    ]


def test_a_narrow_terminal_still_shows_some_of_the_prompt():
    assert aligned(("number", "prompt"), [("123456", "abcdefghijkl")], 5)[1] == "123456  abcdefghi…"
