"""The recorded C-MOVE and C-GET operations and their sub-operations.

A retrieve without an end is running, or was interrupted by the end of its process, whose token the record has:
``pacs.index.leases`` can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pacs.index.batches import remove_with_parts
from pacs.index.engine import Engine
from pacs.index.leases import Claims
from pacs.index.process_token import ProcessToken
from pacs.index.tables import retrieve, sub_operation
from pacs.model.remote_ae import Service
from pacs.model.retrieves import (
    RetrieveOutcome,
    RetrieveRecord,
    RetrieveRequest,
    RetrieveState,
    SubOperationOutcome,
    SubOperationRecord,
)

_ROWS_IN_MEMORY = 500
#: The retrieves that a process carries out, interrupted if it has ended.
CLAIMS = Claims(
    retrieve,
    sa.and_(retrieve.c.finished_at.is_(None), retrieve.c.interrupted.is_(False)),
    lambda _now: {"interrupted": True},
)


class Journal:
    """Writes and reads the records; safe to call from several threads."""

    def __init__(self, engine: Engine) -> None:
        """Keep the records in ``engine``."""
        self._engine = engine

    def begin_retrieve(self, request: RetrieveRequest) -> int:
        """Record that a retrieve began and return the record's key.

        Raises:
            IndexUnavailable: nothing was recorded.
        """
        row = {
            "calling_ae": request.calling_ae,
            "calling_host": request.calling_host,
            "service": request.service.value,
            "model": request.model,
            "level": request.level,
            "identifier": request.identifier,
            "destination": request.destination,
            "message_id": request.message_id,
            "process": str(ProcessToken.own()),
            "started_at": request.started_at,
            "active_at": request.started_at,
            "interrupted": False,
            "error_comment": "",
        }
        statement = sa.insert(retrieve).returning(retrieve.c.id)

        def work(connection: sa.Connection) -> int:
            key: int = connection.execute(statement, row).scalar_one()
            return key

        return self._engine.transact(work)

    def record_sub_operations(self, key: int, batch: Sequence[SubOperationRecord]) -> None:
        """Record what became of some sub-operations, in one transaction.

        Raises:
            IndexUnavailable: none of them was recorded.
        """
        if not batch:
            return
        active = sa.update(retrieve).where(retrieve.c.id == key).values(active_at=datetime.now(UTC))

        def work(connection: sa.Connection) -> None:
            _insert(connection, key, batch)
            connection.execute(active)

        self._engine.transact(work)

    def finish_retrieve(
        self, key: int, outcome: RetrieveOutcome, batch: Sequence[SubOperationRecord] = ()
    ) -> None:
        """Record how a retrieve ended, and its last sub-operations, in one transaction.

        Raises:
            IndexUnavailable: neither was recorded.
        """
        now = datetime.now(UTC)
        statement = (
            sa.update(retrieve)
            .where(retrieve.c.id == key)
            .values(
                finished_at=now,
                active_at=now,
                interrupted=False,
                status=outcome.status,
                completed=outcome.completed,
                failed=outcome.failed,
                warning=outcome.warning,
                remaining=outcome.remaining,
                error_comment=outcome.error_comment,
            )
        )

        def work(connection: sa.Connection) -> None:
            if batch:
                _insert(connection, key, batch)
            connection.execute(statement)

        self._engine.transact(work)

    def retrieves(self, limit: int = 100) -> list[RetrieveRecord]:
        """The newest records, newest first.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        newest = sa.select(retrieve).order_by(retrieve.c.started_at.desc(), retrieve.c.id.desc())
        with self._engine.read() as connection:
            return [_record(row) for row in connection.execute(newest.limit(limit))]

    def retrieves_ending_in(self, ending: str, *, after: int) -> list[RetrieveRecord]:
        """The records after one whose Identifier ends in a text, oldest first.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        found = sa.select(retrieve).where(
            retrieve.c.id > after, retrieve.c.identifier.endswith(ending, autoescape=True)
        )
        with self._engine.read() as connection:
            return [_record(row) for row in connection.execute(found.order_by(retrieve.c.id))]

    def retrieve(self, key: int) -> RetrieveRecord | None:
        """One record, if there is one with this key.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        with self._engine.read() as connection:
            row = connection.execute(sa.select(retrieve).where(retrieve.c.id == key)).one_or_none()
        return None if row is None else _record(row)

    def sub_operations(self, key: int) -> Iterator[SubOperationRecord]:
        """The recorded sub-operations of a retrieve in order, streamed.

        Raises:
            IndexUnavailable: also while iterating.
        """
        statement = (
            sa.select(sub_operation)
            .where(sub_operation.c.retrieve_pk == key)
            .order_by(sub_operation.c.number)
        )
        with self._engine.read() as connection:
            streaming = connection.execution_options(yield_per=_ROWS_IN_MEMORY)
            with streaming.execute(statement) as rows:
                for row in rows:
                    yield _sub_operation(row)

    def prune(self, before: datetime) -> int:
        """Remove the records of retrieves that began before ``before``; return how many.

        Raises:
            IndexUnavailable: what was removed before stays so.
        """
        return remove_with_parts(
            self._engine, retrieve, sub_operation, retrieve.c.started_at < before
        )


def _insert(connection: sa.Connection, key: int, batch: Sequence[SubOperationRecord]) -> None:
    """Insert consecutive sub-operations of a retrieve."""
    rows = [
        {
            "retrieve_pk": key,
            "number": record.number,
            "sop_class_uid": record.sop_class_uid,
            "sop_instance_uid": record.sop_instance_uid,
            "outcome": record.outcome.value,
            "status": record.status,
            "error_comment": record.error_comment,
            "size_bytes": record.size_bytes,
            "duration_seconds": record.duration_seconds,
        }
        for record in batch
    ]
    # Run again after a commit that succeeded unnoticed, the rows are there already.
    earlier = {"key": key, "first": batch[0].number, "last": batch[-1].number}
    connection.execute(_DELETE_SUB_OPERATIONS, earlier)
    connection.execute(_INSERT_SUB_OPERATION, rows)


_DELETE_SUB_OPERATIONS = sa.delete(sub_operation).where(
    sub_operation.c.retrieve_pk == sa.bindparam("key"),
    sub_operation.c.number.between(sa.bindparam("first"), sa.bindparam("last")),
)
_INSERT_SUB_OPERATION = sa.insert(sub_operation)


def _record(row: Any) -> RetrieveRecord:
    if row.finished_at is not None:
        state = RetrieveState.FINISHED
    else:
        state = RetrieveState.INTERRUPTED if row.interrupted else RetrieveState.RUNNING
    return RetrieveRecord(
        key=row.id,
        request=RetrieveRequest(
            calling_ae=row.calling_ae,
            calling_host=row.calling_host,
            service=Service(row.service),
            model=row.model,
            level=row.level,
            identifier=row.identifier,
            destination=row.destination,
            message_id=row.message_id,
            started_at=row.started_at,
        ),
        state=state,
        finished_at=row.finished_at,
        outcome=_outcome(row) if state is RetrieveState.FINISHED else None,
    )


def _outcome(row: Any) -> RetrieveOutcome:
    return RetrieveOutcome(
        status=row.status,
        completed=row.completed,
        failed=row.failed,
        warning=row.warning,
        remaining=row.remaining,
        error_comment=row.error_comment,
    )


def _sub_operation(row: Any) -> SubOperationRecord:
    return SubOperationRecord(
        number=row.number,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        outcome=SubOperationOutcome(row.outcome),
        status=row.status,
        error_comment=row.error_comment,
        size_bytes=row.size_bytes,
        duration_seconds=row.duration_seconds,
    )
