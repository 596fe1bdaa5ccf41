"""The recorded associations: so many of the newest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pacs.index.batches import ROWS_AT_ONCE, remove
from pacs.index.engine import Engine
from pacs.index.tables import association
from pacs.model.associations import (
    AssociationEnding,
    AssociationRecord,
    OperationRecord,
    ProposedContext,
)


class Associations:
    """Writes and reads the records; safe to call from several threads.

    Every method raises IndexUnavailable when the database cannot be reached; then nothing is changed.
    """

    def __init__(self, engine: Engine) -> None:
        """Keep the records in ``engine``."""
        self._engine = engine

    def add(self, batch: Sequence[AssociationRecord], *, keep: int) -> None:
        """Record some associations, and forget the oldest ones beyond ``keep``."""
        rows = [_row(record) for record in batch]

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.insert(association), rows)
            newest = sa.select(association.c.id).order_by(association.c.id.desc())
            oldest_kept = newest.offset(keep).limit(1).scalar_subquery()
            # Where ``keep`` has become less, not all at once.
            forgotten = sa.select(association.c.id).where(association.c.id <= oldest_kept)
            some = forgotten.order_by(association.c.id).limit(ROWS_AT_ONCE)
            connection.execute(sa.delete(association).where(association.c.id.in_(some)))

        if rows:
            self._engine.transact(work)

    def newest(
        self, limit: int = 1, *, calling_ae: str | None = None, only_problems: bool = False
    ) -> list[AssociationRecord]:
        """The newest records, newest first."""
        statement = sa.select(association).order_by(association.c.id.desc()).limit(limit)
        if calling_ae is not None:
            statement = statement.where(association.c.calling_ae == calling_ae)
        if only_problems:
            statement = statement.where(association.c.is_problem.is_(True))
        with self._engine.read() as connection:
            return [_record(row) for row in connection.execute(statement)]

    def get(self, key: int) -> AssociationRecord | None:
        """One record, if there is one with this key."""
        statement = sa.select(association).where(association.c.id == key)
        with self._engine.read() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _record(row)

    def prune(self, before: datetime) -> int:
        """Remove the records of associations that began before ``before``, some at a time; return how many."""
        return remove(self._engine, association, association.c.started_at < before)


def _row(record: AssociationRecord) -> dict[str, Any]:
    return {
        "calling_ae": record.calling_ae,
        "called_ae": record.called_ae,
        "calling_host": record.calling_host,
        "tls": record.tls,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "ending": record.ending.value,
        "codes": json.dumps(record.codes),
        "detail": record.detail,
        "is_problem": record.is_problem,
        "contexts": json.dumps([asdict(one) for one in record.contexts]),
        "operations": json.dumps([asdict(one) for one in record.operations]),
    }


def _record(row: Any) -> AssociationRecord:
    return AssociationRecord(
        key=row.id,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        calling_host=row.calling_host,
        tls=row.tls,
        started_at=row.started_at,
        finished_at=row.finished_at,
        ending=AssociationEnding(row.ending),
        codes=tuple(json.loads(row.codes)),
        detail=row.detail,
        is_problem=row.is_problem,
        contexts=tuple(ProposedContext(**_tuples(one)) for one in json.loads(row.contexts)),
        operations=tuple(OperationRecord(**_tuples(one)) for one in json.loads(row.operations)),
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
