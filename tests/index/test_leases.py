"""Leases of processes, and what is taken from those that have ended; on both backends."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pacs.errors import ClaimLost
from pacs.index import process_token
from pacs.index.index import Index
from pacs.index.leases import Swept
from pacs.index.process_token import ProcessToken
from pacs.index.tables import commitment, lease, retrieve
from pacs.model.commitments import CommitmentRequest, CommitmentState
from pacs.model.remote_ae import Service
from pacs.model.retrieves import RetrieveRequest, RetrieveState
from tests.retrieve_records import begin_retrieve

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ELSEWHERE = replace(ProcessToken.own(), host="made-anew")


def _begin(index: Index, process: ProcessToken) -> tuple[int, int]:
    """A retrieve and a storage commitment transaction of a process; both were active a moment ago."""
    now = datetime.now(UTC)
    request = RetrieveRequest(
        calling_ae="A",
        calling_host="h",
        service=Service.MOVE,
        model="m",
        level="STUDY",
        identifier="{}",
        destination="D",
        message_id=1,
        started_at=now,
    )
    asked = CommitmentRequest(
        transaction_uid="1.9", calling_ae="A", calling_host="h", requested_at=now
    )
    keys = (
        begin_retrieve(index, request),
        index.commitments.begin(asked, [("1.2", "1.2.1")], 0x0131),
    )
    with index._engine.write() as connection:
        for table, key in zip((retrieve, commitment), keys, strict=True):
            connection.execute(
                sa.update(table).where(table.c.id == key).values(process=str(process))
            )
    return keys


def _lease(index: Index, process: ProcessToken, seconds: float) -> None:
    """Give a process a lease that ends in so many seconds."""
    index.leases.renew(seconds)
    with index._engine.write() as connection:
        own = lease.c.process == str(ProcessToken.own())
        connection.execute(sa.update(lease).where(own).values(process=str(process)))


def _leases(index: Index) -> list[str]:
    with index._engine.read() as connection:
        return list(connection.scalars(sa.select(lease.c.process)))


def test_claims_go_when_a_lease_has_run_out(index: Index) -> None:
    moved, asked = _begin(index, ELSEWHERE)
    _lease(index, ELSEWHERE, -0.001)

    assert index.leases.sweep(by_lease=True) == Swept(retrieves=1, commitments=1)

    assert index.journal.retrieve(moved).state is RetrieveState.INTERRUPTED
    assert [one.key for one in index.commitments.claim_due()] == [asked]
    assert _leases(index) == []
    assert index.leases.sweep(by_lease=True) == Swept()


@pytest.mark.parametrize(("seconds", "by_lease"), [(60, True), (-0.001, False)])
def test_claims_stay_while_nobody_can_know(index: Index, seconds: float, by_lease: bool) -> None:
    """The lease holds, or whoever sweeps has not kept its own long enough to judge."""
    moved, _ = _begin(index, ELSEWHERE)
    _lease(index, ELSEWHERE, seconds)

    assert index.leases.sweep(by_lease=by_lease) == Swept()

    assert index.journal.retrieve(moved).state is RetrieveState.RUNNING
    assert _leases(index) == [str(ELSEWHERE)]


def test_process_that_can_be_seen_keeps_its_claims_without_a_lease(index: Index) -> None:
    """It is slow, not dead: its lease has run out, or it is a command that never had one."""
    moved, _ = _begin(index, ProcessToken.own())
    index.leases.renew(-1)

    assert index.leases.sweep(by_lease=True) == Swept()
    assert index.journal.retrieve(moved).state is RetrieveState.RUNNING


def test_process_of_another_container_on_this_host_is_not_looked_up(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers may share a host name; process ids are counted in each."""
    moved, _ = _begin(index, replace(ProcessToken.own(), pid=2**22 + 1))
    monkeypatch.setattr(process_token, "_namespace", lambda: f"{process_token._boot_id()}:1")

    assert index.leases.sweep(by_lease=True) == Swept()
    assert index.journal.retrieve(moved).state is RetrieveState.RUNNING


def test_renewing_tells_the_time_of_the_database_and_keeps_one_row(index: Index) -> None:
    before = index.leases.renew(1)
    after = index.leases.renew(3_600)

    assert 0 <= after - before < 60
    assert _leases(index) == [str(ProcessToken.own())]
    with index._engine.read() as connection:
        until = connection.scalar(sa.select(lease.c.expires_at))
    assert until == pytest.approx(after + 3_600, abs=0.001)


def test_lease_that_is_given_up_is_gone(index: Index) -> None:
    index.leases.renew(60)
    index.leases.give_up()

    assert _leases(index) == []


def test_claim_that_was_lost_is_not_given_up_nor_put_off(index: Index) -> None:
    """A process that was taken for dead goes on: the claim is another one's now."""
    _, asked = _begin(index, ELSEWHERE)

    index.commitments.release(asked)
    index.commitments.postpone(asked, NOW + timedelta(days=9), attempts=9, comment="x")
    index.commitments.finish(asked, CommitmentState.UNDELIVERABLE, attempts=9)
    unchanged = index.commitments.get(asked)
    index.commitments.finish(asked, CommitmentState.REPORTED, attempts=1)
    reported = index.commitments.get(asked)

    assert unchanged is not None
    assert (unchanged.state, unchanged.attempts) == (CommitmentState.REQUESTED, 0)
    assert index.commitments.claim_due() == []
    assert reported is not None
    assert (reported.state, reported.attempts) == (CommitmentState.REPORTED, 1)


@pytest.mark.parametrize("is_reported", [False, True])
def test_check_by_a_process_that_has_lost_its_claim_is_not_recorded(
    index: Index, is_reported: bool
) -> None:
    _, asked = _begin(index, ELSEWHERE)
    if is_reported:
        index.commitments.finish(asked, CommitmentState.REPORTED, attempts=1)
    before = index.commitments.get(asked)

    with pytest.raises(ClaimLost):
        index.commitments.record_check(asked, [(1, 0x0110)])

    assert index.commitments.get(asked) == before
    assert [one.failure_reason for one in index.commitments.references(asked)] == [None]
