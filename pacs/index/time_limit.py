"""How long SQLite may work on one read: PostgreSQL has ``statement_timeout``, SQLite a progress handler."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

#: Virtual machine instructions between two looks at the clock: 0.2 to 1 ms.
_INSTRUCTIONS = 20_000
_KEY = "time_limit"


class TimeLimit:
    """Interrupts what one SQLite connection does when its time is up."""

    def __init__(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Watch ``connection``; nothing is limited outside :func:`limited`."""
        self._seconds = seconds
        self._deadline: float | None = None
        connection.set_progress_handler(self._is_over, _INSTRUCTIONS)

    def start(self) -> None:
        """The time runs from now."""
        self._deadline = time.monotonic() + self._seconds

    def stop(self) -> None:
        """No limit any more."""
        self._deadline = None

    def _is_over(self) -> int:
        return self._deadline is not None and time.monotonic() > self._deadline


def watch(connection: sqlite3.Connection, record: Any, seconds: float) -> None:
    """Prepare a new connection of a pool for :func:`limited`."""
    record.info[_KEY] = TimeLimit(connection, seconds)


@contextmanager
def limited(connection: sa.Connection) -> Iterator[None]:
    """Limit the time that SQLite works within the block; on PostgreSQL each statement is limited anyway."""
    limit: TimeLimit | None = connection.info.get(_KEY)
    if limit is None:
        yield
        return
    limit.start()
    try:
        yield
    finally:
        limit.stop()
