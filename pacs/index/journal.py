"""The recorded C-MOVE and C-GET operations and their sub-operations.

A retrieve without an end is running, or was interrupted by the end of its process, whose token the record has:
``pacs.index.leases`` can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class RetrieveChange:
    """What is new of one retrieve: that it began, some sub-operations, how it ended."""

    request: RetrieveRequest
    #: Of its record; None while there is none.
    key: int | None = None
    #: Consecutive sub-operations.
    batch: Sequence[SubOperationRecord] = ()
    #: None while it goes on.
    outcome: RetrieveOutcome | None = None
    #: Whether an earlier try to write this may have been committed.
    may_be_there: bool = False

    @property
    def is_progress(self) -> bool:
        """Whether it has sub-operations, and goes on."""
        return bool(self.batch) and self.outcome is None


class Journal:
    """Writes and reads the records; safe to call from several threads."""

    def __init__(self, engine: Engine) -> None:
        """Keep the records in ``engine``."""
        self._engine = engine

    def write(self, changes: Sequence[RetrieveChange]) -> list[int]:
        """Record what is new of some retrieves, in one transaction; return the keys of their records, in order.

        Raises:
            IndexUnavailable: nothing was recorded, unless it says ``may_have_committed``.
            PacsError: the index refuses one of them, and recorded nothing.
        """
        process, now = str(ProcessToken.own()), datetime.now(UTC)
        runs = 0

        def work(connection: sa.Connection) -> list[int]:
            nonlocal runs
            runs += 1
            is_again = runs > 1
            keys = _begin(connection, changes, process, is_again=is_again)
            pairs = list(zip(keys, changes, strict=True))
            _insert(connection, pairs, is_again=is_again)
            active = [{"_key": key, "active_at": now} for key, one in pairs if one.is_progress]
            if active:
                connection.execute(_UPDATE_ACTIVE, active)
            ended = [_ended(key, one.outcome, now) for key, one in pairs if one.outcome is not None]
            if ended:
                connection.execute(_UPDATE_ENDED, ended)
            return keys

        return self._engine.transact(work)

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


def _begin(
    connection: sa.Connection, changes: Sequence[RetrieveChange], process: str, *, is_again: bool
) -> list[int]:
    """The keys of the records, in order; those that are not there yet are inserted."""
    keys = {index: one.key for index, one in enumerate(changes) if one.key is not None}
    uncertain = [
        index
        for index, one in enumerate(changes)
        if one.key is None and (is_again or one.may_be_there)
    ]
    if uncertain:
        keys |= _already_begun(
            connection, {one: changes[one].request for one in uncertain}, process
        )
    new = [index for index in range(len(changes)) if index not in keys]
    if new:
        rows = [_begun(changes[index].request, process) for index in new]
        keys |= zip(new, connection.execute(_INSERT_RETRIEVE, rows).scalars(), strict=True)
    return [keys[index] for index in range(len(changes))]


def _already_begun(
    connection: sa.Connection, requests: Mapping[int, RetrieveRequest], process: str
) -> dict[int, int]:
    """The keys of those that a commit took which seemed to fail."""
    times = {request.started_at for request in requests.values()}
    rows = connection.execute(_SELECT_BEGUN, {"process": process, "times": list(times)})
    found: dict[tuple[datetime, int], list[int]] = {}
    for key, started_at, message_id in rows:
        found.setdefault((started_at, message_id), []).append(key)
    keys = {}
    for index, request in requests.items():
        # Two that began in one microsecond were inserted in this order.
        if same := found.get((request.started_at, request.message_id)):
            keys[index] = same.pop(0)
    return keys


def _begun(request: RetrieveRequest, process: str) -> dict[str, object]:
    return {
        "calling_ae": request.calling_ae,
        "calling_host": request.calling_host,
        "service": request.service.value,
        "model": request.model,
        "level": request.level,
        "identifier": request.identifier,
        "destination": request.destination,
        "message_id": request.message_id,
        "process": process,
        "started_at": request.started_at,
        "active_at": request.started_at,
        "interrupted": False,
        "error_comment": "",
    }


def _ended(key: int, outcome: RetrieveOutcome, now: datetime) -> dict[str, object]:
    return {
        "_key": key,
        "finished_at": now,
        "active_at": now,
        "interrupted": False,
        "status": outcome.status,
        "completed": outcome.completed,
        "failed": outcome.failed,
        "warning": outcome.warning,
        "remaining": outcome.remaining,
        "error_comment": outcome.error_comment,
    }


def _insert(
    connection: sa.Connection, pairs: Sequence[tuple[int, RetrieveChange]], *, is_again: bool
) -> None:
    """Insert the sub-operations, which are consecutive for each retrieve."""
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
        for key, change in pairs
        for record in change.batch
    ]
    if not rows:
        return
    # Run again after a commit that succeeded unnoticed, the rows are there already.
    earlier = [
        {"key": key, "first": change.batch[0].number, "last": change.batch[-1].number}
        for key, change in pairs
        if change.batch and (is_again or change.may_be_there)
    ]
    if earlier:
        connection.execute(_DELETE_SUB_OPERATIONS, earlier)
    connection.execute(_INSERT_SUB_OPERATION, rows)


_INSERT_RETRIEVE = sa.insert(retrieve).returning(retrieve.c.id, sort_by_parameter_order=True)
_SELECT_BEGUN = (
    sa.select(retrieve.c.id, retrieve.c.started_at, retrieve.c.message_id)
    .where(
        retrieve.c.process == sa.bindparam("process"),
        retrieve.c.started_at.in_(sa.bindparam("times", expanding=True)),
    )
    .order_by(retrieve.c.id)
)
_UPDATE_RETRIEVE = sa.update(retrieve).where(retrieve.c.id == sa.bindparam("_key"))
_UPDATE_ACTIVE = _UPDATE_RETRIEVE.values(active_at=sa.bindparam("active_at"))
_UPDATE_ENDED = _UPDATE_RETRIEVE.values(
    {
        name: sa.bindparam(name)
        for name in (
            "finished_at",
            "active_at",
            "interrupted",
            "status",
            "completed",
            "failed",
            "warning",
            "remaining",
            "error_comment",
        )
    }
)
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
