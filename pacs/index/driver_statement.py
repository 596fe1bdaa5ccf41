"""A statement prepared for the driver: SQLAlchemy's work per statement is several times the driver's.

For those few of which there is one for each instance that is stored. They run through ``Engine.attempt``, which gives
up on any error: whoever calls runs the same through SQLAlchemy then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa


class DriverStatement:
    """One statement as text, and what turns its parameters into values that the driver takes."""

    def __init__(self, statement: Any, dialect: sa.Dialect) -> None:
        """Write ``statement`` in ``dialect``."""
        compiled = statement.compile(dialect=dialect)
        self._sql = str(compiled)
        #: For a driver whose parameters have positions; the others take names.
        self._names: list[str] | None = getattr(compiled, "positiontup", None)
        self._processors: dict[str, Callable[[Any], Any]] = {
            name: process
            for name, bind in compiled.binds.items()
            if (process := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }

    def execute(self, cursor: Any, row: Mapping[str, Any]) -> None:
        """Run it once."""
        cursor.execute(self._sql, self._parameters(row))

    def execute_many(self, cursor: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it for each row; the cursor counts the rows that were written in all."""
        if len(rows) == 1:
            self.execute(cursor, rows[0])
        else:
            cursor.executemany(self._sql, [self._parameters(row) for row in rows])

    def _parameters(self, row: Mapping[str, Any]) -> Any:
        if self._processors:
            row = dict(row)
            for name, process in self._processors.items():
                row[name] = process(row[name])
        return row if self._names is None else [row[name] for name in self._names]
