"""C-STORE against both engines: bytes kept as received, and every failure with its status (PS3.4 B.2.3)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)
from pynetdicom.presentation import build_context

from pacs.dicom.sop_classes import is_storage_sop_class
from pacs.errors import StorageUnavailable
from pacs.model.remote_ae import Service
from pacs.storage.base import Spooled
from pacs.storage.spool import Spool
from pacs.wire import command
from tests.factories import make_instance
from tests.outages import index_outage, largest_file
from tests.peers import (
    CALLING,
    VERIFICATION,
    RunningArchive,
    association,
    data_set_bytes,
    data_set_of_file,
    database_url_of,
    deposit,
    engine_associations,
    is_stock,
    register,
    send,
    send_bytes,
    send_on_context,
    spool_files,
    stored_bytes,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite, engine_only
from tests.wire.wire import IMPLICIT, Wire, echo_command, message, store_command

JPEG_XL = UID("1.2.840.10008.1.2.4.112")
PRIVATE_TRANSFER_SYNTAX = UID("1.2.826.0.1.3680043.8.498.5.1")
PRIVATE_SOP_CLASS = UID("1.2.826.0.1.3680043.8.498.5.2")
#: Under the Standard's storage root, assigned after this release.
FUTURE_SOP_CLASS = UID("1.2.840.10008.5.1.4.1.1.9999.1")

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG": JPEGBaseline8Bit,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000,
    "HTJ2K": HTJ2KLossless,
    "JPEG XL": JPEG_XL,
}


def _context(instance: Dataset, syntax: str = "") -> object:
    return build_context(instance.SOPClassUID, UID(syntax or instance.file_meta.TransferSyntaxUID))


# What is kept


def _shipped_files() -> Iterator[tuple[Path, Dataset]]:
    """Every file of pydicom's own tests that is a whole storage instance."""
    for path in sorted(Path(pydicom.__file__).with_name("data").rglob("*")):
        if not path.is_file() or path.read_bytes()[128:132] != b"DICM":
            continue
        try:
            instance = dcmread(path, stop_before_pixels=True)
            uids = (instance.StudyInstanceUID, instance.SeriesInstanceUID)
            meta = instance.file_meta
            announced = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID)
            is_whole = (instance.SOPClassUID, instance.SOPInstanceUID) == announced
            has_length = "FileMetaInformationGroupLength" in meta
        except AttributeError:
            continue
        is_whole &= path.name != "MR_truncated.dcm"  # 62 bytes of Pixel Data are missing
        if all(uids) and is_whole and has_length and is_storage_sop_class(instance.SOPClassUID):
            yield path, instance


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom on its own invalid files
def test_store_of_every_file_pydicom_ships_keeps_each_byte(service: RunningArchive) -> None:
    files = list(_shipped_files())
    if is_stock(service):  # 40 ms each, because it leaves Nagle's algorithm on
        files = list(
            {
                (one.SOPClassUID, one.file_meta.TransferSyntaxUID): (path, one)
                for path, one in files
            }.values()
        )
    pairs = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for _, one in files}
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in sorted(pairs)]
    statuses: Counter[int] = Counter()

    with association(service, *contexts) as assoc:
        by_pair = {
            (one.abstract_syntax, one.transfer_syntax[0]): one.context_id
            for one in assoc.accepted_contexts
        }
        assert len(by_pair) == len(pairs)
        for number, (path, instance) in enumerate(files, start=1):
            sent = data_set_of_file(path.read_bytes())
            context_id = by_pair[instance.SOPClassUID, instance.file_meta.TransferSyntaxUID]
            assert context_id is not None
            uid = instance.SOPInstanceUID
            status = send_on_context(assoc, sent, context_id, instance.SOPClassUID, uid, number)
            statuses[status.Status] += 1
            assert stored_bytes(service.archive, uid) == sent, path
            stored = service.archive.index.find_by_uid(uid)
            assert stored is not None
            assert stored.digest == hashlib.sha256(sent).hexdigest()
            assert stored.transfer_syntax_uid == instance.file_meta.TransferSyntaxUID

    assert statuses == {0x0000: len(files)}
    assert len(files) > (20 if is_stock(service) else 120)
    assert len({syntax for _, syntax in pairs}) > 10


@pytest.mark.parametrize("name", SYNTAXES)
def test_store_keeps_transfer_syntax_and_bytes(service: RunningArchive, name: str) -> None:
    instance = make_instance()
    instance.file_meta.TransferSyntaxUID = SYNTAXES[name]

    with association(service, _context(instance)) as assoc:
        status = send(assoc, instance)

    assert status.Status == 0x0000
    stored = service.archive.index.find_by_uid(instance.SOPInstanceUID)
    assert stored is not None
    assert stored.transfer_syntax_uid == SYNTAXES[name]
    assert stored_bytes(service.archive, instance.SOPInstanceUID) == data_set_bytes(instance)


def test_store_in_private_transfer_syntax_keeps_bytes(service: RunningArchive) -> None:
    instance = make_instance()
    instance.file_meta.TransferSyntaxUID = PRIVATE_TRANSFER_SYNTAX
    data = data_set_bytes(instance, JPEG2000)

    with association(service, _context(instance)) as assoc:
        status = send_bytes(assoc, data, CTImageStorage, instance.SOPInstanceUID)

    assert status.Status == 0x0000
    assert stored_bytes(service.archive, instance.SOPInstanceUID) == data


@engine_only
@pytest.mark.parametrize("sop_class_uid", [PRIVATE_SOP_CLASS, FUTURE_SOP_CLASS])
def test_store_of_sop_class_that_nobody_registered_is_kept(
    service: RunningArchive, sop_class_uid: str
) -> None:
    instance = make_instance(SOPClassUID=sop_class_uid)

    with association(service, _context(instance)) as assoc:
        status = send(assoc, instance)

    assert status.Status == 0x0000
    stored = service.archive.index.find_by_uid(instance.SOPInstanceUID)
    assert stored is not None
    assert stored.sop_class_uid == sop_class_uid


def test_stored_file_opens_with_pydicom_and_names_its_sender(service: RunningArchive) -> None:
    instance = make_instance(PatientName="Doe^Jane")

    with association(service, _context(instance), calling="CT1") as assoc:
        send(assoc, instance)

    stored = service.archive.index.find_by_uid(instance.SOPInstanceUID)
    assert stored is not None
    with service.archive.storage.open(stored.location) as stream:
        file = dcmread(stream)
    assert file.PatientName == "Doe^Jane"
    assert file.file_meta.SourceApplicationEntityTitle == "CT1"
    assert file.file_meta.MediaStorageSOPInstanceUID == instance.SOPInstanceUID


def test_store_of_many_instances_on_one_association_stores_each(service: RunningArchive) -> None:
    study, series = generate_uid(), generate_uid()
    instances = [
        make_instance(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=number)
        for number in range(10)
    ]

    with association(service, _context(instances[0])) as assoc:
        statuses = [send(assoc, one, number).Status for number, one in enumerate(instances)]

    assert statuses == [0x0000] * 10
    assert service.archive.index.stats().instances == 10
    assert service.archive.index.stats().series == 1


# What is refused


@pytest.mark.parametrize(
    ("data", "status_class"),
    [
        pytest.param(data_set_bytes(make_instance())[:37], 0xC000, id="cut short"),
        pytest.param(
            data_set_bytes(make_instance(StudyInstanceUID=None)), 0xC000, id="no Study UID"
        ),
        pytest.param(b"not a data set at all", 0xC000, id="text"),
        # What data sets are filled up with, and nothing else: one without a SOP Class.
        pytest.param(b"\xff" * 200, 0xA000, id="ones"),
    ],
)
def test_store_of_unreadable_data_set_is_refused_with_a_comment(
    service: RunningArchive, data: bytes, status_class: int
) -> None:
    uid = generate_uid()

    with association(service, build_context(CTImageStorage, ExplicitVRLittleEndian)) as assoc:
        status = send_bytes(assoc, data, CTImageStorage, uid)
        good = make_instance()
        after = send_bytes(assoc, data_set_bytes(good), CTImageStorage, good.SOPInstanceUID)

    assert status.Status & 0xF000 == status_class
    assert 0 < len(status.ErrorComment) <= 64
    assert after.Status == 0x0000
    assert spool_files(service.archive) == []
    assert len(list(service.archive.storage.files())) == 1


def test_store_of_cut_off_data_set_is_refused_with_what_it_lacks_and_the_whole_one_stays(
    service: RunningArchive,
) -> None:
    instance = make_instance()
    whole = data_set_bytes(instance)

    with association(service, build_context(CTImageStorage, ExplicitVRLittleEndian)) as assoc:
        first = send_bytes(assoc, whole, CTImageStorage, instance.SOPInstanceUID)
        cut_off = send_bytes(assoc, whole[:-20], CTImageStorage, instance.SOPInstanceUID)

    assert first.Status == 0x0000
    assert cut_off.Status == 0xC010
    assert cut_off.ErrorComment == "PixelData (7FE0,0010) lacks 20 of 64 bytes"
    assert stored_bytes(service.archive, instance.SOPInstanceUID) == whole


@pytest.mark.parametrize(
    ("announced", "offending"),
    [
        pytest.param({"SOPInstanceUID": "1.2.3"}, [0x00080018], id="instance"),
        pytest.param({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, [0x00080016], id="class"),
    ],
)
def test_store_of_other_instance_than_announced_is_a900_with_offending_element(
    service: RunningArchive, announced: dict[str, str], offending: list[int]
) -> None:
    instance = make_instance()
    sop_class = announced.get("SOPClassUID", CTImageStorage)
    uid = announced.get("SOPInstanceUID", instance.SOPInstanceUID)

    with association(service, build_context(sop_class, ExplicitVRLittleEndian)) as assoc:
        status = send_bytes(assoc, data_set_bytes(instance), sop_class, uid)

    assert status.Status == 0xA900
    assert [status.OffendingElement] == offending
    assert status.ErrorComment
    assert service.archive.index.stats().instances == 0
    assert list(service.archive.storage.files()) == []


@pytest.mark.parametrize(
    ("negotiated", "actual"),
    [
        (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
        (ImplicitVRLittleEndian, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, ExplicitVRBigEndian),
        (DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian),
    ],
    ids=lambda uid: uid.name.replace(" ", ""),
)
def test_store_in_another_transfer_syntax_than_negotiated_is_recorded_as_what_it_is(
    service: RunningArchive, caplog: pytest.LogCaptureFixture, negotiated: UID, actual: UID
) -> None:
    instances = [make_instance(), make_instance()]

    with association(service, build_context(CTImageStorage, negotiated)) as assoc:
        for number, instance in enumerate(instances, 1):
            data = data_set_bytes(instance, actual)
            status = send_bytes(assoc, data, CTImageStorage, instance.SOPInstanceUID, number)
            assert status.Status == 0x0000

    for instance in instances:
        stored = service.archive.index.find_by_uid(instance.SOPInstanceUID)
        assert stored is not None
        assert stored.transfer_syntax_uid == actual
        assert stored_bytes(service.archive, instance.SOPInstanceUID) == data_set_bytes(
            instance, actual
        )
        read = dcmread(service.archive.storage.path(stored.location))
        assert read.file_meta.TransferSyntaxUID == actual
        assert read.PatientID == "P-1"
    said = [text for text in caplog.messages if "was said to be in" in text]
    note = f"the data set is in {actual.name}, and was said to be in {negotiated.name}"
    assert said == [f"from {CALLING}: {note}; this is said once"]
    assert spool_files(service.archive) == []


def test_store_without_the_right_is_0124_and_nothing_of_it_is_written(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(service.archive, "READER", 104, services=frozenset({Service.FIND}))
    instance = make_instance()
    begun: list[bytes] = []
    monkeypatch.setattr(service.archive.storage.spool, "create", begun.append)

    with association(service, _context(instance), calling="READER") as assoc:
        status = send(assoc, instance)

    assert status.Status == 0x0124
    assert "READER" in status.ErrorComment
    assert service.archive.index.stats().instances == 0
    assert begun == []


@pytest.mark.parametrize(
    ("limits", "comment"),
    [
        ({"maximum_instance_bytes": 100_000}, "The instance is longer than 100000 bytes"),
        (
            {"minimum_free_bytes": 1 << 60},
            "Disk full: minimum_free_bytes keeps 1099511627776 MiB free",
        ),
    ],
)
def test_store_beyond_a_limit_is_a700_with_the_reason_and_leaves_nothing(
    serve: Serve, limits: dict[str, int], comment: str
) -> None:
    service = serve(**limits)
    instance = make_instance()
    instance.add_new(0x7FE00010, "OW", bytes(300_000))

    with association(service, _context(instance)) as assoc:
        status = send(assoc, instance)
        assert (status.Status, status.ErrorComment) == (0xA700, comment)
        assert spool_files(service.archive) == []
        small = send(assoc, make_instance(), 2)

    is_full = "minimum_free_bytes" in limits
    assert small.Status == (0xA700 if is_full else 0x0000)
    assert service.archive.index.stats().instances == (0 if is_full else 1)


@engine_on_sqlite
def test_data_set_of_a_c_store_response_is_not_written(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    begun: list[bytes] = []
    monkeypatch.setattr(service.archive.storage.spool, "create", begun.append)
    response = store_command(
        CTImageStorage,
        "1.2.3",
        CommandField=0x8001,
        MessageID=None,
        MessageIDBeingRespondedTo=7,
        CommandDataSetType=command.HAS_DATA_SET,
    )

    with Wire(service.port) as wire:
        wire.associate({1: (CTImageStorage, IMPLICIT), 3: (VERIFICATION, IMPLICIT)})
        wire.send(message(1, response, bytes(10_000)))
        wire.send(message(3, echo_command(8)))
        assert wire.answer()["Status"] == 0

    assert begun == []


# Again under the same UID


def test_store_of_identical_instance_again_is_success_and_changes_nothing(
    service: RunningArchive,
) -> None:
    instance = make_instance()

    with association(service, _context(instance)) as assoc:
        statuses = [send(assoc, instance, number).Status for number in (1, 2)]

    assert statuses == [0x0000, 0x0000]
    assert service.archive.index.stats().instances == 1
    assert len(list(service.archive.storage.files())) == 1


@pytest.mark.parametrize(
    ("policy", "status", "kept"),
    [("replace", 0x0000, "second"), ("keep", 0xB006, "first"), ("refuse", 0xC011, "first")],
)
def test_store_of_different_instance_under_the_same_uid_follows_the_policy(
    serve: Serve, policy: str, status: int, kept: str
) -> None:
    service = serve(duplicate_policy=policy)
    first = make_instance(PatientComments="first")
    second = deepcopy(first)
    second.PatientComments = "second"
    deposit(service.archive, first)

    with association(service, _context(first)) as assoc:
        answer = send(assoc, second)

    assert answer.Status == status
    assert bool(answer.get("ErrorComment")) is (status != 0x0000)
    expected = {"first": first, "second": second}[kept]
    assert stored_bytes(service.archive, first.SOPInstanceUID) == data_set_bytes(expected)
    assert len(list(service.archive.storage.files())) == 1


# When the archive itself is in trouble


def test_store_with_full_disk_is_a700_and_the_next_store_works(service: RunningArchive) -> None:
    large = make_instance()
    large.PixelData = bytes(5_000_000)
    small = make_instance()

    with association(service, _context(large)) as assoc:
        with largest_file(4_000_000):
            refused = send(assoc, large)
        accepted = send(assoc, small, 2)

    assert refused.Status == 0xA700
    assert refused.ErrorComment
    assert accepted.Status == 0x0000
    assert service.archive.index.find_by_uid(large.SOPInstanceUID) is None
    assert len(list(service.archive.storage.files())) == 1
    assert spool_files(service.archive) == []


def test_store_without_index_is_a700_and_recovers_by_itself(service: RunningArchive) -> None:
    instance = make_instance()

    with association(service, _context(instance)) as assoc:
        send(assoc, make_instance())
        with index_outage(database_url_of(service.archive)):
            refused = send(assoc, instance, 2)
        accepted = send(assoc, instance, 3)

    assert refused.Status == 0xA700
    assert refused.ErrorComment
    assert accepted.Status == 0x0000
    assert len(list(service.archive.storage.files())) == 2


# A sender that goes away


@engine_on_sqlite
def test_sender_that_aborts_leaves_the_server_as_it_was(service: RunningArchive) -> None:
    instance = make_instance()
    with association(service, _context(instance)) as assoc:
        send(assoc, instance)
        assoc.abort()

    wait_until(lambda: not engine_associations(service))
    assert spool_files(service.archive) == []


@engine_on_sqlite
def test_refused_store_is_answered_though_its_file_cannot_be_removed_from_the_spool(
    service: RunningArchive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def discard(_spool: Spool, _spooled: Spooled) -> None:
        raise StorageUnavailable("Cannot remove from the spool: Read-only file system")

    monkeypatch.setattr(Spool, "discard", discard)

    with Wire(service.port) as wire:
        wire.associate({1: (CTImageStorage, IMPLICIT)})
        for message_id in (1, 2):
            command_set = store_command(PRIVATE_SOP_CLASS, "1.2.3", message_id)
            wire.send(message(1, command_set, b"data"))
            answer = wire.answer()
            assert (answer["MessageIDBeingRespondedTo"], answer["Status"]) == (message_id, 0x0122)

    wait_until(lambda: not engine_associations(service))
    assert "stays in the spool: Cannot remove from the spool: Read-only" in caplog.text
