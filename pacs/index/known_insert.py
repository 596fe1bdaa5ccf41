"""The INSERT of new instances under parents that are remembered, prepared for the driver.

Theory of operation. The statement selects from the parent rows and demands the revisions that are remembered, and
leaves an instance alone that is there already. If it inserts fewer rows than it was given, something is not as it
was thought to be; which thing, ``pacs.index.ingest`` finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.index import tables
from pacs.index.instance_rows import INSTANCE_COLUMNS, guarded_insert


class KnownInsert:
    """Inserts rows of ``instance_row`` through a cursor of the driver."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Write the statement in ``dialect``."""
        table, key = tables.instance, "sop_instance_uid"
        statement: sa.Insert
        if dialect.name == "sqlite":
            statement = guarded_insert(sqlite.insert(table)).on_conflict_do_nothing(
                index_elements=[key]
            )
        else:
            statement = guarded_insert(postgresql.insert(table)).on_conflict_do_nothing(
                index_elements=[key]
            )
        compiled = statement.compile(dialect=dialect)
        self._sql = str(compiled)
        #: For a driver whose parameters have positions; the others take the row as it is.
        self._names: list[str] | None = getattr(compiled, "positiontup", None)
        self._processors = _processors(dialect)
        redo = sa.insert(tables.redo).compile(dialect=dialect)
        self._redo_sql = str(redo)
        self._redo_names: list[str] | None = getattr(redo, "positiontup", None)

    def __call__(
        self,
        cursor: Any,
        rows: Sequence[Mapping[str, Any]],
        contents: Sequence[tuple[str, bytes]],
    ) -> bool:
        """Insert instances and the (location, content) of files to keep; return whether each one was."""
        _execute(cursor, self._sql, [self._parameters(row) for row in rows])
        if cursor.rowcount != len(rows):
            return False
        if contents:
            _execute(cursor, self._redo_sql, list(map(self._redo_parameters, contents)))
        return True

    def _redo_parameters(self, kept: tuple[str, bytes]) -> Any:
        # The driver's own order of columns is that of the table, location first.
        return kept if self._redo_names else {"location": kept[0], "content": kept[1]}

    def _parameters(self, row: Mapping[str, Any]) -> Any:
        values = dict(row)
        for name, process in self._processors.items():
            values[name] = process(values[name])
        return values if self._names is None else [values[name] for name in self._names]


def _execute(cursor: Any, sql: str, parameters: list[Any]) -> None:
    if len(parameters) == 1:
        cursor.execute(sql, parameters[0])
    else:
        cursor.executemany(sql, parameters)


def _processors(dialect: sa.Dialect) -> dict[str, Callable[[Any], Any]]:
    """What turns a value into one that the driver takes, for the columns that need it."""
    made = (
        (c.name, c.type.dialect_impl(dialect).bind_processor(dialect)) for c in INSTANCE_COLUMNS
    )
    return {name: process for name, process in made if process is not None}
