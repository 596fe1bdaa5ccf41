"""What the commands print: tables, JSON, log lines."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pacs.foreign_text import visible, visible_lines


class VisibleConsole(Console):
    """Prints what peers sent as well: no character that a terminal would obey, no markup and no emoji codes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text, or a cell of a table, fit to be shown, in one line."""
        return super().render_str(visible(text, _LONGEST_PRINTED), **options)


class VisibleFormatter(logging.Formatter):
    """Writes one line for each message, whatever a peer put into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the standard library's
        """Put the message into the line."""
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """Write a traceback, whose last line quotes what was wrong."""
        return visible_lines(super().formatException(ei))


console = VisibleConsole(soft_wrap=True)
errors = VisibleConsole(stderr=True, soft_wrap=True)

#: The exit code of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130

#: Identifiers with many UIDs are printed whole.
_LONGEST_PRINTED = 1 << 16
#: All that may be no visible character.
_UNSEEN = re.compile("[^ -~]")
#: Wider than any table; rich has no notion of "as wide as it takes".
_UNLIMITED_COLUMNS = 10_000
_FORMAT = "%(asctime)s %(levelname)-7s {origin}%(message)s"


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
    table = Table(title=title or None, box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    count = 0
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
        count += 1
    # Not the shared console: rich cuts tables at the width it finds, 80 columns for a pipe.
    VisibleConsole(file=console.file, width=_UNLIMITED_COLUMNS).print(table)
    return count


def human_size(size_bytes: int) -> str:
    """A size in bytes in the unit that suits it."""
    size = float(size_bytes)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
