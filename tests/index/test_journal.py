from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pacs.index import tables
from pacs.index.index import Index
from pacs.index.process_token import ProcessToken
from pacs.model.remote_ae import Service
from pacs.model.retrieves import (
    RetrieveOutcome,
    RetrieveRequest,
    RetrieveState,
    SubOperationOutcome,
    SubOperationRecord,
)
from tests.index.conftest import RecordStatements
from tests.retrieve_records import begin_retrieve, continue_retrieve

NOW = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)

REQUEST = RetrieveRequest(
    calling_ae="WORKSTATION",
    calling_host="10.0.0.7",
    service=Service.MOVE,
    model="Study Root",
    level="STUDY",
    identifier='{"0020000D":{"vr":"UI","Value":["1.2.3"]}}',
    destination="RESEARCH",
    message_id=65_535,
    started_at=NOW,
)
OUTCOME = RetrieveOutcome(
    status=0xB000, completed=2, failed=1, warning=0, remaining=0, error_comment="one failed"
)


def sub_operation(number: int, **changes: object) -> SubOperationRecord:
    record = SubOperationRecord(
        number=number,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.{number}",
        outcome=SubOperationOutcome.COMPLETED,
        status=0,
        size_bytes=3_000_000_000,
        duration_seconds=0.25,
    )
    return replace(record, **changes)


def set_process(index: Index, key: int, token: ProcessToken, active_at: datetime = NOW) -> None:
    with index._engine.write() as connection:
        connection.execute(
            sa.update(tables.retrieve)
            .where(tables.retrieve.c.id == key)
            .values(process=str(token), active_at=active_at)
        )


def test_retrieve_is_recorded_from_begin_to_end(index: Index) -> None:
    key = begin_retrieve(index, REQUEST)
    running = index.journal.retrieve(key)
    batch = [
        sub_operation(1),
        sub_operation(2, outcome=SubOperationOutcome.FAILED, status=0xA700, error_comment="full"),
        sub_operation(3, outcome=SubOperationOutcome.FAILED, status=None),
    ]
    continue_retrieve(index, key, batch)
    continue_retrieve(index, key, outcome=OUTCOME)

    finished = index.journal.retrieve(key)

    assert (running.state, running.outcome, running.request) == (
        RetrieveState.RUNNING,
        None,
        REQUEST,
    )
    assert (finished.state, finished.outcome) == (RetrieveState.FINISHED, OUTCOME)
    assert finished.finished_at.tzinfo is UTC
    assert list(index.journal.sub_operations(key)) == batch


def test_record_sub_operations_again_after_a_lost_commit_keeps_one_of_each(
    index: Index, record_statements: RecordStatements
) -> None:
    key = begin_retrieve(index, REQUEST)

    with record_statements() as statements:
        for again in (False, True):
            batch = [sub_operation(1), sub_operation(2)]
            continue_retrieve(index, key, batch, may_be_there=again)
        continue_retrieve(index, key, [])
        for again in (False, True):
            batch = [sub_operation(3), sub_operation(4)]
            continue_retrieve(index, key, batch, OUTCOME, may_be_there=again)

    assert [record.number for record in index.journal.sub_operations(key)] == [1, 2, 3, 4]
    assert index.journal.retrieve(key).outcome == OUTCOME
    # At the first try.
    assert sum(one.startswith("INSERT INTO sub_operation") for one in statements) == 4


def test_sub_operations_of_two_retrieves_are_kept_apart(index: Index) -> None:
    first, second = begin_retrieve(index, REQUEST), begin_retrieve(index, REQUEST)

    continue_retrieve(index, first, [sub_operation(1)])
    continue_retrieve(index, second, [sub_operation(1), sub_operation(2)])

    assert len(list(index.journal.sub_operations(first))) == 1
    assert len(list(index.journal.sub_operations(second))) == 2


def test_retrieves_are_listed_newest_first_and_limited(index: Index) -> None:
    keys = [
        begin_retrieve(index, replace(REQUEST, started_at=NOW + timedelta(seconds=n)))
        for n in (1, 3, 2)
    ]

    listed = [record.key for record in index.journal.retrieves(limit=2)]

    assert listed == [keys[1], keys[2]]


def test_retrieve_unknown_key_is_none(index: Index) -> None:
    assert index.journal.retrieve(12_345) is None
    assert list(index.journal.sub_operations(12_345)) == []


def test_mark_interrupted_leaves_those_of_live_processes(index: Index) -> None:
    own = begin_retrieve(index, REQUEST)
    finished = begin_retrieve(index, REQUEST)
    continue_retrieve(index, finished, outcome=OUTCOME)

    assert index.leases.sweep().retrieves == 0
    assert index.journal.retrieve(own).state is RetrieveState.RUNNING
    assert index.journal.retrieve(finished).state is RetrieveState.FINISHED


def test_mark_interrupted_marks_those_of_a_killed_process(index: Index, database_url: str) -> None:
    script = (
        "import os, signal, sys\n"
        "from tests_request import REQUEST\n"
        "from pacs.index.index import Index\n"
        "Index.open(sys.argv[1], upgrade=False).journal.write([RetrieveChange(REQUEST)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    ).replace("from tests_request import REQUEST\n", _REQUEST_IN_A_SCRIPT)
    code = subprocess.run([sys.executable, "-c", script, database_url], check=False).returncode

    assert code == -9
    assert index.leases.sweep().retrieves == 1
    [record] = index.journal.retrieves()
    assert (record.state, record.finished_at, record.outcome) == (
        RetrieveState.INTERRUPTED,
        None,
        None,
    )
    assert index.leases.sweep().retrieves == 0


_REQUEST_IN_A_SCRIPT = """
from datetime import UTC, datetime
from pacs.model.retrieves import RetrieveRequest
from pacs.model.remote_ae import Service
from pacs.index.journal import RetrieveChange
REQUEST = RetrieveRequest(
    calling_ae="A", calling_host="h", service=Service.GET, model="m", level="STUDY", identifier="{}",
    destination="", message_id=1, started_at=datetime.now(UTC))
"""


@pytest.mark.parametrize("change", [{"pid": 2**22 + 1}, {"started": "1"}, {"boot": "earlier"}])
def test_mark_interrupted_knows_a_reused_process_id(index: Index, change: dict) -> None:
    key = begin_retrieve(index, REQUEST)
    set_process(index, key, replace(ProcessToken.own(), **change))

    assert index.leases.sweep().retrieves == 1
    assert index.journal.retrieve(key).state is RetrieveState.INTERRUPTED


def test_mark_interrupted_other_host_only_after_a_day_of_silence(index: Index) -> None:
    key = begin_retrieve(index, REQUEST)
    elsewhere = replace(ProcessToken.own(), host="other/host")
    now = datetime.now(UTC)

    set_process(index, key, elsewhere, now - timedelta(hours=23))
    assert index.leases.sweep().retrieves == 0
    set_process(index, key, elsewhere, now - timedelta(hours=25))
    assert index.leases.sweep().retrieves == 1


def test_finish_after_being_marked_is_finished(index: Index) -> None:
    key = begin_retrieve(index, REQUEST)
    set_process(index, key, replace(ProcessToken.own(), pid=2**22 + 1))
    assert index.leases.sweep().retrieves == 1

    continue_retrieve(index, key, outcome=OUTCOME)

    assert index.journal.retrieve(key).state is RetrieveState.FINISHED


def test_process_token_survives_its_text() -> None:
    token = ProcessToken.own()

    assert ProcessToken.parse(str(token)) == token
    assert token.is_alive
    assert (token.host, token.pid) == (socket.gethostname(), os.getpid())


def test_process_token_of_a_fork_is_not_that_of_its_parent() -> None:
    script = (
        "import os, sys, time\n"
        "from pacs.index.process_token import ProcessToken\n"
        "print(ProcessToken.own(), flush=True)\n"
        "time.sleep(0.05)\n"  # the system counts in hundredths of a second
        "if os.fork() == 0:\n"
        "    print(ProcessToken.own(), flush=True)\n"
        "    sys.exit()\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)

    parent, child = map(ProcessToken.parse, done.stdout.decode().splitlines())

    assert parent.pid != child.pid
    assert int(parent.started) < int(child.started)


def test_prune_removes_old_retrieves_with_their_sub_operations(index: Index) -> None:
    old = begin_retrieve(index, replace(REQUEST, started_at=NOW - timedelta(days=91)))
    new = begin_retrieve(index, REQUEST)
    for key in (old, new):
        continue_retrieve(index, key, [sub_operation(1)])

    assert index.journal.prune(NOW - timedelta(days=90)) == 1

    assert [record.key for record in index.journal.retrieves()] == [new]
    assert list(index.journal.sub_operations(old)) == []
    assert len(list(index.journal.sub_operations(new))) == 1


def test_texts_of_peers_are_recorded_whatever_they_hold(index: Index) -> None:
    hostile = "A\0B\x1b[2J\ud800" + "x" * 2_000
    shown = r"A\x00B\x1b[2J\ud800" + "x" * 1_004 + "…"
    request = replace(REQUEST, calling_ae=hostile, calling_host="h\0", destination="D\x9b")
    batch = [replace(sub_operation(1), error_comment=hostile, sop_instance_uid="1.2\0")]
    outcome = RetrieveOutcome(
        status=0xA702, completed=0, failed=1, warning=0, remaining=0, error_comment=hostile
    )

    key = begin_retrieve(index, request)
    continue_retrieve(index, key, batch, outcome)

    record = index.journal.retrieve(key)
    assert record is not None
    assert record.request == replace(
        request, calling_ae=shown, calling_host=r"h\x00", destination=r"D\x9b"
    )
    assert record.outcome == replace(outcome, error_comment=shown)
    assert list(index.journal.sub_operations(key)) == [
        replace(batch[0], error_comment=shown, sop_instance_uid=r"1.2\x00")
    ]
