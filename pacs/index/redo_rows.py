"""The rows of ``redo``: bytes that the index keeps until the storage has them on its disk (``pacs.archive.redo``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from pacs.index import tables
from pacs.index.engine import Engine

_BATCH = 500


@dataclass(frozen=True, slots=True)
class RedoRow:
    """One file: where it belongs and what it contains."""

    location: str
    content: bytes


class RedoRows:
    """Reads and removes the rows; they are written with those of their instances (``pacs.index.ingest``)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def after(self, location: str, limit: int) -> list[RedoRow]:
        """The first rows behind this location, in the order of locations."""
        redo = tables.redo.c
        statement = (
            sa.select(redo.location, redo.content)
            .where(redo.location > location)
            .order_by(redo.location)
            .limit(limit)
        )
        with self._engine.read() as connection:
            return [RedoRow(*row) for row in connection.execute(statement)]

    def remove(self, locations: Sequence[str]) -> int:
        """Remove the rows of files that are durable; return how many there were."""

        def work(connection: sa.Connection) -> int:
            return sum(
                delete_redo(connection, locations[first : first + _BATCH])
                for first in range(0, len(locations), _BATCH)
            )

        return self._engine.transact(work)


def delete_redo(connection: sa.Connection, locations: Sequence[str]) -> int:
    """Remove the rows of these locations in the running transaction; return how many there were."""
    if not locations:
        return 0
    return connection.execute(_DELETE, {"locations": list(locations)}).rowcount


_DELETE = (
    sa.delete(tables.redo)
    .where(tables.redo.c.location.in_(sa.bindparam("locations", expanding=True)))
    .execution_options(preserve_rowcount=True)
)
