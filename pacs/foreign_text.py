r"""Texts from outside (of peers, files and certificates) as a database, a log and a terminal take them.

A peer may send any character: a NUL, which PostgreSQL refuses; an escape sequence, which a terminal obeys; a line
break, which forges a line of a log; a mark that turns the direction of what follows. What shows no glyph is written
as its escape (``\x1b``), so that nothing is lost and nothing is obeyed. It is applied where a text leaves: to the
columns of records (``pacs.index.tables``), to log lines and to what is printed (``pacs.cli.output``) and to reports.
"""

from __future__ import annotations

import unicodedata

#: A text that belongs on a line of its own; longer ones are no texts.
LONGEST_LINE = 8_192
_CUT = "\N{HORIZONTAL ELLIPSIS}"


def visible(text: object, longest: int = LONGEST_LINE) -> str:
    """The text in one line of at most ``longest`` characters; an ellipsis says that it was cut."""
    whole = str(text)
    # Cut before it is looked at: it may be of any length.
    shown = whole[: longest + 1]
    if not shown.isprintable():
        shown = "".join(
            character if _is_shown(character) else _escape(character) for character in shown
        )
    return shown if len(shown) <= longest else shown[: longest - 1] + _CUT


def visible_lines(text: object, longest: int = LONGEST_LINE) -> str:
    """The same for each line of a text that has several."""
    return "\n".join(visible(line, longest) for line in str(text).split("\n"))


def _is_shown(character: str) -> bool:
    # Spaces of other scripts are in names: U+3000 stands between the parts of a Japanese one.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"
