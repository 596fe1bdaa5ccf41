"""Recorded storage commitment transactions; on both backends."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pacs.index.index import Index
from pacs.index.process_token import ProcessToken
from pacs.index.tables import commitment, commitment_reference
from pacs.model.commitments import CommitmentRequest, CommitmentState

NOW = datetime(2026, 3, 1, tzinfo=UTC)
REFERENCES = [("1.2", "1.2.1"), ("1.2", "1.2.2"), ("1.2", "1.2.3")]
DUPLICATE = 0x0131


def _request(uid: str = "1.9", calling_ae: str = "SCU", at: datetime = NOW) -> CommitmentRequest:
    return CommitmentRequest(
        transaction_uid=uid, calling_ae=calling_ae, calling_host="10.0.0.1", requested_at=at
    )


def _begin(index: Index, uid: str = "1.9", calling_ae: str = "SCU", at: datetime = NOW) -> int:
    return index.commitments.begin(_request(uid, calling_ae, at), REFERENCES, DUPLICATE)


def _reasons(index: Index, key: int) -> list[int | None]:
    return [one.failure_reason for one in index.commitments.references(key)]


def _set_process(index: Index, key: int, token: ProcessToken, active_at: datetime) -> None:
    statement = sa.update(commitment).where(commitment.c.id == key)
    index._engine.transact(
        lambda connection: connection.execute(
            statement.values(process=str(token), active_at=active_at)
        )
    )


def test_request_is_recorded_and_claimed(index: Index) -> None:
    key = _begin(index)

    record = index.commitments.get(key)

    assert record is not None
    assert record.request == _request()
    assert (record.state, record.attempts) == (CommitmentState.REQUESTED, 0)
    assert _reasons(index, key) == [None, None, None]
    assert index.commitments.claim_due() == []
    assert index.commitments.next_due() is None


def test_check_and_report_are_recorded(index: Index) -> None:
    key = _begin(index)

    index.commitments.record_check(key, [(2, 0x0112)])
    checked = index.commitments.get(key)
    index.commitments.finish(key, CommitmentState.REPORTED, attempts=1)
    finished = index.commitments.get(key)

    assert checked is not None
    assert finished is not None
    assert (checked.state, checked.finished_at) == (CommitmentState.CHECKED, None)
    assert _reasons(index, key) == [None, 0x0112, None]
    assert finished.state is CommitmentState.REPORTED
    assert finished.due_at is None
    assert index.commitments.claim_due() == []


def test_released_transaction_is_claimed_by_one(index: Index) -> None:
    key = _begin(index)
    index.commitments.release(key)

    claimed = index.commitments.claim_due()

    assert [record.key for record in claimed] == [key]
    assert index.commitments.claim_due() == []


def test_postponed_transaction_is_not_due_yet(index: Index) -> None:
    key = _begin(index)
    later = datetime.now(UTC) + timedelta(hours=1)

    index.commitments.postpone(key, later, attempts=1, comment="no answer")
    record = index.commitments.get(key)

    assert index.commitments.claim_due() == []
    assert index.commitments.next_due() == later
    assert record is not None
    assert (record.attempts, record.comment) == (1, "no answer")


def test_one_ae_is_claimed_at_a_time(index: Index) -> None:
    for number, calling_ae in enumerate(("A", "B", "A")):
        index.commitments.release(_begin(index, f"1.{number}", calling_ae))

    first, second = index.commitments.claim_due(), index.commitments.claim_due()

    assert [one.request.transaction_uid for one in first] == ["1.0", "1.2"]
    assert [one.request.transaction_uid for one in second] == ["1.1"]


def test_transaction_uid_in_use_fails_all_references(index: Index) -> None:
    """PS3.3 C.14.1.1; in use by the same AE, until it is reported."""
    first = _begin(index)

    second = _begin(index, at=NOW + timedelta(seconds=1))
    of_another_ae = _begin(index, calling_ae="OTHER", at=NOW + timedelta(seconds=2))
    index.commitments.finish(first, CommitmentState.REPORTED, attempts=0)
    index.commitments.finish(second, CommitmentState.REPORTED, attempts=0)
    third = _begin(index, at=NOW + timedelta(seconds=3))

    record = index.commitments.get(second)
    assert record is not None
    assert record.state is CommitmentState.CHECKED or record.finished_at is not None
    assert _reasons(index, second) == [DUPLICATE] * 3
    assert _reasons(index, of_another_ae) == [None] * 3
    assert _reasons(index, third) == [None] * 3


def test_request_that_was_recorded_unnoticed_is_not_recorded_twice(index: Index) -> None:
    """A connection lost during COMMIT: ``transact`` runs the same again."""
    key = _begin(index)

    assert _begin(index) == key
    assert _reasons(index, key) == [None, None, None]


def test_claim_of_a_process_that_has_ended_is_released(index: Index) -> None:
    own, ended, elsewhere, silent = (_begin(index, f"1.{number}") for number in range(4))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    token = ProcessToken.own()
    now = datetime.now(UTC)
    gone = ProcessToken(token.host, token.boot, process.pid, "1")
    other_host = ProcessToken("elsewhere", "b", 1, "1")
    _set_process(index, ended, gone, now)
    _set_process(index, elsewhere, other_host, now)
    _set_process(index, silent, ProcessToken("elsewhere", "b", 2, "1"), now - timedelta(days=2))

    assert index.leases.sweep().commitments == 2

    claimed = {record.key for record in index.commitments.claim_due()}
    assert claimed == {ended, silent}
    assert own not in claimed
    assert elsewhere not in claimed


@pytest.mark.parametrize(("days", "left"), [(1, 1), (3, 0)])
def test_old_records_are_pruned_with_their_references(index: Index, days: int, left: int) -> None:
    _begin(index)

    pruned = index.commitments.prune(NOW - timedelta(days=2) + timedelta(days=days))

    with index._engine.read() as connection:
        references = connection.scalar(sa.select(sa.func.count()).select_from(commitment_reference))
    assert pruned == 1 - left
    assert references == 3 * left


def test_references_are_read_in_pages(index: Index) -> None:
    key = _begin(index)

    page = index.commitments.references(key, after=1, limit=1)

    assert [one.sop_instance_uid for one in page] == ["1.2.2"]


def test_newest_records_come_first(index: Index) -> None:
    keys = [_begin(index, f"1.{number}", at=NOW + timedelta(hours=number)) for number in range(3)]

    assert [record.key for record in index.commitments.all(2)] == [keys[2], keys[1]]
