"""The INSERT of new instances under parents that are remembered, prepared for the driver.

Theory of operation. The statement selects from the parent rows and demands the revisions that are remembered, and
leaves an instance alone that is there already. If it inserts fewer rows than it was given, something is not as it
was thought to be; which thing, ``pacs.index.ingest`` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.index import tables
from pacs.index.driver_statement import DriverStatement
from pacs.index.instance_rows import guarded_insert


class KnownInsert:
    """Inserts rows of ``instance_row`` through a cursor of the driver."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Write the statements in ``dialect``."""
        insert: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        statement: Any = guarded_insert(insert(tables.instance))
        self._insert = DriverStatement(
            statement.on_conflict_do_nothing(index_elements=["sop_instance_uid"]), dialect
        )
        self._keep = DriverStatement(sa.insert(tables.redo), dialect)

    def __call__(
        self,
        cursor: Any,
        rows: Sequence[Mapping[str, Any]],
        contents: Sequence[tuple[str, bytes]],
    ) -> bool:
        """Insert instances and the (location, content) of files to keep; return whether each one was."""
        self._insert.execute_many(cursor, rows)
        if cursor.rowcount != len(rows):
            return False
        if contents:
            kept = [{"location": location, "content": content} for location, content in contents]
            self._keep.execute_many(cursor, kept)
        return True
