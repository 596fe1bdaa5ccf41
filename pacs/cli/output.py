"""What the commands print: tables, JSON, log lines."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # it takes longer to import than most commands work
    from rich.console import Console

from pacs.foreign_text import visible, visible_lines


class VisibleFormatter(logging.Formatter):
    """Writes one line for each message, whatever a peer put into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the standard library's
        """Put the message into the line."""
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """Write a traceback, whose last line quotes what was wrong."""
        return visible_lines(super().formatException(ei))


#: The exit code of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130

#: Identifiers with many UIDs are printed whole.
_LONGEST_PRINTED = 1 << 16
#: All that may be no visible character.
_UNSEEN = re.compile("[^ -~]")
_FORMAT = "%(asctime)s %(levelname)-7s {origin}%(message)s"
_STYLES = {"bold": "1", "bold red": "1;31"}


class Printer:
    """Prints lines on standard output or standard error, and nothing in them that a terminal would obey."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr

    @property
    def file(self) -> TextIO:
        """Where it goes now: tests and redirections replace it."""
        return sys.stderr if self._stderr else sys.stdout

    @property
    def is_terminal(self) -> bool:
        """Whether a person may be looking."""
        return self.file.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def rich(self) -> Console:
        """The same for rich, which draws the progress bars."""
        from rich.console import Console  # noqa: PLC0415 - as above

        return Console(
            stderr=self._stderr, markup=False, emoji=False, highlight=False, soft_wrap=True
        )

    def print(self, text: str, *, style: str = "") -> None:
        """Print a text in one line; ``style`` is for terminals only, and there is no markup."""
        self.write(self.styled(visible(text, _LONGEST_PRINTED), style) + "\n")

    def write(self, text: str) -> None:
        """Write a text as it is, and have it seen: who waits for a line reads it at once."""
        self.file.write(text)
        self.file.flush()

    def styled(self, text: str, style: str) -> str:
        """The text in a style, on a terminal that is not to be without."""
        if not style or not self.is_terminal or os.environ.get("NO_COLOR"):
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


console = Printer()
errors = Printer(stderr=True)


def configure_logging(level: str, *, identifiers: bool = False, origin: str = "") -> None:
    """Log to standard error at ``level``; Identifiers only if asked for, since they hold patient data.

    ``origin`` names the process in each line, where there are several.
    """
    prefix = f"{origin}: " if origin else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter(_FORMAT.format(origin=prefix)))
    logging.basicConfig(handlers=[handler], force=True)
    logging.getLogger("pacs").setLevel(level.upper())
    logging.getLogger("pacs.identifiers").disabled = not identifiers
    for library in ("pynetdicom", "pydicom", "alembic", "sqlalchemy"):
        # Their view of a peer's mistakes is in our own lines.
        logging.getLogger(library).setLevel(logging.CRITICAL if level != "debug" else logging.INFO)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    document = json.dumps(value, ensure_ascii=False, indent=2, default=str)
    # JSON itself escapes the first 32 characters only. The document stays the same value.
    lines = (_UNSEEN.sub(_json_escape, line) for line in document.split("\n"))
    sys.stdout.write("\n".join(lines) + "\n")


def _json_escape(found: re.Match[str]) -> str:
    shown = found[0]
    return shown if shown.isprintable() else json.dumps(shown)[1:-1].replace("\x7f", r"\u007f")


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Print a table at its full width; return the number of rows.

    Lines are never folded: a UID that is cut in pieces cannot be copied, and a pipe wants one line a row.
    """
    cells = [tuple(map(_plain, row)) for row in rows]
    widths = [max(map(_columns, column)) for column in zip(tuple(headings), *cells, strict=True)]
    lines = [title] if title else []
    lines.append(console.styled(_line(headings, widths), "bold"))
    lines += [_line(row, widths) for row in cells]
    console.write("\n".join(lines) + "\n")
    return len(cells)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell + " " * (width - _columns(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def _plain(cell: object) -> str:
    return "" if cell is None else visible(cell, _LONGEST_PRINTED)


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: ideographs take two, combining characters none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def human_size(size_bytes: int) -> str:
    """A size in bytes in the unit that suits it."""
    size = float(size_bytes)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
