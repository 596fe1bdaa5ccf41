"""Large changes as many small transactions: whoever else writes gets a turn between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import sqlalchemy as sa

from pacs.index.engine import Engine

#: Rows removed in one transaction: about 20 ms of SQLite.
ROWS_AT_ONCE = 2000
_SHORTEST_PAUSE_SECONDS = 0.02


def in_batches(engine: Engine, work: Callable[[sa.Connection], int | None]) -> int:
    """Run ``work`` in one transaction after the other until it returns None; return the sum of what it returned.

    Between two of them the database is left alone for as long as the last one took: threads that wait for SQLite's one
    writer, and processes that poll for its lock, would otherwise hardly ever find it free.

    Raises:
        IndexUnavailable: what was done before stays.
    """
    total = 0
    while True:
        begin = time.monotonic()
        done = engine.transact(work)
        if done is None:
            return total
        total += done
        pause(max(_SHORTEST_PAUSE_SECONDS, time.monotonic() - begin))


def pause(seconds: float) -> None:
    """Let others write."""
    time.sleep(seconds)


def remove_with_parts(
    engine: Engine, parent: sa.Table, part: sa.Table, is_old: sa.ColumnElement[bool]
) -> int:
    """Remove the rows of ``parent`` that are old, and before each its rows of ``part``; return how many of ``parent``.

    The key of ``part`` begins with that of its parent.

    Raises:
        IndexUnavailable: what was removed before stays so.
    """
    parent_key, number = part.primary_key.columns
    old = sa.select(parent.c.id).where(is_old).order_by(parent.c.id).limit(ROWS_AT_ONCE)

    def work(connection: sa.Connection) -> int | None:
        keys = list(connection.scalars(old))
        if not keys:
            return None
        some = sa.select(parent_key, number).where(parent_key.in_(keys)).limit(ROWS_AT_ONCE)
        parts = sa.delete(part).where(sa.tuple_(parent_key, number).in_(some))
        if connection.execute(parts).rowcount == ROWS_AT_ONCE:
            return 0
        return int(connection.execute(sa.delete(parent).where(parent.c.id.in_(keys))).rowcount)

    return in_batches(engine, work)


def remove(engine: Engine, table: sa.Table, is_old: sa.ColumnElement[bool]) -> int:
    """Remove the rows of a table that are old; return how many.

    Raises:
        IndexUnavailable: what was removed before stays so.
    """
    some = sa.select(table.c.id).where(is_old).order_by(table.c.id).limit(ROWS_AT_ONCE)
    statement = sa.delete(table).where(table.c.id.in_(some))

    def work(connection: sa.Connection) -> int | None:
        return int(connection.execute(statement).rowcount) or None

    return in_batches(engine, work)
