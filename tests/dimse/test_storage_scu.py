"""The sub-operations of a C-MOVE against difficult destinations: contexts, transcoding, losses (PS3.4 B, C.4.2)."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    UID_dictionary,
)
from pynetdicom.presentation import build_context

from pacs.dicom.sop_classes import STORAGE_SOP_CLASSES
from pacs.dimse import storage_scu
from pacs.dimse.storage_scu import choose_context, contexts_for, outcome_of_status
from pacs.model.retrieves import SubOperationOutcome
from tests.dimse.retrieving import (
    CT_CONTEXT,
    PENDING,
    SERIES,
    SUCCESS,
    WARNING,
    Getter,
    Outcome,
    make_study,
    recorded,
    store_study,
    study_query,
    uids_of,
)
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    data_set_bytes,
    data_set_of_file,
    deposit,
    deposit_bytes,
    identifier,
    register,
    responses,
    settled_file,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite

UNCOMPRESSED = {ImplicitVRLittleEndian, ExplicitVRLittleEndian}
StartDestination = Callable[..., Destination]


def _move(running: RunningArchive, query: Dataset | None = None) -> Outcome:
    with association(running, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(query or study_query(), "DEST", STUDY_ROOT_MOVE)
        return Outcome(responses(generator), [])


def _read(data: bytes, syntax: str) -> Dataset:
    stream = DicomBytesIO(data)
    stream.is_implicit_VR = syntax == ImplicitVRLittleEndian
    return dcmread(stream, force=True)


# Presentation contexts


def test_contexts_for_propose_each_stored_pair_alone_and_the_uncompressed_as_fallback() -> None:
    stored = {(CTImageStorage, RLELossless): 1, (CTImageStorage, JPEGBaseline8Bit): 5}

    proposed = contexts_for(stored)

    assert [(one.abstract_syntax, list(one.transfer_syntax)) for one in proposed] == [
        (CTImageStorage, [JPEGBaseline8Bit]),
        (CTImageStorage, [RLELossless]),
        (CTImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]),
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0x0000, SubOperationOutcome.COMPLETED),
        (0xB000, SubOperationOutcome.WARNING),
        (0xB007, SubOperationOutcome.WARNING),
        (0x0107, SubOperationOutcome.WARNING),
        (0x0116, SubOperationOutcome.WARNING),
        (0x0001, SubOperationOutcome.WARNING),
        (0xA700, SubOperationOutcome.FAILED),
        (0xC123, SubOperationOutcome.FAILED),
        (0x0122, SubOperationOutcome.FAILED),
        (0xFE00, SubOperationOutcome.FAILED),
        (0xFF00, SubOperationOutcome.FAILED),
    ],
)
def test_outcome_of_status_by_range(status: int, expected: SubOperationOutcome) -> None:
    assert outcome_of_status(status, "").result is expected


def test_choose_context_prefers_the_stored_transfer_syntax() -> None:
    class _Instance:
        sop_class_uid = CTImageStorage
        transfer_syntax_uid = RLELossless

    contexts = []
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless):
        context = build_context(CTImageStorage, syntax)
        context._as_scu = True
        contexts.append(context)

    chosen = [
        choose_context(contexts[:count], _Instance())  # type: ignore[arg-type]
        for count in range(4)
    ]

    assert chosen == [None, contexts[0], contexts[0], contexts[2]]


# A destination that does not accept the stored transfer syntax


@pytest.mark.parametrize(
    "stored_as", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
@pytest.mark.parametrize("accepted", sorted(UNCOMPRESSED))
@engine_on_sqlite
def test_move_to_destination_that_takes_uncompressed_only_transcodes(
    service: RunningArchive, start_destination: StartDestination, stored_as: str, accepted: str
) -> None:
    destination = start_destination(accepts=lambda _class, syntax: syntax == accepted)
    register(service.archive, "DEST", destination.port)
    [instance] = make_study(1)
    if stored_as == RLELossless:
        pytest.importorskip("numpy", reason="pydicom's decoders need NumPy, which is optional here")
        instance.compress(RLELossless, generate_instance_uid=False)
        file = BytesIO()
        dcmwrite(file, instance, enforce_file_format=True)
        deposit_bytes(service.archive, instance, data_set_of_file(file.getvalue()), RLELossless)
    else:
        deposit(service.archive, instance, transfer_syntax_uid=stored_as)

    outcome = _move(service)

    assert outcome.final.status == SUCCESS
    [received] = destination.received
    assert received.transfer_syntax_uid == accepted
    sent = _read(received.data, accepted)
    assert sent.PixelData == bytes(range(64))
    assert str(sent.PatientName) == "Doe^Jane"
    assert sent.SOPInstanceUID == instance.SOPInstanceUID
    stored = service.archive.index.find_by_uid(instance.SOPInstanceUID)
    assert stored is not None
    assert stored.transfer_syntax_uid == stored_as


@engine_on_sqlite
def test_move_of_what_cannot_be_decoded_fails_alone_with_the_reason(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(accepts=lambda _class, syntax: syntax in UNCOMPRESSED)
    register(service.archive, "DEST", destination.port)
    undecodable, plain = make_study(2)
    deposit(service.archive, undecodable, transfer_syntax_uid=JPEGBaseline8Bit)
    deposit(service.archive, plain)

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [undecodable.SOPInstanceUID]
    assert destination.uids == [plain.SOPInstanceUID]
    _, [failed, _] = recorded(service)
    assert "Cannot convert from JPEG Baseline" in failed.error_comment


@engine_on_sqlite
def test_move_of_sop_class_that_the_destination_refuses_fails_alone_with_the_reason(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(accepts=lambda sop_class, _syntax: sop_class == CTImageStorage)
    register(service.archive, "DEST", destination.port)
    image, other = make_study(2)
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    deposit(service.archive, image, other)

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [other.SOPInstanceUID]
    assert destination.uids == [image.SOPInstanceUID]
    _, [_, failed] = recorded(service)
    assert "no presentation context" in failed.error_comment
    assert "MR Image Storage" in failed.error_comment


@engine_on_sqlite
def test_get_fails_what_the_requester_did_not_propose_with_the_reason(
    service: RunningArchive,
) -> None:
    image, other = make_study(2)
    other.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    deposit(service.archive, image, other)

    outcome = Getter().retrieve(service, study_query(), contexts=[CT_CONTEXT])

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [other.SOPInstanceUID]
    _, [_, failed] = recorded(service)
    assert "no presentation context" in failed.error_comment


# More than one association has room for


@engine_on_sqlite
def test_move_of_more_pairs_than_one_association_has_contexts_opens_more(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    served = [uid for uid in sorted(STORAGE_SOP_CLASSES) if _is_served_by_stock(uid)][:70]
    instances = make_study(len(served) * 2)
    for number, instance in enumerate(instances):
        instance.SOPClassUID = served[number // 2]
        syntax = (ExplicitVRLittleEndian, ExplicitVRBigEndian)[number % 2]
        deposit(service.archive, instance, transfer_syntax_uid=syntax)

    outcome = _move(service)

    assert outcome.final.status == SUCCESS
    assert len(destination.received) == len(instances) == 140
    assert destination.established == 2
    assert all(count <= 128 for count in destination.proposed)
    by_uid = {one.sop_instance_uid: one for one in destination.received}
    for number, instance in enumerate(instances):
        syntax = (ExplicitVRLittleEndian, ExplicitVRBigEndian)[number % 2]
        assert by_uid[instance.SOPInstanceUID].transfer_syntax_uid == syntax
        assert by_uid[instance.SOPInstanceUID].data == data_set_bytes(instance, syntax)


def _is_served_by_stock(uid: str) -> bool:
    from pynetdicom.service_class import StorageServiceClass
    from pynetdicom.sop_class import uid_to_service_class

    return uid in UID_dictionary and uid_to_service_class(uid) is StorageServiceClass


# A destination that is lost


@engine_on_sqlite
def test_move_to_destination_that_aborts_once_sends_the_instance_again(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 4)
    tries: list[str] = []

    def abort_once(event: Any) -> int:
        tries.append("try")
        if len(tries) == 1:
            event.assoc.abort()
        return 0x0000

    destination.answers = {uids[1]: abort_once}

    outcome = _move(service)

    assert outcome.final.status == SUCCESS
    assert outcome.final.counts[1:] == (4, 0, 0)
    assert destination.uids == [uids[0], uids[1], uids[1], uids[2], uids[3]]
    assert destination.established == 2
    assert all(sum(count or 0 for count in one.counts) == 4 for one in outcome.pending)


@engine_on_sqlite
def test_move_to_destination_that_always_aborts_on_one_instance_fails_it_alone(
    serve: Serve, start_destination: StartDestination
) -> None:
    service = serve(destination_retries=1)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)

    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    destination.answers = {uids[1]: abort}

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[1]]
    assert destination.uids == [uids[0], uids[1], uids[1], uids[2]]


@engine_on_sqlite
def test_move_to_destination_that_goes_away_fails_the_rest_quickly(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 12)

    def leave(event: Any) -> int:
        destination._server.shutdown()
        event.assoc.abort()
        return 0x0000

    destination.answers = {uids[2]: leave}
    started = time.monotonic()

    outcome = _move(service)

    assert time.monotonic() - started < 5
    assert outcome.final.status == WARNING
    assert outcome.final.counts[1:] == (2, 10, 0)
    assert outcome.final.failed_uids == uids[2:]
    _, operations = recorded(service)
    assert len(operations) == 12
    assert all("DEST" in one.error_comment for one in operations[2:])


@engine_on_sqlite
def test_move_to_destination_that_never_answers_is_bounded(
    serve: Serve, start_destination: StartDestination
) -> None:
    service = serve(dimse_timeout_seconds=0.2, destination_retries=0)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 2)

    def sleep(_event: Any) -> int:
        time.sleep(0.6)
        return 0x0000

    destination.answers = {uids[0]: sleep}

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[0]]
    _, [failed, _] = recorded(service)
    assert "did not answer" in failed.error_comment


@engine_on_sqlite
def test_move_to_destination_that_answers_nothing_waits_for_two_instances_only(
    serve: Serve, start_destination: StartDestination
) -> None:
    service = serve(dimse_timeout_seconds=0.2, destination_retries=1)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 20)

    def sleep(_event: Any) -> int:
        time.sleep(0.6)
        return 0x0000

    destination.answers = dict.fromkeys(uids, sleep)
    started = time.monotonic()

    outcome = _move(service)

    assert time.monotonic() - started < 4
    assert destination.uids == [uids[0], uids[0], uids[1], uids[1]]
    assert outcome.final.failed_uids == uids
    _, operations = recorded(service)
    assert all("did not answer" in one.error_comment for one in operations[:2])
    assert all("Not tried" in one.error_comment for one in operations[2:])


@engine_on_sqlite
def test_move_with_stored_file_cut_short_fails_it_and_sends_the_rest(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)
    _cut_short(service, uids[1])

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[1]]
    assert destination.uids == [uids[0], uids[2]]
    _, operations = recorded(service)
    assert "broke off" in operations[1].error_comment


@engine_on_sqlite
def test_get_with_stored_file_cut_short_in_what_is_read_ahead_fails_it_alone(
    service: RunningArchive,
) -> None:
    uids = store_study(service, 3)
    _cut_short(service, uids[1])

    outcome = Getter().retrieve(service, study_query(), contexts=[CT_CONTEXT])

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[1]]
    assert outcome.uids == [uids[0], uids[2]]
    _, operations = recorded(service)
    assert [one.sop_instance_uid for one in operations] == uids
    assert "broke off" in operations[1].error_comment


@engine_on_sqlite
def test_get_with_large_file_cut_short_fails_it_alone(service: RunningArchive) -> None:
    uids = _store_large(service, 3)
    _cut_short(service, uids[1])

    outcome = Getter().retrieve(service, study_query(), contexts=[CT_CONTEXT])

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[1]]
    assert outcome.final.comment == "The stored file broke off: it is shorter than the index says"
    assert outcome.uids == [uids[0], uids[2]]


@engine_on_sqlite
def test_get_with_large_file_cut_short_as_it_is_sent_ends_the_association_and_is_recorded(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_scu, "refuse_cut_off", _look_too_early)
    uids = _store_large(service, 2)
    _cut_short(service, uids[0])

    with pytest.raises(AssertionError, match="without a final response"):
        Getter().retrieve(service, study_query(), contexts=[CT_CONTEXT])

    wait_until(lambda: recorded(service)[0].outcome is not None)
    record, operations = recorded(service)
    assert record.outcome is not None
    assert record.outcome.status != SUCCESS
    assert operations[0].sop_instance_uid == uids[0]
    assert "broke off" in operations[0].error_comment
    assert {one.outcome for one in operations} == {SubOperationOutcome.FAILED}


@engine_on_sqlite
def test_move_with_large_file_cut_short_as_it_is_sent_fails_it_and_sends_the_rest(
    service: RunningArchive,
    start_destination: StartDestination,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage_scu, "refuse_cut_off", _look_too_early)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = _store_large(service, 3)
    _cut_short(service, uids[1])

    outcome = _move(service)

    assert outcome.final.status == WARNING
    assert outcome.final.failed_uids == [uids[1]]
    assert destination.uids == [uids[0], uids[2]]
    assert destination.established == 2
    _, operations = recorded(service)
    assert "broke off" in operations[1].error_comment


def _look_too_early(instance: object, stream: object) -> None:
    """Find the file whole: it is cut short after it was looked at."""


def _store_large(service: RunningArchive, count: int) -> list[str]:
    """Store what takes several blocks to send."""
    instances = make_study(count)
    for instance in instances:
        instance["PixelData"].value = bytes(3_000_000)
    deposit(service.archive, *instances)
    return uids_of(instances)


def _cut_short(service: RunningArchive, uid: str) -> None:
    path = settled_file(service.archive, uid)
    path.write_bytes(path.read_bytes()[:-20])


@engine_on_sqlite
def test_move_answers_pending_while_the_destination_is_slow(
    serve: Serve, start_destination: StartDestination
) -> None:
    # By default they are at most 100 ms apart while sub-operations end.
    service = serve(pending_interval_responses=1000)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)

    def sleep(_event: Any) -> int:
        time.sleep(0.3)  # what was done before is recorded and answered meanwhile
        return 0x0000

    destination.answers = dict.fromkeys(uids, sleep)

    outcome = _move(service)

    assert [one.status for one in outcome.pending] == [PENDING] * 3
    assert outcome.final.status == SUCCESS


@engine_on_sqlite
def test_move_of_one_instance_of_many_sends_only_that(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 3)
    deposit(service.archive, make_instance())
    query = identifier(
        "IMAGE",
        StudyInstanceUID=SERIES.rpartition(".")[0],
        SeriesInstanceUID=SERIES,
        SOPInstanceUID=f"{SERIES}.2",
    )

    outcome = _move(service, query)

    assert outcome.final.status == SUCCESS
    assert destination.uids == [f"{SERIES}.2"]
