"""What the commands print: tables, JSON, log lines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

#: The exit code of a command that Ctrl-C ended, as shells have it.
INTERRUPTED = 130

#: Wider than any table; rich has no notion of "as wide as it takes".
_UNLIMITED_COLUMNS = 10_000
_FORMAT = "%(asctime)s %(levelname)-7s {origin}%(message)s"


def configure_logging(level: str, *, identifiers: bool = False, origin: str = "") -> None:
    """Log to standard error at ``level``; Identifiers only if asked for, since they hold patient data.

    ``origin`` names the process in each line, where there are several.
    """
    prefix = f"{origin}: " if origin else ""
    logging.basicConfig(format=_FORMAT.format(origin=prefix), stream=sys.stderr, force=True)
    logging.getLogger("pacs").setLevel(level.upper())
    logging.getLogger("pacs.identifiers").disabled = not identifiers
    for library in ("pynetdicom", "pydicom", "alembic", "sqlalchemy"):
        # Their view of a peer's mistakes is in our own lines.
        logging.getLogger(library).setLevel(logging.CRITICAL if level != "debug" else logging.INFO)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Print a table at its full width; return the number of rows.

    Lines are never folded: a UID that is cut in pieces cannot be copied, and a pipe wants one line a row.
    """
    table = Table(title=title or None, box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    count = 0
    for row in rows:
        table.add_row(*("" if cell is None else _plain(cell) for cell in row))
        count += 1
    # Not the shared console: rich cuts tables at the width it finds, 80 columns for a pipe.
    Console(file=console.file, width=_UNLIMITED_COLUMNS, highlight=False).print(table)
    return count


def _plain(cell: object) -> str:
    # Values come from peers: no markup, no control characters that a terminal would obey.
    text = "".join(character if character.isprintable() else "?" for character in str(cell))
    return text.replace("[", r"\[")


def human_size(size_bytes: int) -> str:
    """A size in bytes in the unit that suits it."""
    size = float(size_bytes)
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
