"""What is recorded of an association when it is over, and what is not (PS3.8 9.3.4, 9.3.8; PS3.7 C)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.presentation import build_context

from pacs.dimse.association_recorder import AssociationRecorder
from pacs.index.index import Index
from pacs.model.associations import AssociationEnding, AssociationRecord, OperationRecord
from tests.dimse.retrieving import study_query
from tests.factories import make_instance
from tests.peers import (
    CALLED,
    CALLING,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    RunningArchive,
    association,
    database_url_of,
    deposit,
    engine_associations,
    identifier,
    responses,
    send,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import (
    ASSOCIATE_RJ,
    RELEASE_PDU,
    RELEASE_RP,
    Wire,
    associate_pdu,
    echo_command,
    message,
    p_data,
    pdu,
)

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
#: A transfer syntax that is one, but of no message.
JPEG = "1.2.840.10008.1.2.4.50"


def records(running: RunningArchive, count: int = 1) -> list[AssociationRecord]:
    """The records, oldest first, once there are ``count``."""
    stored = running.archive.index.associations
    wait_until(lambda: len(stored.newest(100)) >= count)
    found = stored.newest(100)
    assert len(found) == count
    return found[::-1]


def refused_find(running: RunningArchive) -> None:
    """A C-FIND with a key above its level (PS3.4 C.4.1.2.1)."""
    with association(running, STUDY_ROOT_FIND) as assoc:
        query = identifier("STUDY", PatientName="SECRET^NAME", StudyInstanceUID="")
        query.QueryRetrieveLevel = "SERIES"
        responses(assoc.send_c_find(query, STUDY_ROOT_FIND))


def test_a_refused_operation_is_recorded_on_both_backends(archive_server: RunningArchive) -> None:
    refused_find(archive_server)

    (record,) = records(archive_server)
    (operation,) = record.operations
    assert (record.calling_ae, record.called_ae, record.calling_host) == (
        CALLING,
        CALLED,
        "127.0.0.1",
    )
    assert (record.ending, record.is_problem, record.tls) == (
        AssociationEnding.RELEASED,
        True,
        False,
    )
    assert record.started_at <= record.finished_at
    assert (operation.service, operation.level, operation.status) == ("C-FIND", "SERIES", 0xA900)
    assert operation.sop_class_uid == STUDY_ROOT_FIND
    assert operation.offending == (0x00100010,)
    assert "PatientName" in operation.error_comment
    assert archive_server.archive.index.associations.get(record.key or 0) == record


def test_a_record_has_no_patient_value(archive_server: RunningArchive) -> None:
    refused_find(archive_server)

    assert "SECRET" not in repr(records(archive_server))


@engine_on_sqlite
def test_what_goes_well_is_not_recorded(serve: Serve) -> None:
    running = serve()
    with association(running, VERIFICATION) as assoc:
        assoc.send_c_echo()
    with association(running, STUDY_ROOT_FIND) as assoc:
        responses(assoc.send_c_find(identifier("STUDY"), STUDY_ROOT_FIND))
    wait_until(lambda: not engine_associations(running))
    refused_find(running)

    assert [one.operations[0].service for one in records(running)] == ["C-FIND"]


@engine_on_sqlite
def test_everything_is_recorded_if_so_set(serve: Serve) -> None:
    running = serve(record_associations="all")
    instances = [make_instance(Modality="CT") for _ in range(3)]
    with association(
        running, VERIFICATION, build_context(CTImageStorage, EXPLICIT), STUDY_ROOT_FIND
    ) as assoc:
        assoc.send_c_echo()
        for instance in instances:
            send(assoc, instance)
        responses(assoc.send_c_find(identifier("STUDY", StudyInstanceUID=""), STUDY_ROOT_FIND))

    (record,) = records(running)
    done = {one.service: one for one in record.operations}
    assert not record.is_problem
    assert (done["C-STORE"].times, done["C-STORE"].sop_class_uid) == (3, CTImageStorage)
    assert done["C-FIND"].matches == len({one.StudyInstanceUID for one in instances})
    assert (done["C-ECHO"].status, done["C-ECHO"].counts) == (0, ())
    assert [one.result for one in record.contexts] == [0, 0, 0]


@engine_on_sqlite
def test_the_matches_of_one_query_are_not_those_of_the_next(serve: Serve) -> None:
    running = serve()
    deposit(running.archive, make_instance(), make_instance())
    with association(running, STUDY_ROOT_FIND) as assoc:
        responses(assoc.send_c_find(identifier("STUDY", StudyInstanceUID=""), STUDY_ROOT_FIND))
        responses(assoc.send_c_find(identifier("STUDY", SOPInstanceUID="1.2"), STUDY_ROOT_FIND))

    (record,) = records(running)
    assert [(one.status, one.matches) for one in record.operations] == [(0, 2), (0xA900, 0)]


@engine_on_sqlite
def test_nothing_is_recorded_if_so_set(serve: Serve) -> None:
    running = serve(record_associations="none")
    refused_find(running)
    wait_until(lambda: not engine_associations(running))

    assert running.archive.index.associations.newest(10) == []


@engine_on_sqlite
def test_a_move_is_recorded_with_its_destination_and_counts(serve: Serve) -> None:
    running = serve()
    deposit(running.archive, make_instance(StudyInstanceUID="1.2.3"))
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query("1.2.3"), "NOWHERE", STUDY_ROOT_MOVE))

    (record,) = records(running)
    assert record.operations == (
        OperationRecord(
            service="C-MOVE",
            sop_class_uid=STUDY_ROOT_MOVE,
            status=0xA801,
            level="STUDY",
            destination="NOWHERE",
            message_id=1,
            error_comment="Move Destination NOWHERE is not known",
        ),
    )


@engine_on_sqlite
def test_operations_alike_are_one_entry_with_a_number(serve: Serve) -> None:
    running = serve()
    with association(running, STUDY_ROOT_MOVE) as assoc:
        for _ in range(3):
            responses(assoc.send_c_move(study_query("1.2.3"), "NOWHERE", STUDY_ROOT_MOVE))
        responses(assoc.send_c_move(study_query("1.2.3"), "ELSEWHERE", STUDY_ROOT_MOVE))

    (record,) = records(running)
    assert [(one.destination, one.times) for one in record.operations] == [
        ("NOWHERE", 3),
        ("ELSEWHERE", 1),
    ]


# How an association ends


def _rejected(wire: Wire) -> None:
    wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, called="WRONG"))
    assert wire.ends() == ASSOCIATE_RJ


def _aborts(wire: Wire) -> None:
    wire.associate()
    wire.send(pdu(0x07, b"\0\0\0\0"))
    wire.ends()


def _aborts_as_provider(wire: Wire) -> None:
    wire.associate()
    wire.send(pdu(0x07, b"\0\0\2\4"))
    wire.ends()


def _vanishes(wire: Wire) -> None:
    wire.associate()
    wire.reset()


def _breaks_the_protocol(wire: Wire) -> None:
    wire.associate()
    wire.send(p_data(3, 3, echo_command()))
    wire.ends()


def _sends_an_unknown_pdu(wire: Wire) -> None:
    wire.associate()
    wire.send(pdu(0x42, b"\0"))
    wire.ends()


def _stalls(wire: Wire) -> None:
    wire.associate()
    wire.send(p_data(1, 3, echo_command())[:20])
    wire.ends()


def _idles(wire: Wire) -> None:
    wire.associate()
    wire.ends()


@engine_on_sqlite
@pytest.mark.parametrize(
    ("peer", "ending", "codes", "detail"),
    [
        (_rejected, AssociationEnding.REJECTED, (1, 1, 7), ""),
        (_aborts, AssociationEnding.ABORTED_BY_PEER, (0, 0), ""),
        (_aborts_as_provider, AssociationEnding.ABORTED_BY_PEER, (2, 4), ""),
        (_vanishes, AssociationEnding.CONNECTION_LOST, (), ""),
        (
            _breaks_the_protocol,
            AssociationEnding.ABORTED,
            (2, 0),
            "presentation context 3 was not accepted",
        ),
        (_sends_an_unknown_pdu, AssociationEnding.ABORTED, (2, 0), "unknown PDU type 0x42"),
        (_stalls, AssociationEnding.TIMED_OUT, (2, 0), ""),
        (_idles, AssociationEnding.TIMED_OUT, (), "idle for 1 s"),
    ],
)
def test_how_an_association_ended_is_recorded(
    serve: Serve, peer: Any, ending: AssociationEnding, codes: tuple[int, ...], detail: str
) -> None:
    running = serve(network_timeout_seconds=1)
    with Wire(running.port) as wire:
        peer(wire)

    (record,) = records(running)
    assert (record.ending, record.codes) == (ending, codes)
    assert record.detail == detail or (not detail and ending is AssociationEnding.TIMED_OUT)
    assert record.is_problem


@engine_on_sqlite
def test_a_connection_without_a_request_is_not_recorded(serve: Serve) -> None:
    running = serve(record_associations="all")
    with socket.create_connection(("127.0.0.1", running.port)):
        pass
    with Wire(running.port) as wire:
        wire.associate()
        wire.send(RELEASE_PDU)
        assert wire.ends() == RELEASE_RP

    assert [one.calling_ae for one in records(running)] == [CALLING]


@engine_on_sqlite
def test_refused_contexts_are_a_problem_only_if_nothing_was_done(serve: Serve) -> None:
    running = serve()
    jpeg_find = build_context(STUDY_ROOT_FIND, JPEG)
    with association(running, jpeg_find, VERIFICATION) as assoc:
        assoc.send_c_echo()
    wait_until(lambda: not engine_associations(running))
    with association(running, jpeg_find, VERIFICATION):
        pass

    (record,) = records(running)
    assert record.operations == ()
    assert (record.contexts[0].transfer_syntaxes, record.contexts[0].result) == ((JPEG,), 4)


def _refused(running: RunningArchive, calling: str) -> None:
    """A rejected association, recorded."""
    with Wire(running.port) as wire:
        wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, calling=calling, called="X"))
        wire.ends()
    stored = running.archive.index.associations
    wait_until(lambda: [one.calling_ae for one in stored.newest()] == [calling])


@engine_on_sqlite
def test_the_oldest_records_go(serve: Serve) -> None:
    running = serve(association_records=2)
    for number in range(4):
        _refused(running, f"AE{number}")

    assert [one.calling_ae for one in records(running, 2)] == ["AE2", "AE3"]


@engine_on_sqlite
def test_hostile_text_is_recorded_as_text(serve: Serve) -> None:
    running = serve()
    with Wire(running.port) as wire:
        request = associate_pdu({1: ("1.2.\0\x1b[31m", IMPLICIT)}, calling="AB", called="X")
        wire.send(request)
        wire.ends()
    with Wire(running.port) as wire:
        wire.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})
        command_set = echo_command(CommandField=0x0020, CommandDataSetType=0x0001)
        wire.send(message(1, command_set, b"\xff" * 40))
        wire.answer()

    for record in records(running, 2):
        assert all(part.isprintable() for part in (record.calling_ae, record.detail))
        assert all(one.abstract_syntax.isprintable() for one in record.contexts)


@engine_on_sqlite
def test_records_are_written_when_the_archive_stops(serve: Serve) -> None:
    running = serve()
    url = database_url_of(running.archive)
    with Wire(running.port) as wire:
        wire.associate()
        wire.send(p_data(3, 3, echo_command()))
        wire.ends()
        running.stop()

    with closing(Index.open(url, upgrade=False)) as index:
        assert [one.ending for one in index.associations.newest(5)] == [AssociationEnding.ABORTED]


class _SlowAssociations:
    """Stands in for an index that takes its time."""

    def __init__(self) -> None:
        self.written: list[AssociationRecord] = []
        self.may_write = threading.Event()

    @property
    def associations(self) -> _SlowAssociations:
        return self

    def add(self, batch: Sequence[AssociationRecord], *, keep: int) -> None:
        assert self.may_write.wait(5)
        threading.Event().wait(0.03)
        self.written += batch[:keep]


@engine_on_sqlite
def test_stopping_waits_for_what_is_being_written_and_a_flood_is_cut(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve()
    slow: Any = _SlowAssociations()
    recorder = AssociationRecorder(slow, only_problems=False, keep=10_000)
    recorder.start()
    with Wire(running.port) as wire:
        wire.associate()
        (assoc,) = engine_associations(running)
        for _ in range(1000):
            recorder.note(assoc)
        threading.Timer(0.1, slow.may_write.set).start()
        recorder.stop()

    assert 500 <= len(slow.written) < 1000
    assert "the record of an association is dropped" in caplog.text
