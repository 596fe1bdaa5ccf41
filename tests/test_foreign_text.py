"""Texts from outside are visible, harmless and bounded."""

from __future__ import annotations

import pytest

from pacs.foreign_text import visible, visible_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Müller^Jürgen", "Müller^Jürgen"),
        ("山田\u3000太郎", "山田\u3000太郎"),
        ("a\0b", r"a\x00b"),
        ("\x1b]0;title\x07\x7f", r"\x1b]0;title\x07\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("one\r\ntwo\tthree", r"one\x0d\x0atwo\x09three"),
        ("\u202ecod.exe\u2066", r"\u202ecod.exe\u2066"),
        ("\u2028\u2029\ufeff", r"\u2028\u2029\ufeff"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
        (r"A\B", r"A\B"),
        (None, "None"),
    ],
)
def test_visible_shows_what_has_no_glyph_as_its_escape(text: object, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a" * 8, "a" * 8), ("a" * 9, "a" * 7 + "…"), ("\0" * 3, r"\x00\x0…"), ("\0\0", r"\x00\x00")],
)
def test_visible_is_at_most_as_long_as_it_is_allowed(text: str, shown: str) -> None:
    assert visible(text, 8) == shown


def test_visible_lines_keeps_the_lines() -> None:
    assert visible_lines("one\ntwo\x1b\r\n") == "one\ntwo\\x1b\\x0d\n"
