"""How far the log of each process is in the index (``pacs.archive.instance_log``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.index import tables
from pacs.index.driver_statement import DriverStatement
from pacs.index.engine import Engine


@dataclass(frozen=True, slots=True)
class LogPosition:
    """All entries of a log up to a sequence number."""

    log: str
    position: int


class LogPositionWriter:
    """Writes a position in the transaction that indexes what the log holds up to there."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Write the statement in ``dialect``."""
        insert: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        statement = insert(tables.log_position)
        self._statement = statement.on_conflict_do_update(
            index_elements=["log"], set_={"position": statement.excluded.position}
        )
        self._driver_statement = DriverStatement(self._statement, dialect)

    def by_driver(self, cursor: Any, reached: LogPosition) -> None:
        """Write it through a cursor of the driver."""
        self._driver_statement.execute(cursor, {"log": reached.log, "position": reached.position})

    def __call__(self, connection: sa.Connection, reached: LogPosition) -> None:
        """Write it in the running transaction."""
        connection.execute(self._statement, {"log": reached.log, "position": reached.position})


class LogPositions:
    """Reads and removes positions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, log: str) -> int:
        """The sequence number up to which the entries of a log are in the index; 0 if none is.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        position = tables.log_position.c
        statement = sa.select(position.position).where(position.log == log)
        with self._engine.read() as connection:
            return int(connection.scalar(statement) or 0)

    def remove(self, log: str) -> None:
        """Forget a log that has no entries any more.

        Raises:
            IndexUnavailable: the index cannot be written.
        """
        statement = sa.delete(tables.log_position).where(tables.log_position.c.log == log)
        self._engine.transact(lambda connection: connection.execute(statement))
