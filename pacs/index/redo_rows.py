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

    def locations(self) -> list[str]:
        """Where the files belong, in the order of locations."""
        statement = sa.select(tables.redo.c.location).order_by(tables.redo.c.location)
        with self._engine.read() as connection:
            return list(connection.scalars(statement))

    def read(self, locations: Sequence[str]) -> list[RedoRow]:
        """The rows of these locations that are still there, at most 500 at a time; in the order of locations."""
        redo = tables.redo.c
        statement = (
            sa.select(redo.location, redo.content)
            .where(redo.location.in_(locations))
            .order_by(redo.location)
        )
        with self._engine.read() as connection:
            return [RedoRow(*row) for row in connection.execute(statement)]

    def remove(self, locations: Sequence[str]) -> None:
        """Remove the rows of files that are durable; those that are gone already are no error."""

        def work(connection: sa.Connection) -> None:
            for first in range(0, len(locations), _BATCH):
                delete_redo(connection, locations[first : first + _BATCH])

        self._engine.transact(work)


def delete_redo(connection: sa.Connection, locations: Sequence[str]) -> None:
    """Remove the rows of these locations in the running transaction."""
    connection.execute(_DELETE, {"locations": list(locations)})


_DELETE = sa.delete(tables.redo).where(
    tables.redo.c.location.in_(sa.bindparam("locations", expanding=True))
)
