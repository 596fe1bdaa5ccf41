"""How far the log of each process is in the index (``pacs.archive.instance_log``)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.index import tables
from pacs.index.driver_statement import DriverStatement
from pacs.index.engine import Engine


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the entries of a log are at their places, in sequence numbers."""

    log: str
    #: Up to here the entries are in the index.
    position: int
    #: Up to here their files are durable, too.
    settled: int


@dataclass(frozen=True, slots=True)
class FromLog:
    """What there is to know of records that come from a log."""

    #: How far the log is in the index with them; None if more of its entries have to be indexed before that is said.
    reached: LogPosition | None
    #: A location that was given just now. One behind it was given by a clock that is ahead, or was, and does not tell
    #: which of two instances is the later one (``DuplicatePolicy.LATEST``): then the one from the log is.
    horizon: str


class LogPositionWriter:
    """Writes a position in the transaction that indexes what the log holds up to there."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Write the statement in ``dialect``."""
        insert: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        statement = insert(tables.log_position)
        self._statement = statement.on_conflict_do_update(
            index_elements=["log"],
            set_={name: statement.excluded[name] for name in ("position", "settled")},
        )
        self._driver_statement = DriverStatement(self._statement, dialect)

    def by_driver(self, cursor: Any, reached: LogPosition) -> None:
        """Write it through a cursor of the driver."""
        self._driver_statement.execute(cursor, asdict(reached))

    def __call__(self, connection: sa.Connection, reached: LogPosition) -> None:
        """Write it in the running transaction."""
        connection.execute(self._statement, asdict(reached))


class LogPositions:
    """Reads and removes positions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self, log: str) -> LogPosition:
        """How far a log is; 0 and 0 if it is not known.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        table = tables.log_position
        statement = sa.select(table).where(table.c.log == log)
        with self._engine.read() as connection:
            row = connection.execute(statement).one_or_none()
        return LogPosition(log, 0, 0) if row is None else LogPosition(*row)

    def remove(self, log: str) -> None:
        """Forget a log that has no entries any more.

        Raises:
            IndexUnavailable: the index cannot be written.
        """
        statement = sa.delete(tables.log_position).where(tables.log_position.c.log == log)
        self._engine.transact(lambda connection: connection.execute(statement))
