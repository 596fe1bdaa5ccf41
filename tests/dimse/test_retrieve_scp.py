"""C-MOVE and C-GET against both engines: statuses, counters, lists and records (PS3.4 C.4.2, C.4.3)."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from pynetdicom.presentation import build_context

from pacs.errors import IndexUnavailable
from pacs.model.instances import StoredInstance
from pacs.model.remote_ae import RemoteAE, Service
from pacs.model.retrieves import RetrieveState, SubOperationOutcome
from tests.dimse.retrieving import (
    CANCELLED,
    PENDING,
    SERIES,
    STUDY,
    SUCCESS,
    WARNING,
    Getter,
    Mover,
    Outcome,
    Retriever,
    make_study,
    recorded,
    store_study,
    study_query,
)
from tests.outages import index_outage
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    closed_port,
    data_set_bytes,
    database_url_of,
    deposit,
    deposit_bytes,
    end,
    engine_associations,
    identifier,
    is_stock,
    register,
    responses,
    settled_file,
    wait_until,
)
from tests.serving import Serve, engine_only

PRIVATE_TRANSFER_SYNTAX = "1.2.826.0.1.3680043.8.498.5.1"
ALL_FAILED, UNKNOWN_DESTINATION, NOT_AUTHORISED = 0xA702, 0xA801, 0x0124

#: What a stock pynetdicom AE answers otherwise, with the same handlers, and why. Beside these, it cannot take part
#: in the tests marked ``engine_only``: it dispatches no SOP Class that it does not know, sends its own AE title as
#: Move Originator and every sub-operation with low priority, decodes what it sends, opens one association with room
#: for 128 contexts, gives up after 65,535 matches, and neither retries nor outlives a destination that is lost.
STOCK_ANSWERS: dict[str, tuple[int, str]] = {
    "destination unreachable": (0xA801, "it has one status for an association not established"),
    "destination rejects": (0xA801, "the same"),
    "destination accepts nothing": (0xA801, "the same"),
    "refused without a destination": (
        0xA801,
        "it connects before it asks the handler for a status",
    ),
}


def _expected(running: RunningArchive, situation: str, status: int) -> int:
    return STOCK_ANSWERS[situation][0] if is_stock(running) else status


def _assert_counters_add_up(outcome: Outcome, total: int) -> None:
    for one in outcome.pending:
        assert one.status == PENDING
        assert sum(count or 0 for count in one.counts) == total, one.counts
    completed = [one.counters["Completed"] or 0 for one in outcome.pending]
    assert completed == sorted(completed)


# Success


def test_retrieve_sends_every_instance_and_counts_to_the_end(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 5)

    outcome = retriever.retrieve(service, study_query())

    assert outcome.uids == uids
    assert outcome.final.status == SUCCESS
    assert outcome.final.identifier is None
    assert outcome.final.counts[1:] == (5, 0, 0)
    _assert_counters_add_up(outcome, 5)


@engine_only
def test_retrieve_answers_pending_before_the_first_instance_and_no_remaining_at_the_end(
    serve: Serve, retriever: Retriever
) -> None:
    service = serve(pending_interval_responses=1)
    retriever.prepare(service)
    store_study(service, 3)

    outcome = retriever.retrieve(service, study_query())

    assert [one.counts for one in outcome.responses] == [
        (3, 0, 0, 0),
        (2, 1, 0, 0),
        (1, 2, 0, 0),
        (None, 3, 0, 0),
    ]


@engine_only
def test_retrieve_answers_pending_at_the_cadence_that_is_set(
    serve: Serve, retriever: Retriever
) -> None:
    service = serve(pending_interval_responses=4, pending_interval_seconds=3600)
    retriever.prepare(service)
    store_study(service, 10)

    outcome = retriever.retrieve(service, study_query())

    assert [one.counters["Remaining"] for one in outcome.pending] == [10, 6, 2]
    _assert_counters_add_up(outcome, 10)


@pytest.mark.parametrize(
    ("root", "query", "expected"),
    [
        pytest.param("patient", identifier("PATIENT", PatientID="P-1"), [1, 2, 3], id="patient"),
        pytest.param("study", study_query(), [1, 2, 3], id="study"),
        pytest.param(
            "study",
            identifier("SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES),
            [1, 2, 3],
            id="series",
        ),
        pytest.param(
            "study",
            identifier(
                "IMAGE",
                StudyInstanceUID=STUDY,
                SeriesInstanceUID=SERIES,
                SOPInstanceUID=[f"{SERIES}.3", f"{SERIES}.1"],
            ),
            [1, 3],
            id="instances by list",
        ),
    ],
)
def test_retrieve_at_each_level(
    service: RunningArchive, retriever: Retriever, root: str, query: Dataset, expected: list[int]
) -> None:
    retriever.prepare(service)
    store_study(service, 3)
    deposit(service.archive, *make_study(2, "1.2.276.10", PatientID="P-2"))
    model = retriever.patient_root if root == "patient" else retriever.study_root

    outcome = retriever.retrieve(service, query, model=model)

    assert outcome.final.status == SUCCESS
    assert outcome.uids == [f"{SERIES}.{number}" for number in expected]


def test_retrieve_without_a_match_is_success_with_zero_counters(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)

    outcome = retriever.retrieve(service, study_query("1.2.3.4"))

    assert [one.status for one in outcome.responses] == [SUCCESS]
    assert outcome.final.counts[1:] == (0, 0, 0)
    record, operations = recorded(service)
    assert operations == []
    assert record.outcome is not None
    assert record.outcome.status == SUCCESS


@engine_only
@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGBaseline8Bit,
        JPEG2000,
        PRIVATE_TRANSFER_SYNTAX,
    ],
)
def test_retrieve_returns_the_stored_bytes_in_the_stored_transfer_syntax(
    service: RunningArchive, retriever: Retriever, syntax: str
) -> None:
    retriever.prepare(service)
    [instance] = make_study(1)
    data = data_set_bytes(instance, JPEG2000 if syntax == PRIVATE_TRANSFER_SYNTAX else syntax)
    deposit_bytes(service.archive, instance, data, syntax)

    outcome = retriever.retrieve(
        service, study_query(), contexts=[build_context(CTImageStorage, syntax)]
    )

    [received] = outcome.received
    assert received.transfer_syntax_uid == syntax
    assert received.data == data


@engine_only
def test_retrieve_of_private_sop_class_returns_the_stored_bytes(
    service: RunningArchive,
) -> None:
    # By C-GET only: a stock destination knows no such SOP Class.
    [instance] = make_study(1, SOPClassUID="1.2.826.0.1.3680043.8.498.5.2")
    deposit(service.archive, instance)
    context = build_context(instance.SOPClassUID, ExplicitVRLittleEndian)

    outcome = Getter().retrieve(service, study_query(), contexts=[context])

    assert [one.data for one in outcome.received] == [data_set_bytes(instance)]


@engine_only
def test_retrieve_of_large_instance_arrives_whole(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    [instance] = make_study(1)
    instance.PixelData = bytes(range(256)) * 12_001
    deposit(service.archive, instance)

    outcome = retriever.retrieve(service, study_query())

    assert [one.data for one in outcome.received] == [data_set_bytes(instance)]


# Failed and warned sub-operations


def test_retrieve_with_failures_and_warnings_is_b000_with_the_exact_list(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 5)
    answers = {uids[1]: 0xA700, uids[2]: 0xB007, uids[4]: 0x0110}

    outcome = retriever.retrieve(service, study_query(), answers=answers)

    assert outcome.final.status == WARNING
    assert outcome.final.counts[1:] == (2, 2, 1)
    assert outcome.final.failed_uids == [uids[1], uids[4]]
    assert outcome.uids == uids
    _assert_counters_add_up(outcome, 5)


def test_retrieve_with_warnings_only_is_b000_without_failed_uids(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 2)

    outcome = retriever.retrieve(service, study_query(), answers=dict.fromkeys(uids, 0xB000))

    assert outcome.final.status == WARNING
    assert outcome.final.counts[1:] == (0, 0, 2)
    assert outcome.final.failed_uids == []


def test_retrieve_with_every_instance_refused_is_a702_with_all_uids(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 3)

    outcome = retriever.retrieve(service, study_query(), answers=dict.fromkeys(uids, 0xA900))

    assert outcome.final.status == ALL_FAILED
    assert outcome.final.counts[1:] == (0, 3, 0)
    assert outcome.final.failed_uids == uids


@pytest.mark.parametrize("missing", [[2], [1, 2, 3]], ids=["one", "all"])
def test_retrieve_fails_the_instances_whose_file_is_missing(
    service: RunningArchive, retriever: Retriever, missing: list[int]
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 3)
    gone = [f"{SERIES}.{number}" for number in missing]
    for uid in gone:
        settled_file(service.archive, uid).unlink()

    outcome = retriever.retrieve(service, study_query())

    assert outcome.final.status == (ALL_FAILED if gone == uids else WARNING)
    assert outcome.final.failed_uids == gone
    assert outcome.uids == [uid for uid in uids if uid not in gone]
    _, operations = recorded(service)
    assert [one.sop_instance_uid for one in operations if one.error_comment] == gone


# Refusals


@pytest.mark.parametrize(
    ("query", "offending"),
    [
        pytest.param(identifier("STUDY"), 0x0020000D, id="no unique key"),
        pytest.param(identifier("SERIES", SeriesInstanceUID="1.2"), 0x0020000D, id="no parent"),
        pytest.param(identifier("PATIENT", PatientID="P-1"), 0x00080052, id="level not in model"),
        pytest.param(
            identifier("STUDY", StudyInstanceUID=STUDY, PatientName="Doe"), 0x00100010, id="no key"
        ),
    ],
)
def test_retrieve_against_the_information_model_is_a900_naming_the_element(
    service: RunningArchive, retriever: Retriever, query: Dataset, offending: int
) -> None:
    retriever.prepare(service)

    outcome = retriever.retrieve(service, query)

    assert [one.status for one in outcome.responses] == [0xA900]
    assert outcome.final.offending == (offending,)
    assert outcome.final.comment
    record, _ = recorded(service)
    assert record.outcome is not None
    assert record.outcome.status == 0xA900


def test_retrieve_without_the_right_is_0124(service: RunningArchive, retriever: Retriever) -> None:
    retriever.prepare(service)
    register(service.archive, "SENDER", 104, services=frozenset({Service.STORE}))
    store_study(service, 1)

    outcome = retriever.retrieve(service, study_query(), calling="SENDER")

    assert [one.status for one in outcome.responses] == [NOT_AUTHORISED]
    assert "SENDER" in outcome.final.comment
    assert outcome.received == []


def test_retrieve_without_index_is_a701_and_recovers_by_itself(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 2)
    retriever.retrieve(service, study_query())

    with index_outage(database_url_of(service.archive)):
        refused = retriever.retrieve(service, study_query())
    outcome = retriever.retrieve(service, study_query())

    assert [one.status for one in refused.responses] == [0xA701]
    assert refused.final.comment
    assert outcome.final.status == SUCCESS
    assert outcome.uids == uids


@engine_only
@pytest.mark.parametrize("priority", [0x0000, 0x0001, 0x0002], ids=["medium", "high", "low"])
def test_move_sub_operation_has_the_priority_of_the_request(
    service: RunningArchive, start_destination: Callable[..., Destination], priority: int
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    [uid] = store_study(service, 1)
    seen: list[int] = []

    def note(event: Any) -> int:
        seen.append(event.request.Priority)
        return 0x0000

    destination.answers = {uid: note}
    with association(service, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, priority=priority))

    assert seen == [priority]


@engine_only
@pytest.mark.parametrize(("looked_up", "status"), [(0, ALL_FAILED), (1, WARNING)])
def test_retrieve_that_loses_the_index_on_the_way_counts_the_rest_as_failed(
    service: RunningArchive,
    retriever: Retriever,
    monkeypatch: pytest.MonkeyPatch,
    looked_up: int,
    status: int,
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 3)
    index = service.archive.index
    instances, calls = index.instances, itertools.count()

    def fail_after(keys: Sequence[int]) -> list[StoredInstance]:
        if next(calls) == looked_up:
            raise IndexUnavailable
        return instances(keys)

    monkeypatch.setattr("pacs.archive.retrieve._BATCH_INSTANCES", 1)
    monkeypatch.setattr(index, "instances", fail_after)
    outcome = retriever.retrieve(service, study_query())

    assert outcome.final.status == status
    assert outcome.final.counts[1:] == (looked_up, 3 - looked_up, 0)
    assert outcome.final.comment == IndexUnavailable().message
    assert outcome.uids == uids[:looked_up]
    record, _ = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.remaining) == (status, 0)


# Cancel


def test_retrieve_cancelled_ends_with_fe00_and_the_remaining_counted(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 6)
    is_third, is_cancelled = threading.Event(), threading.Event()

    def cancel(assoc: Any) -> None:
        if isinstance(retriever, Mover):
            is_third.wait(5)
            assoc.send_c_cancel(5, query_model=retriever.study_root)
            is_cancelled.set()

    def wait(event: Any) -> int:
        is_third.set()
        if isinstance(retriever, Mover):
            is_cancelled.wait(5)
        else:
            event.assoc.send_c_cancel(5, query_model=retriever.study_root)
        return 0x0000

    outcome = retriever.retrieve(
        service,
        study_query(),
        answers={uids[0]: 0xA700, uids[2]: wait},
        on_pending=cancel,
        message_id=5,
    )

    assert outcome.final.status == CANCELLED
    remaining, completed, failed, warning = outcome.final.counts
    assert remaining == 6 - len(outcome.received) > 0
    assert (completed, failed, warning) == (len(outcome.received) - 1, 1, 0)
    assert outcome.final.failed_uids == [uids[0]]
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.remaining) == (CANCELLED, remaining)
    assert len(operations) == len(outcome.received)
    if isinstance(retriever, Mover):
        wait_until(lambda: retriever.destination.released == 1)


# The record in the index


def test_recorded_retrieve_equals_what_was_answered(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 4)
    answers = {uids[0]: 0xA700, uids[3]: 0xB000}

    outcome = retriever.retrieve(
        service, study_query(), answers=answers, message_id=77, calling="ASKER"
    )

    record, operations = recorded(service)
    request, result = record.request, record.outcome
    assert record.state is RetrieveState.FINISHED
    assert (request.calling_ae, request.calling_host) == ("ASKER", "127.0.0.1")
    assert request.service.value == retriever.name[2:].lower()
    assert (request.model, request.level, request.message_id) == ("Study Root", "STUDY", 77)
    assert request.destination == ("DEST" if isinstance(retriever, Mover) else "")
    assert json.loads(request.identifier)["0020000D"]["Value"] == [STUDY]
    assert result is not None
    assert result.status == outcome.final.status == WARNING
    assert (result.completed, result.failed, result.warning) == outcome.final.counts[1:]
    assert [one.sop_instance_uid for one in operations] == uids
    assert [one.outcome for one in operations] == [
        SubOperationOutcome.FAILED,
        SubOperationOutcome.COMPLETED,
        SubOperationOutcome.COMPLETED,
        SubOperationOutcome.WARNING,
    ]
    assert [one.status for one in operations] == [0xA700, 0, 0, 0xB000]
    assert outcome.final.failed_uids == [uids[0]]


@engine_only
def test_retrieve_of_requester_that_vanishes_is_recorded_and_ends(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 8)
    is_gone = threading.Event()
    destination.answers = {uids[2]: lambda _event: 0x0000 if is_gone.wait(5) else 0xC000}

    with association(service, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE)
        next(generator)
        wait_until(lambda: len(destination.received) == 3)
        assoc.abort()
        is_gone.set()

    wait_until(lambda: not engine_associations(service))
    record, operations = recorded(service)
    assert record.state is RetrieveState.FINISHED
    assert record.outcome is not None
    assert record.outcome.completed == len(operations) == len(destination.received) < 8
    assert record.outcome.remaining == 8 - len(operations)
    assert record.outcome.status not in (SUCCESS, WARNING)
    assert record.outcome.error_comment
    wait_until(lambda: destination.released == 1)


# C-MOVE: the destination


def _move(
    running: RunningArchive, title: str, query: Dataset | None = None, calling: str = "TESTSCU"
) -> Outcome:
    with association(running, STUDY_ROOT_MOVE, calling=calling) as assoc:
        found = responses(
            assoc.send_c_move(query or study_query(), title, STUDY_ROOT_MOVE, msg_id=9)
        )
    return Outcome(found, [])


def test_move_to_unknown_destination_is_a801_and_recorded(service: RunningArchive) -> None:
    store_study(service, 1)

    outcome = _move(service, "NOBODY")

    assert [one.status for one in outcome.responses] == [UNKNOWN_DESTINATION]
    record, operations = recorded(service)
    assert operations == []
    assert record.request.destination == "NOBODY"
    assert record.outcome is not None
    assert record.outcome.status == UNKNOWN_DESTINATION
    assert record.outcome.error_comment == "Move Destination NOBODY is not known"
    if not is_stock(service):
        assert record.outcome.error_comment == outcome.final.comment


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # stock leaves its socket open
def test_move_to_unreachable_destination_is_a702_with_all_uids_and_the_reason(
    service: RunningArchive,
) -> None:
    register(service.archive, "DEST", closed_port())
    uids = store_study(service, 3)

    outcome = _move(service, "DEST")

    assert outcome.final.status == _expected(service, "destination unreachable", ALL_FAILED)
    if is_stock(service):
        return
    assert outcome.final.counts[1:] == (0, 3, 0)
    assert outcome.final.failed_uids == uids
    assert "DEST" in outcome.final.comment
    assert outcome.final.comment.endswith(": Connection refused")
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.failed) == (ALL_FAILED, 3)
    assert [one.sop_instance_uid for one in operations] == uids


@engine_only
@pytest.mark.parametrize("host", ["nowhere.invalid", "two..dots"])
def test_move_to_a_host_without_address_is_a702_with_all_uids_and_the_reason(
    service: RunningArchive, host: str
) -> None:
    service.archive.index.remote_aes.add(RemoteAE(title="DEST", host=host, port=104))
    uids = store_study(service, 2)

    outcome = _move(service, "DEST")

    assert outcome.final.status == ALL_FAILED
    assert outcome.final.failed_uids == uids
    assert outcome.final.comment == f"Unknown host of DEST: {host}"


@pytest.mark.parametrize(
    ("situation", "options", "reason"),
    [
        ("destination rejects", {"rejects": True}, "rejected"),
        (
            "destination accepts nothing",
            {"accepts": lambda _class, _syntax: False},
            "presentation context",
        ),
    ],
)
def test_move_to_destination_that_refuses_the_association_is_a702(
    service: RunningArchive,
    start_destination: Callable[..., Destination],
    situation: str,
    options: dict[str, object],
    reason: str,
) -> None:
    destination = start_destination(**options)
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 2)

    outcome = _move(service, "DEST")

    assert outcome.final.status == _expected(service, situation, ALL_FAILED)
    if not is_stock(service):
        assert outcome.final.failed_uids == uids
        record, _ = recorded(service)
        assert record.outcome is not None
        assert reason in record.outcome.error_comment


def test_move_to_destination_that_is_not_allowed_is_0124(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    register(service.archive, "OTHER", destination.port)
    register(service.archive, "ASKER", 104, destinations=frozenset({"OTHER"}))
    store_study(service, 1)

    outcome = _move(service, "DEST", calling="ASKER")

    assert outcome.final.status == NOT_AUTHORISED
    assert "DEST" in outcome.final.comment
    assert destination.received == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # stock leaves its socket open
def test_move_against_the_model_to_an_unreachable_destination_is_still_a900(
    service: RunningArchive,
) -> None:
    register(service.archive, "DEST", closed_port())

    outcome = _move(service, "DEST", identifier("STUDY"))

    assert outcome.final.status == _expected(service, "refused without a destination", 0xA900)


@engine_only
def test_move_tells_the_destination_who_asked(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 1)

    _move(service, "DEST", calling="ASKER")

    [received] = destination.received
    assert (received.originator_ae, received.originator_id) == ("ASKER", 9)
    assert received.calling_ae == "PACS"


def test_move_releases_the_association_with_the_destination(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)

    _move(service, "DEST")

    wait_until(lambda: destination.released == 1)
    assert (destination.established, destination.aborted) == (1, 0)
    assert destination.uids == uids


def test_retrieves_follow_each_other_on_one_association(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 2)

    with association(service, STUDY_ROOT_MOVE) as assoc:
        finals = [
            responses(assoc.send_c_move(query, "DEST", STUDY_ROOT_MOVE, msg_id=number))[-1].status
            for number, query in enumerate((study_query(), identifier("STUDY"), study_query()))
        ]
    end(assoc)

    assert finals == [SUCCESS, 0xA900, SUCCESS]
    assert len(destination.received) == 4
    assert len(service.archive.index.journal.retrieves()) == 3
