from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pacs.errors import IndexUnavailable, InvalidInstance
from pacs.index.group_commit import GroupCommit
from pacs.model.instances import IngestOutcome, IngestResult, InstanceRecord

_STORED = IngestResult(outcome=IngestOutcome.STORED)


class SlowIngest:
    """Stands for the database: holds each commit until it is let go, and fails as it is told to."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.since: list[float] = []
        self.go = threading.Event()
        self.first_began = threading.Event()
        self.poison: set[str] = set()
        self.failures: list[BaseException] = []

    def __call__(self, records: Sequence[InstanceRecord], since: float) -> list[IngestResult]:
        self.since.append(since)
        self.first_began.set()
        assert self.go.wait(10)
        self.batches.append(len(records))
        if self.failures:
            raise self.failures.pop()
        if any(record.location in self.poison for record in records):
            raise InvalidInstance
        return [_STORED for _ in records]


@pytest.fixture
def ingest() -> SlowIngest:
    return SlowIngest()


def submit_behind_a_leader(
    ingest: SlowIngest, group: GroupCommit, records: list[InstanceRecord]
) -> list[IngestResult | BaseException]:
    """Let the first record's thread commit while the others queue up; return what each got."""
    with ThreadPoolExecutor(len(records)) as pool:
        futures = [pool.submit(group.submit, records[0])]
        assert ingest.first_began.wait(10)
        futures += [pool.submit(group.submit, record) for record in records[1:]]
        while len(group._waiting) < len(records) - 1:
            threading.Event().wait(0.005)
        ingest.go.set()
        return [future.exception(10) or future.result() for future in futures]


def test_submit_alone_commits_at_once(ingest: SlowIngest, make_record) -> None:
    ingest.go.set()

    assert GroupCommit(ingest).submit(make_record()) is _STORED
    assert ingest.batches == [1]


def test_submit_while_another_commits_shares_the_next_commit(
    ingest: SlowIngest, make_record
) -> None:
    records = [make_record() for _ in range(6)]

    results = submit_behind_a_leader(ingest, GroupCommit(ingest), records)

    assert results == [_STORED] * 6
    assert ingest.batches == [1, 5]


def test_submit_behind_another_counts_the_time_from_its_own_arrival(
    ingest: SlowIngest, make_record
) -> None:
    group = GroupCommit(ingest)
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(group.submit, make_record())
        assert ingest.first_began.wait(10)
        others = [pool.submit(group.submit, make_record()) for _ in range(2)]
        while len(group._waiting) < 2:
            threading.Event().wait(0.005)
        first_arrived = group._waiting[0].arrived
        ingest.go.set()
        assert [one.result(10) for one in (leader, *others)] == [_STORED] * 3

    assert ingest.batches == [1, 2]
    assert ingest.since[1] == first_arrived


def test_submit_bad_record_fails_alone(ingest: SlowIngest, make_record) -> None:
    records = [make_record() for _ in range(4)]
    ingest.poison = {records[2].location}

    results = submit_behind_a_leader(ingest, GroupCommit(ingest), records)

    assert [isinstance(result, InvalidInstance) for result in results] == [
        False,
        False,
        True,
        False,
    ]


def test_submit_unavailable_index_is_told_to_each_with_its_own_error(
    ingest: SlowIngest, make_record
) -> None:
    ingest.failures = [IndexUnavailable("gone", may_have_committed=True) for _ in range(2)]

    results = submit_behind_a_leader(ingest, GroupCommit(ingest), [make_record() for _ in range(4)])

    assert all(isinstance(result, IndexUnavailable) for result in results)
    assert all(result.may_have_committed for result in results)
    assert len({id(result) for result in results}) == 4
    assert ingest.batches == [1, 3]


def test_submit_interrupted_leader_leaves_nobody_waiting(ingest: SlowIngest, make_record) -> None:
    group = GroupCommit(ingest)
    ingest.failures = [KeyboardInterrupt()]

    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(group.submit, make_record())
        assert ingest.first_began.wait(10)
        others = [pool.submit(group.submit, make_record()) for _ in range(2)]
        while len(group._waiting) < 2:
            threading.Event().wait(0.005)
        ingest.go.set()

        assert isinstance(leader.exception(10), KeyboardInterrupt)
        assert [other.result(10) for other in others] == [_STORED] * 2
    assert group.submit(make_record()) is _STORED


def test_submit_many_threads_each_gets_a_result(ingest: SlowIngest, make_record) -> None:
    ingest.go.set()
    group = GroupCommit(ingest)
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(group.submit, [make_record() for _ in range(500)]))

    assert results == [_STORED] * 500
    assert sum(ingest.batches) == 500
