"""The recorded storage commitment transactions (PS3.4 J) and what became of each SOP Instance.

Whoever works on a transaction has claimed it: its row names the process (``pacs.index.process_token``), and no
other one touches it. A transaction without a process waits for ``due_at``. ``pacs.index.leases`` takes the claims from
processes that are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pacs.errors import ClaimLost
from pacs.index.batches import remove_with_parts
from pacs.index.engine import Engine
from pacs.index.leases import Claims
from pacs.index.process_token import ProcessToken
from pacs.index.tables import commitment, commitment_reference
from pacs.model.commitments import (
    CommitmentRecord,
    CommitmentReference,
    CommitmentRequest,
    CommitmentState,
)

_CLAIMED_AT_ONCE = 100
_UNFINISHED = (CommitmentState.REQUESTED.value, CommitmentState.CHECKED.value)
#: The transactions that a process works on, due again if it has ended.
CLAIMS = Claims(
    commitment,
    commitment.c.process.is_not(None),
    lambda now: {"process": None, "due_at": now},
)


class Commitments:
    """Writes and reads the records; safe to call from several threads.

    Every method raises IndexUnavailable when the database cannot be reached; then nothing is changed.
    """

    def __init__(self, engine: Engine) -> None:
        """Keep the records in ``engine``."""
        self._engine = engine

    # Work on a transaction

    def begin(
        self,
        request: CommitmentRequest,
        references: Sequence[tuple[str, str]],
        duplicate_reason: int,
    ) -> int:
        """Record a request, claimed for this process; return the record's key.

        References are (SOP Class UID, SOP Instance UID). All of them fail for ``duplicate_reason`` if the same AE
        has an unfinished transaction with this Transaction UID.
        """
        row = _request_row(request)
        same = sa.select(commitment.c.id, commitment.c.requested_at).where(
            commitment.c.transaction_uid == request.transaction_uid,
            commitment.c.calling_ae == request.calling_ae,
            commitment.c.state.in_(_UNFINISHED),
        )

        def work(connection: sa.Connection) -> int:
            reason: int | None = None
            for other in connection.execute(same):
                if other.requested_at == request.requested_at:
                    # Run again after a commit that succeeded unnoticed.
                    return int(other.id)
                reason = duplicate_reason
            state = CommitmentState.REQUESTED if reason is None else CommitmentState.CHECKED
            checked_at = None if reason is None else request.requested_at
            requested = row | {"state": state.value, "checked_at": checked_at}
            key: int = connection.execute(_INSERT, requested).scalar_one()
            connection.execute(_INSERT_REFERENCES, _reference_rows(key, references, reason))
            return key

        return self._engine.transact(work)

    def record_check(self, key: int, failures: Sequence[tuple[int, int]]) -> None:
        """Record that all references are checked; ``failures`` are (number, Failure Reason).

        Raises:
            ClaimLost: this process had been taken for dead; nothing is recorded. Whoever has the claim by now, or has
                reported already, has checked for himself.
        """
        now = datetime.now(UTC)
        checked = _by_key(key).where(_is_own())
        checked = checked.values(state=CommitmentState.CHECKED.value, checked_at=now, active_at=now)
        fail = (
            sa.update(commitment_reference)
            .where(
                commitment_reference.c.commitment_pk == key,
                commitment_reference.c.number == sa.bindparam("failed"),
            )
            .values(failure_reason=sa.bindparam("reason"))
        )

        def work(connection: sa.Connection) -> None:
            if not connection.execute(checked).rowcount:
                raise ClaimLost
            if failures:
                rows = [{"failed": number, "reason": reason} for number, reason in failures]
                connection.execute(fail, rows)

        self._engine.transact(work)

    def finish(self, key: int, state: CommitmentState, *, attempts: int, comment: str = "") -> None:
        """Record how a transaction ended.

        What was reported was so, whoever has the claim by now; whoever has lost it does not give up for others.
        """
        now = datetime.now(UTC)
        self._update(
            key,
            only_if_claimed=state is not CommitmentState.REPORTED,
            state=state.value,
            process=None,
            active_at=now,
            finished_at=now,
            due_at=None,
            attempts=attempts,
            comment=comment,
        )

    def postpone(self, key: int, due_at: datetime, *, attempts: int, comment: str) -> None:
        """Give up the claim: an attempt to report has failed, the next one is due at ``due_at``."""
        self._update(
            key,
            process=None,
            active_at=datetime.now(UTC),
            due_at=due_at,
            attempts=attempts,
            comment=comment,
        )

    def release(self, key: int) -> None:
        """Give up the claim: the transaction is due now."""
        now = datetime.now(UTC)
        self._update(key, process=None, active_at=now, due_at=now)

    def _update(self, key: int, *, only_if_claimed: bool = True, **values: Any) -> None:
        """Change a row; nothing if another process has claimed it since, and this one had been taken for dead."""
        statement = _by_key(key).values(**values)
        if only_if_claimed:
            statement = statement.where(_is_own())
        self._engine.transact(lambda connection: connection.execute(statement) and None)

    # Find work

    def claim_due(self) -> list[CommitmentRecord]:
        """Claim transactions that are due, all of one AE: that of the one that has waited longest."""
        now = datetime.now(UTC)
        is_due = sa.and_(commitment.c.process.is_(None), commitment.c.due_at <= now)
        first = sa.select(commitment.c.calling_ae).where(is_due).order_by(commitment.c.due_at)

        def work(connection: sa.Connection) -> list[CommitmentRecord]:
            calling_ae = connection.scalar(first.limit(1))
            if calling_ae is None:
                return []
            some = sa.select(commitment.c.id).where(is_due, commitment.c.calling_ae == calling_ae)
            some = some.order_by(commitment.c.due_at, commitment.c.id).limit(_CLAIMED_AT_ONCE)
            keys = list(connection.scalars(some))
            # Another process may have come in between: then its claim stands.
            claim = (
                sa.update(commitment)
                .where(commitment.c.id.in_(keys), commitment.c.process.is_(None))
                .values(process=str(ProcessToken.own()), active_at=now)
                .returning(commitment)
            )
            return [_record(row) for row in connection.execute(claim)]

        return sorted(self._engine.transact(work), key=lambda record: record.key)

    def next_due(self) -> datetime | None:
        """When the next transaction that nobody works on is due."""
        waiting = commitment.c.process.is_(None), commitment.c.due_at.is_not(None)
        with self._engine.read() as connection:
            due: datetime | None = connection.scalar(
                sa.select(commitment.c.due_at)
                .where(*waiting)
                .order_by(commitment.c.due_at)
                .limit(1)
            )
            return due

    # Read

    def references(
        self, key: int, after: int = 0, limit: int | None = None
    ) -> list[CommitmentReference]:
        """The references of a transaction whose number is above ``after``, in order."""
        statement = (
            sa.select(commitment_reference)
            .where(
                commitment_reference.c.commitment_pk == key, commitment_reference.c.number > after
            )
            .order_by(commitment_reference.c.number)
            .limit(limit)
        )
        with self._engine.read() as connection:
            return [
                CommitmentReference(
                    number=row.number,
                    sop_class_uid=row.sop_class_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    failure_reason=row.failure_reason,
                )
                for row in connection.execute(statement)
            ]

    def all(self, limit: int = 100) -> list[CommitmentRecord]:
        """The newest records, newest first."""
        newest = sa.select(commitment).order_by(
            commitment.c.requested_at.desc(), commitment.c.id.desc()
        )
        with self._engine.read() as connection:
            return [_record(row) for row in connection.execute(newest.limit(limit))]

    def get(self, key: int) -> CommitmentRecord | None:
        """One record, if there is one with this key."""
        with self._engine.read() as connection:
            statement = sa.select(commitment).where(commitment.c.id == key)
            row = connection.execute(statement).one_or_none()
        return None if row is None else _record(row)

    def prune(self, before: datetime) -> int:
        """Remove the records of transactions requested before ``before``, some at a time; return how many."""
        return remove_with_parts(
            self._engine, commitment, commitment_reference, commitment.c.requested_at < before
        )


def _by_key(key: int) -> sa.Update:
    return sa.update(commitment).where(commitment.c.id == key)


def _is_own() -> sa.ColumnElement[bool]:
    """Whether this process has the claim."""
    return commitment.c.process == str(ProcessToken.own())


def _request_row(request: CommitmentRequest) -> dict[str, Any]:
    return {
        "transaction_uid": request.transaction_uid,
        "calling_ae": request.calling_ae,
        "calling_host": request.calling_host,
        "process": str(ProcessToken.own()),
        "requested_at": request.requested_at,
        "active_at": request.requested_at,
        "due_at": request.requested_at,
        "attempts": 0,
        "comment": "",
    }


_INSERT = sa.insert(commitment).returning(commitment.c.id)
_INSERT_REFERENCES = sa.insert(commitment_reference)


def _reference_rows(
    key: int, references: Sequence[tuple[str, str]], reason: int | None
) -> list[dict[str, Any]]:
    return [
        {
            "commitment_pk": key,
            "number": number,
            "sop_class_uid": sop_class_uid,
            "sop_instance_uid": sop_instance_uid,
            "failure_reason": reason,
        }
        for number, (sop_class_uid, sop_instance_uid) in enumerate(references, 1)
    ]


def _record(row: Any) -> CommitmentRecord:
    return CommitmentRecord(
        key=row.id,
        request=CommitmentRequest(
            transaction_uid=row.transaction_uid,
            calling_ae=row.calling_ae,
            calling_host=row.calling_host,
            requested_at=row.requested_at,
        ),
        state=CommitmentState(row.state),
        checked_at=row.checked_at,
        finished_at=row.finished_at,
        due_at=row.due_at,
        attempts=row.attempts,
        comment=row.comment,
    )
