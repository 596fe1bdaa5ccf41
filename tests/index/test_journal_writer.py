from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from pacs.index import journal_writer
from pacs.index.index import Index
from pacs.index.journal import Journal, RetrieveChange
from pacs.index.journal_writer import RetrieveEntry
from pacs.model.retrieves import RetrieveRequest, RetrieveState
from tests.index.test_journal import OUTCOME, REQUEST, sub_operation
from tests.outages import index_locked
from tests.peers import wait_until

#: Its Identifier holds a lone surrogate, which no database takes.
_REFUSED = replace(REQUEST, calling_ae="REFUSED", identifier="\ud800")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many retrieves went into each transaction, as soon as it is begun."""
    sizes: list[int] = []
    write = Journal.write

    def recording(journal: Journal, changes: Sequence[RetrieveChange]) -> list[int]:
        sizes.append(len(changes))
        return write(journal, changes)

    monkeypatch.setattr(Journal, "write", recording)
    return sizes


def begin_behind_another(
    index: Index, database_url: str, sizes: list[int], requests: Sequence[RetrieveRequest]
) -> list[RetrieveEntry]:
    """Begin retrieves at once, all but the first while that one's record waits for the index."""
    with ThreadPoolExecutor(len(requests)) as pool:
        with index_locked(database_url):
            begun: list[Future[RetrieveEntry]] = []
            for request in requests:
                begun.append(pool.submit(index.journal_writer.begin, request))
                # One after the other, so that their order is known.
                wait_until(lambda: sizes == [1] and len(index.journal_writer._queue) == len(begun))
            assert not any(one.done() for one in begun)
        return [one.result() for one in begun]


def requests(count: int) -> list[RetrieveRequest]:
    return [replace(REQUEST, message_id=number) for number in range(1, count + 1)]


def recorded(index: Index) -> list[int]:
    return sorted(one.request.message_id for one in index.journal.retrieves())


def test_records_that_come_while_one_is_written_share_a_commit(
    index: Index, database_url: str, sizes: list[int]
) -> None:
    entries = begin_behind_another(index, database_url, sizes, requests(20))

    assert sizes == [1, 19]
    assert [index.journal.retrieve(one.key).request for one in entries] == requests(20)


def test_many_retrieves_are_not_one_transaction_without_a_bound(
    index: Index, database_url: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_LARGEST_BATCH", 4)

    begin_behind_another(index, database_url, sizes, requests(10))

    assert sizes == [1, 4, 4, 1]
    assert recorded(index) == list(range(1, 11))


def test_outcomes_of_many_retrieves_are_not_one_transaction_without_a_bound(
    index: Index, database_url: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "_MOST_OUTCOMES", 5)
    writer = index.journal_writer
    entries = [writer.begin(request) for request in requests(4)]
    sizes.clear()

    with index_locked(database_url):
        writer.add(entries[0], [sub_operation(1)])
        wait_until(lambda: sizes == [1])
        for entry, count in zip(entries[1:], (3, 2, 7), strict=True):
            writer.add(entry, [sub_operation(number) for number in range(1, count + 1)])
    writer.close()

    assert sizes == [1, 2, 1]
    assert [len(list(index.journal.sub_operations(one.key))) for one in entries] == [1, 3, 2, 7]


def test_record_that_is_refused_takes_no_other_along(
    index: Index, database_url: str, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three, four = requests(4)

    with caplog.at_level(logging.ERROR, "pacs"):
        entries = begin_behind_another(index, database_url, sizes, [one, two, _REFUSED, three])
    index.journal_writer.finish(entries[1], OUTCOME, [sub_operation(1)])
    index.journal_writer.begin(four)

    assert sizes == [1, 3, 1, 1, 1, 1, 1]
    assert recorded(index) == [1, 2, 3, 4]
    assert index.journal.retrieve(entries[1].key).outcome == OUTCOME
    assert entries[2].key is None
    assert [text for text in caplog.messages if "not recorded" in text] == [
        "retrieve by REFUSED: 0 outcomes are not recorded: The index refused a value or a reference."
    ]


def test_what_came_while_its_record_was_written_is_written_too(
    index: Index, database_url: str, sizes: list[int]
) -> None:
    writer = index.journal_writer
    entry = writer.begin(REQUEST)
    sizes.clear()

    with ThreadPoolExecutor(1) as pool:
        with index_locked(database_url):
            writer.add(entry, [sub_operation(1)])
            wait_until(lambda: sizes == [1])
            writer.add(entry, [sub_operation(2)])
            finishing = pool.submit(writer.finish, entry, OUTCOME, [sub_operation(3)])
            wait_until(lambda: entry.outcome is OUTCOME)
            assert not finishing.done()
        finishing.result()

    assert sizes == [1, 1]
    assert list(index.journal.sub_operations(entry.key)) == [sub_operation(n) for n in (1, 2, 3)]
    assert index.journal.retrieve(entry.key).outcome == OUTCOME


def test_write_again_after_a_commit_that_was_lost_finds_the_records(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit happens and its answer does not come, then neither happens at the second try."""
    commit = sa.Connection.commit
    answers = ["lost", "refused"]

    def losing(connection: sa.Connection) -> None:
        if not answers:
            commit(connection)
            return
        if answers.pop(0) == "lost":
            commit(connection)
        raise sa.exc.OperationalError("COMMIT", {}, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(sa.Connection, "commit", losing)
    changes = [
        RetrieveChange(request, None, [sub_operation(1)], outcome)
        for request, outcome in zip(
            [REQUEST, REQUEST, *requests(1)], (None, OUTCOME, None), strict=True
        )
    ]

    keys = index.journal.write(changes)

    assert answers == []
    records = sorted(index.journal.retrieves(), key=lambda one: one.key)
    assert [one.key for one in records] == keys
    assert [(one.request, one.outcome) for one in records] == [
        (change.request, change.outcome) for change in changes
    ]
    assert [list(index.journal.sub_operations(key)) for key in keys] == [[sub_operation(1)]] * 3


def test_record_whose_commit_may_have_been_lost_is_not_made_twice(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tries of one transaction fail, the first one after its commit; the writer comes back to it later."""
    monkeypatch.setattr(journal_writer, "_PAUSE_SECONDS", 0.01)
    commit = sa.Connection.commit
    failures: list[Any] = []

    def losing(connection: sa.Connection) -> None:
        if len(failures) < 10:
            failures.append(commit(connection) if not failures else None)
            raise sa.exc.OperationalError(
                "COMMIT", {}, Exception("gone"), connection_invalidated=True
            )
        commit(connection)

    monkeypatch.setattr(sa.Connection, "commit", losing)
    entry = index.journal_writer.begin(REQUEST)
    index.journal_writer.finish(entry, OUTCOME, [sub_operation(1)])
    wait_until(lambda: not entry.is_queued)

    [record] = index.journal.retrieves()
    assert (record.key, record.state, record.outcome) == (
        entry.key,
        RetrieveState.FINISHED,
        OUTCOME,
    )
