"""Action and Event Information of Storage Commitment (PS3.4 Tables J.3-1, J.3-2), against pydicom and hostile bytes."""

from __future__ import annotations

import zlib
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dsutils import decode

from pacs.dicom.storage_commitment import (
    ActionInformation,
    EventType,
    Reference,
    Result,
    TransferSyntax,
    read_action_information,
    write_event_information,
)
from pacs.errors import InvalidActionInformation, TooManyReferences

IMPLICIT = TransferSyntax(is_implicit=True)
EXPLICIT = TransferSyntax(is_implicit=False)
BIG = TransferSyntax(is_implicit=False, is_big_endian=True)
DEFLATED = TransferSyntax(is_implicit=False, is_deflated=True)
SYNTAXES = pytest.mark.parametrize(
    "syntax",
    [IMPLICIT, EXPLICIT, BIG, DEFLATED],
    ids=["implicit", "explicit", "big endian", "deflated"],
)
REFERENCES = (Reference("1.2.3", "1.2.3.1"), Reference("1.2.33", "1.2.3.22"))


def _encoded(
    information: Dataset, syntax: TransferSyntax = EXPLICIT, *, undefined_length: bool = False
) -> bytes:
    if undefined_length:
        for element in information:
            element.is_undefined_length = element.VR == "SQ"
        for item in information.get("ReferencedSOPSequence", []):
            item.is_undefined_length_sequence_item = True
    stream = DicomBytesIO()
    stream.is_implicit_VR = syntax.is_implicit
    stream.is_little_endian = not syntax.is_big_endian
    write_dataset(stream, information)
    data = stream.getvalue()
    if not syntax.is_deflated:
        return data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _information() -> Dataset:
    information = Dataset()
    information.TransactionUID = "1.2.9"
    information.StorageMediaFileSetID = "DISC"
    information.ReferencedSOPSequence = [Dataset() for _ in REFERENCES]
    for item, (sop_class_uid, sop_instance_uid) in zip(
        information.ReferencedSOPSequence, REFERENCES, strict=True
    ):
        item.ReferencedSOPClassUID = sop_class_uid
        item.ReferencedSOPInstanceUID = sop_instance_uid
        item.StorageMediaFileSetID = "DISC"
    return information


@SYNTAXES
@pytest.mark.parametrize("undefined_length", [False, True])
def test_action_information_is_read(syntax: TransferSyntax, undefined_length: bool) -> None:
    data = _encoded(_information(), syntax, undefined_length=undefined_length)

    assert read_action_information(data, syntax) == ActionInformation("1.2.9", REFERENCES)


@SYNTAXES
@pytest.mark.parametrize("undefined_length", [False, True])
def test_every_prefix_is_a_request_or_one_error(
    syntax: TransferSyntax, undefined_length: bool
) -> None:
    data = _encoded(_information(), syntax, undefined_length=undefined_length)

    for length in range(len(data)):
        try:
            read = read_action_information(data[:length], syntax)
        except InvalidActionInformation:
            continue
        # Only what follows the sequence may be missing.
        assert read.references == REFERENCES


def test_every_changed_byte_is_a_request_or_one_error() -> None:
    data = _encoded(_information())

    for position in range(len(data)):
        for value in (0x00, 0x20, 0x41, 0xFF):
            changed = bytearray(data)
            changed[position] = value
            try:
                read = read_action_information(bytes(changed), EXPLICIT)
            except InvalidActionInformation:
                continue
            assert read.transaction_uid
            assert read.references


@pytest.mark.parametrize("uid", ["1.2\x1b", "1" * 130, "1.2\\1.3"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_uid_is_named(uid: str) -> None:
    information = _information()
    information.ReferencedSOPSequence[1].add_new(0x00081155, "LO", uid)
    data = _encoded(information).replace(b"\x08\x00\x55\x11LO", b"\x08\x00\x55\x11UI")

    with pytest.raises(InvalidActionInformation, match="Item 2: Referenced SOP Instance UID is no"):
        read_action_information(data, EXPLICIT)


def test_element_that_is_no_sequence() -> None:
    data = _encoded(_information()).replace(b"\x08\x00\x99\x11SQ", b"\x08\x00\x99\x11UT")

    with pytest.raises(InvalidActionInformation, match="is no sequence"):
        read_action_information(data, EXPLICIT)


def test_item_that_is_shorter_than_its_content() -> None:
    data = bytearray(_encoded(_information()))
    length_at = data.index(b"\xfe\xff\x00\xe0") + 4
    data[length_at] -= 2

    with pytest.raises(InvalidActionInformation, match="shorter than what it contains"):
        read_action_information(bytes(data), EXPLICIT)


def test_items_are_counted_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.dicom.storage_commitment.MAX_REFERENCES", 1)

    with pytest.raises(TooManyReferences):
        read_action_information(_encoded(_information()), EXPLICIT)


def test_deflate_bomb_is_no_request() -> None:
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(b"\x08\x00\x01\x00UN\0\0\xf0\xff\xff\x7f" + bytes(80 << 20))
    bomb += deflater.flush()

    with pytest.raises(InvalidActionInformation):
        read_action_information(bomb, DEFLATED)


@SYNTAXES
def test_event_information_is_what_pydicom_reads(syntax: TransferSyntax) -> None:
    results = [Result(REFERENCES[0], None), Result(REFERENCES[1], 0x0112)]

    event, data = write_event_information("1.2.9", results, "ARCHIVE", syntax)

    read = decode(BytesIO(data), syntax.is_implicit, not syntax.is_big_endian, syntax.is_deflated)
    assert event is EventType.FAILURES_EXIST
    assert len(data) % 2 == 0
    assert [element.keyword for element in read] == [
        "RetrieveAETitle",
        "TransactionUID",
        "FailedSOPSequence",
        "ReferencedSOPSequence",
    ]
    assert (read.TransactionUID, read.RetrieveAETitle) == ("1.2.9", "ARCHIVE")
    (failed,), (committed,) = read.FailedSOPSequence, read.ReferencedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.ReferencedSOPInstanceUID) == REFERENCES[1]
    assert failed.FailureReason == 0x0112
    assert (committed.ReferencedSOPClassUID, committed.ReferencedSOPInstanceUID) == REFERENCES[0]
    assert "FailureReason" not in committed


def test_without_a_failure_there_is_no_failed_sequence() -> None:
    event, data = write_event_information("1.2", [Result(REFERENCES[0], None)], "A", IMPLICIT)

    assert event is EventType.SUCCESSFUL
    assert "FailedSOPSequence" not in decode(BytesIO(data), True, True)


def test_without_a_committed_instance_there_is_nothing_to_retrieve() -> None:
    event, data = write_event_information("1.2", [Result(REFERENCES[0], 0x0110)], "A", IMPLICIT)

    assert event is EventType.FAILURES_EXIST
    assert [one.keyword for one in decode(BytesIO(data), True, True)] == [
        "TransactionUID",
        "FailedSOPSequence",
    ]
