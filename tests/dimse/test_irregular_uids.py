"""UIDs that PS3.5 9.1 does not allow and the field has: stored, found, retrieved, committed, and said once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from pacs.archive.check import Finding
from pacs.conformance.scp import operations
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, proposed_contexts
from pacs.conformance.wire.message import CommandField, Message, encode_data_set, request
from pacs.conformance.wire.trace import Trace
from pacs.dicom.information_model import Operation
from pacs.dicom.levels import Level
from pacs.dicom.storage_commitment import SOP_CLASS_UID, SOP_INSTANCE_UID
from pacs.dimse.status import failed_list
from tests.archive.holdings import findings
from tests.factories import make_instance
from tests.peers import (
    CALLING,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    closed_port,
    data_set_bytes,
    deposit,
    register,
    stored_bytes,
)
from tests.serving import Serve, engine_on_sqlite, engine_only

# Each is told from the next by its last characters, so that a UID cut to 64 would be another one.
IRREGULAR = {
    "68 characters": "1.2.826." + "1" * 60,
    "128 characters": "1" * 128,
    "hexadecimal": "1.2.840.3F.A0C",
    "UUID": "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
    "blanks": "1.2. 840.1 7",
    "like a path": "../../etc",
    "quotation marks": "1.2'\"; --",
}
NOT_UIDS = ["1" * 129, "1.2\\1.3", "1.2\x1b[31m", "1.2\x7f"]

pytestmark = pytest.mark.filterwarnings("ignore:.*VR UI:UserWarning")


def make_irregular(uid: str, last: str = "") -> Dataset:
    """An instance all of whose own UIDs are like this one."""
    beginning = uid[: len(uid) - 1 - len(last)]
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return make_instance(**{name: f"{beginning}{n}{last}" for n, name in enumerate(names)})


@contextmanager
def associated(service: RunningArchive) -> Iterator[Association]:
    """An association on which whatever is sent goes out as it is."""
    classes = (CTImageStorage, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET, SOP_CLASS_UID)
    proposal = pdus.AssociateRequest(
        called_ae_title="PACS",
        calling_ae_title=CALLING,
        user_items=(
            pdus.maximum_length(16_384),
            *pdus.implementation("1.2.3", "TEST"),
            pdus.role_selection(CTImageStorage, scu=True, scp=True),
        ),
        contexts=proposed_contexts([(one, [ExplicitVRLittleEndian]) for one in classes]),
    )
    with Association.connect(("127.0.0.1", service.port), Trace(), 20) as association:
        association.request(proposal)
        yield association
        association.release()


def send(association: Association, instance: Dataset) -> Message:
    context = association.context_for(CTImageStorage)
    assert context is not None
    return operations.store(association, context, instance)


def ask(association: Association, sop_class: str, level: Level, **keys: object) -> list[Message]:
    context = association.context_for(sop_class)
    assert context is not None
    operation = {
        STUDY_ROOT_FIND: Operation.FIND,
        STUDY_ROOT_MOVE: Operation.MOVE,
        STUDY_ROOT_GET: Operation.GET,
    }[sop_class]
    elements = {"MoveDestination": "DEST"} if operation is Operation.MOVE else {}
    asked = operations.identifier(level, keys)
    operations.start(association, context, operation, asked, **elements)
    return operations.responses(association)


def unique_keys(instance: Dataset) -> dict[str, object]:
    return {
        "StudyInstanceUID": instance.StudyInstanceUID,
        "SeriesInstanceUID": instance.SeriesInstanceUID,
        "SOPInstanceUID": instance.SOPInstanceUID,
    }


@engine_only
@pytest.mark.parametrize("uid", IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_uid_is_stored_found_and_moved_as_it_is(
    serve: Serve, tmp_path: Path, uid: str
) -> None:
    service, instance = serve(), make_irregular(uid)
    # Another archive of ours: stock pynetdicom does not take more than 64 characters.
    place = {"data_dir": tmp_path / "dest", "database_url": f"sqlite:///{tmp_path}/dest.sqlite"}
    other = serve(ae_title="DEST", **place)
    register(service.archive, "DEST", other.port)

    with associated(service) as association:
        assert send(association, instance).status == 0x0000
        (match, last) = ask(association, STUDY_ROOT_FIND, Level.IMAGE, **unique_keys(instance))
        moved = ask(
            association, STUDY_ROOT_MOVE, Level.STUDY, StudyInstanceUID=instance.StudyInstanceUID
        )
        got = ask(association, STUDY_ROOT_GET, Level.IMAGE, **unique_keys(instance))

    found = match.data_set(ExplicitVRLittleEndian)
    with config.disable_value_validation():
        assert {key: found[key].value for key in unique_keys(instance)} == unique_keys(instance)
    assert last.status == 0x0000
    assert moved[-1].status == 0x0000, moved[-1].comment
    assert got[-1].status == 0x0000
    assert got[-1].command["NumberOfCompletedSuboperations"] == 1
    for archive in (service.archive, other.archive):
        assert stored_bytes(archive, instance.SOPInstanceUID) == data_set_bytes(instance)
        assert findings(archive) == {Finding.SOUND: 1}
        stored = archive.index.find_by_uid(instance.SOPInstanceUID)
        assert stored is not None
        meta = dcmread(archive.storage.path(stored.location)).file_meta
        assert meta.MediaStorageSOPInstanceUID == instance.SOPInstanceUID


@engine_on_sqlite
@pytest.mark.parametrize("uid", IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_uid_is_moved_to_a_stock_destination(
    service: RunningArchive, start_destination: Callable[..., Destination], uid: str
) -> None:
    instance = make_irregular(uid)
    study = {"StudyInstanceUID": instance.StudyInstanceUID}
    others = [make_instance(**study), make_instance(**study)]
    deposit(service.archive, others[0], instance, others[1])
    destination = start_destination()
    register(service.archive, "DEST", destination.port)

    with associated(service) as association:
        last = ask(association, STUDY_ROOT_MOVE, Level.STUDY, **study)[-1]

    assert last.status == 0x0000, last.comment
    # A command set has no room for more than 64 characters; the data set has them all.
    assert sorted(destination.uids) == sorted(
        [*(one.SOPInstanceUID for one in others), instance.SOPInstanceUID[:64]]
    )
    assert data_set_bytes(instance) in [one.data for one in destination.received]


@engine_only
@pytest.mark.parametrize("uid", IRREGULAR.values(), ids=IRREGULAR)
def test_irregular_uid_is_in_the_failed_list_and_committed(
    service: RunningArchive, uid: str
) -> None:
    instance = make_irregular(uid)
    register(service.archive, "DEST", closed_port())

    with associated(service) as association:
        send(association, instance)
        failed = ask(
            association, STUDY_ROOT_MOVE, Level.STUDY, StudyInstanceUID=instance.StudyInstanceUID
        )[-1]
        context = association.context_for(SOP_CLASS_UID)
        assert context is not None
        information = Dataset()
        with config.disable_value_validation():
            information.TransactionUID = uid
            information.ReferencedSOPSequence = [Dataset()]
            information.ReferencedSOPSequence[0].ReferencedSOPClassUID = CTImageStorage
            information.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = instance.SOPInstanceUID
        association.send(
            request(
                CommandField.N_ACTION_RQ,
                context.context_id,
                association.next_message_id(),
                SOP_CLASS_UID,
                encode_data_set(information, ExplicitVRLittleEndian),
                AffectedSOPClassUID=None,
                RequestedSOPClassUID=SOP_CLASS_UID,
                RequestedSOPInstanceUID=SOP_INSTANCE_UID,
                ActionTypeID=1,
            )
        )
        accepted, report = association.receive(), association.receive()

    assert failed.status == 0xA702
    assert failed.data_set(ExplicitVRLittleEndian).FailedSOPInstanceUIDList == (
        instance.SOPInstanceUID
    )
    assert accepted.status == 0x0000
    reported = report.data_set(ExplicitVRLittleEndian)
    assert reported.TransactionUID == uid
    assert "FailedSOPSequence" not in reported
    (committed,) = reported.ReferencedSOPSequence
    assert committed.ReferencedSOPInstanceUID == instance.SOPInstanceUID


@engine_on_sqlite
@pytest.mark.parametrize("uid", NOT_UIDS, ids=ascii)
def test_what_is_no_uid_is_refused_by_name(service: RunningArchive, uid: str) -> None:
    instance = make_instance(StudyInstanceUID=uid)

    with associated(service) as association:
        answer = send(association, instance)

    assert answer.status == 0xC010
    assert answer.comment.startswith("StudyInstanceUID is not a UID, '")
    assert service.archive.index.stats().instances == 0


@engine_on_sqlite
def test_irregular_uids_are_said_once_for_each_sender_and_kind(
    service: RunningArchive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pacs")

    with associated(service) as association:
        for number in range(3):
            assert send(association, make_instance(SOPInstanceUID=f"A B {number}")).status == 0
        assert send(association, make_instance(SeriesInstanceUID="1.2.x")).status == 0

    assert [one for one in caplog.messages if "is said once" in one] == [
        f"from {CALLING}: SOPInstanceUID is not a UID of PS3.5 9.1; this is said once",
        f"from {CALLING}: SeriesInstanceUID is not a UID of PS3.5 9.1; this is said once",
    ]
    # In quotation marks, because a blank would end it.
    assert any("C-STORE of 'A B 2' stored" in one for one in caplog.messages)


@engine_on_sqlite
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_strict_uids_refuses_an_irregular_one_by_name(serve: Serve, keyword: str) -> None:
    service = serve(strict_uids=True)

    with associated(service) as association:
        refused = send(association, make_instance(**{keyword: "1.2.x"}))
        # Sloppy, and taken by everybody.
        stored = send(association, make_instance(**{keyword: "1.02..3"}))

    assert (refused.status, refused.comment) == (0xC010, f"{keyword} is not a UID, '1.2.x'")
    assert stored.status == 0x0000
    assert service.archive.index.stats().instances == 1


@engine_on_sqlite
@pytest.mark.parametrize("sop_class", ["1.2.840.3F.A0C", "1.2 3"])
def test_irregular_sop_class_is_proposed_and_moved(
    serve: Serve, tmp_path: Path, sop_class: str
) -> None:
    service, study = serve(), {"StudyInstanceUID": "1.2.3"}
    instances = [make_instance(SOPClassUID=sop_class, **study), make_instance(**study)]
    deposit(service.archive, *instances)
    # Stock pynetdicom has no service for it.
    place = {"data_dir": tmp_path / "dest", "database_url": f"sqlite:///{tmp_path}/dest.sqlite"}
    other = serve(ae_title="DEST", **place)
    register(service.archive, "DEST", other.port)

    with associated(service) as association:
        last = ask(association, STUDY_ROOT_MOVE, Level.STUDY, **study)[-1]

    assert last.status == 0x0000, last.comment
    for instance in instances:
        assert stored_bytes(other.archive, instance.SOPInstanceUID) == data_set_bytes(instance)


@engine_on_sqlite
def test_sop_class_that_no_association_can_name_fails_alone(service: RunningArchive) -> None:
    # Such a one can be imported only.
    service_class = "1." * 40 + "1"
    deposited = [make_instance(SOPClassUID=service_class), make_instance()]
    study = {"StudyInstanceUID": deposited[0].StudyInstanceUID}
    deposited[1].StudyInstanceUID = study["StudyInstanceUID"]
    deposit(service.archive, *deposited)
    destination = Destination()
    destination.start()
    register(service.archive, "DEST", destination.port)

    with associated(service) as association:
        last = ask(association, STUDY_ROOT_MOVE, Level.STUDY, **study)[-1]
    destination.stop()

    assert last.status == 0xB000
    assert last.data_set(ExplicitVRLittleEndian).FailedSOPInstanceUIDList == (
        deposited[0].SOPInstanceUID
    )
    assert destination.uids == [deposited[1].SOPInstanceUID]


@pytest.mark.parametrize("count", [1, 2])
def test_failed_list_names_irregular_uids_without_a_warning(
    recwarn: pytest.WarningsRecorder, count: int
) -> None:
    uids = [*IRREGULAR.values()][:count]

    made = failed_list(uids)

    assert made is not None
    listed = made.FailedSOPInstanceUIDList
    assert ([listed] if isinstance(listed, UID) else list(listed)) == uids
    assert list(recwarn) == []
