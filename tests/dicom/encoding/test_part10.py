from __future__ import annotations

import io
import os
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import pack
from typing import BinaryIO

import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.encoding.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    FileMeta,
    check_identity,
    file_meta,
    read_file_meta,
    read_header,
    read_identity,
)
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.text.values import index_value
from pacs.errors import InstanceMismatch, InvalidInstance, NotDicom, StorageUnavailable
from tests.factories import make_instance, part10

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
JPEG_2000, JPEG_XL = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.110"
PRIVATE = "1.2.840.113619.5.99"
SYNTAXES = [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, JPEG_2000]

# What pydicom ships; get_testdata_files would download more.
SHIPPED = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data").rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc", ".json"}
)


def read(data: bytes) -> InstanceHeader:
    stream = io.BytesIO(data)
    meta = read_file_meta(stream)
    return read_header(stream, meta.transfer_syntax_uid, meta.data_set_offset)


def instance_with_sequences() -> Dataset:
    request, code = Dataset(), Dataset()
    code.CodeValue, code.CodeMeaning = "CT", "Thorax"
    request.RequestedProcedureID = "R1"
    request.RequestedProcedureCodeSequence = Sequence([code])
    instance = make_instance(
        SpecificCharacterSet="ISO_IR 100", PatientName="Äneas^Rüdiger", SliceLocation="-7.50"
    )
    instance.RequestAttributesSequence = Sequence([request, Dataset()])
    instance["RequestAttributesSequence"].is_undefined_length = True
    instance.ReferencedImageSequence = Sequence([code, code])
    instance["ReferencedImageSequence"].is_undefined_length = True
    return instance


def element(tag: int, vr: str, value: bytes) -> bytes:
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def encoded(*elements: tuple[int, str, bytes]) -> bytes:
    """A data set in Explicit VR Little Endian from bytes, so that no library corrects what is wrong."""
    identifying = [
        (0x00080016, "UI", b"1.2.3"),
        (0x00080018, "UI", b"1.2.4"),
        (0x0020000D, "UI", b"1.2.5"),
        (0x0020000E, "UI", b"1.2.6"),
    ]
    by_tag = {one[0]: one for one in (*identifying, *elements)}
    return b"".join(element(*by_tag[tag]) for tag in sorted(by_tag))


# file_meta


def test_file_meta_is_read_by_pydicom_as_it_was_meant() -> None:
    header = file_meta("1.2.3", "1.2.33", PRIVATE, source_ae="MODALITY")

    meta = pydicom.dcmread(io.BytesIO(header)).file_meta

    assert header[:132] == bytes(128) + b"DICM"
    assert meta.FileMetaInformationGroupLength == len(header) - 132 - 12
    assert meta.FileMetaInformationVersion == b"\x00\x01"
    assert meta.MediaStorageSOPClassUID == "1.2.3"
    assert meta.MediaStorageSOPInstanceUID == "1.2.33"
    assert meta.TransferSyntaxUID == PRIVATE
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "MODALITY"


def test_implementation_names_are_what_the_standard_allows() -> None:
    assert pydicom.uid.UID(IMPLEMENTATION_CLASS_UID).is_valid
    assert 0 < len(IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize("length", [1, 2, 3, 63, 64, 65, 128])
def test_file_meta_any_length_of_uid_is_padded_to_even(length: int) -> None:
    uid = "1" * length

    header = file_meta(uid, uid, EXPLICIT, source_ae="A")

    meta = read_file_meta(io.BytesIO(header))
    assert meta == FileMeta(EXPLICIT, uid, uid, len(header), is_part10=True, source_ae="A")
    assert len(header) % 2 == 0


@pytest.mark.parametrize(
    "uid", ["", "1" * 129, "1.2\\3", "1.2\x00", "\u0661.2", " 1", "1 ", "1\n", "\x1b[31m"]
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_file_meta_what_is_not_a_uid_is_refused(uid: str, position: int) -> None:
    uids = ["1.2.3"] * 3
    uids[position] = uid

    with pytest.raises(InvalidInstance):
        file_meta(*uids, source_ae="A")


@given(st.text(max_size=40))
def test_file_meta_any_ae_title_gives_a_readable_header(source: str) -> None:
    header = file_meta("1.2", "1.2.3", EXPLICIT, source_ae=source)

    meta = read_file_meta(io.BytesIO(header))
    assert meta.is_part10
    assert meta.data_set_offset == len(header)
    by_pydicom = pydicom.dcmread(io.BytesIO(header)).file_meta
    assert meta.source_ae == by_pydicom.get("SourceApplicationEntityTitle", "")
    assert len(meta.source_ae) <= 16
    assert meta.source_ae.isascii()


# read_file_meta


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_read_file_meta_of_a_file_names_it(transfer_syntax: str) -> None:
    instance = make_instance()
    data = part10(instance, transfer_syntax)

    meta = read_file_meta(io.BytesIO(data))

    assert meta.transfer_syntax_uid == transfer_syntax
    assert meta.sop_class_uid == instance.SOPClassUID
    assert meta.sop_instance_uid == instance.SOPInstanceUID
    assert meta.is_part10
    assert pydicom.dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength == (
        meta.data_set_offset - 144
    )


def test_read_file_meta_hostile_source_ae_is_cleaned() -> None:
    title = b"A\0\\\x1b\xff" + b"x" * 60
    data = counted(OWN + element(0x00020016, "AE", title))

    assert read_file_meta(io.BytesIO(data)).source_ae == "A????" + "x" * 11


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_read_identity_of_a_data_set_cut_off_after_it(transfer_syntax: str) -> None:
    instance = make_instance(PatientComments="x" * 5_000)
    data = part10(instance, transfer_syntax)
    offset = read_file_meta(io.BytesIO(data)).data_set_offset

    identity = read_identity(io.BytesIO(data[: offset + 250]), transfer_syntax, offset)

    assert identity == (instance.SOPClassUID, instance.SOPInstanceUID)


def test_read_identity_of_a_data_set_without_it_is_empty() -> None:
    assert read_identity(io.BytesIO(element(0x00100020, "LO", b"P-1")), EXPLICIT, 0) == ("", "")


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
def test_read_file_meta_of_a_bare_data_set_finds_the_transfer_syntax(transfer_syntax: str) -> None:
    instance = make_instance()
    data = part10(instance, transfer_syntax)
    data_set = data[read_file_meta(io.BytesIO(data)).data_set_offset :]

    meta = read_file_meta(io.BytesIO(data_set))

    uids = (str(instance.SOPClassUID), str(instance.SOPInstanceUID))
    assert meta == FileMeta(transfer_syntax, *uids, 0, is_part10=False)
    assert read(data_set).sop_instance_uid == instance.SOPInstanceUID


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[132:], id="no preamble"),
        pytest.param(lambda data: data[:140] + pack("<L", 7) + data[144:], id="wrong group length"),
        pytest.param(lambda data: data[:132] + data[144:], id="no group length"),
    ],
)
def test_read_file_meta_that_others_cannot_rely_on_says_so(
    damage: Callable[[bytes], bytes],
) -> None:
    instance = make_instance()
    data = damage(part10(instance))

    meta = read_file_meta(io.BytesIO(data))

    assert not meta.is_part10
    assert meta.sop_instance_uid == instance.SOPInstanceUID
    assert read(data).sop_instance_uid == instance.SOPInstanceUID


@pytest.mark.parametrize("transfer_syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("missing", ["TransferSyntaxUID", "MediaStorageSOPInstanceUID"])
def test_read_file_meta_missing_element_is_taken_from_the_data_set(
    missing: str, transfer_syntax: str
) -> None:
    instance = make_instance()
    data = part10(instance, transfer_syntax)
    tag = {"TransferSyntaxUID": 0x10, "MediaStorageSOPInstanceUID": 0x03}[missing]
    start = data.index(pack("<HH2s", 2, tag, b"UI"))
    (length,) = (int.from_bytes(data[start + 6 : start + 8], "little"),)

    meta = read_file_meta(io.BytesIO(data[:start] + data[start + 8 + length :]))

    assert meta.transfer_syntax_uid == transfer_syntax
    assert meta.sop_instance_uid == instance.SOPInstanceUID
    assert not meta.is_part10


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"DICM",
        bytes(128) + b"DICM",
        bytes(1000),
        b"\xff" * 1000,
        b"%PDF-1.7 " * 100,
        b"PK\x03\x04" + bytes(200),
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(128) + b"DICM" + pack("<HH2sHL", 2, 2, b"UN", 0, 0xFFFFFFFF),
        bytes(128) + b"DICM" + pack("<HH2sH", 2, 0x16, b"AE", 0) * 2000,
    ],
    ids=repr,
)
def test_read_file_meta_of_something_else_is_invalid(data: bytes) -> None:
    with pytest.raises(InvalidInstance):
        read_file_meta(io.BytesIO(data[:1_000_000]))


def test_read_file_meta_transfer_syntax_that_is_no_uid_is_invalid() -> None:
    data = part10(make_instance())
    start = data.index(EXPLICIT.encode(), 132)

    with pytest.raises(
        InvalidInstance, match=r"^TransferSyntaxUID is not a UID, '\.\./\.\./etc/pas'$"
    ):
        read_file_meta(
            io.BytesIO(data[:start] + b"../../etc/pas".ljust(20, b"\0") + data[start + 20 :])
        )


def group_2(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(element(0x00020000 | number, "UI", value) for number, value in elements)


def counted(meta: bytes, less: int = 0) -> bytes:
    """A File Meta Information with its group length, which leaves out so many bytes."""
    return bytes(128) + b"DICM" + pack("<HH2sHL", 2, 0, b"UL", 4, len(meta) - less) + meta


NAMES = [(0x02, b"1.2.3"), (0x03, b"1.2.4")]
OWN = group_2(*NAMES, (0x10, EXPLICIT.encode()), (0x12, b"1.2.5"))
IN_DATA_SET = group_2((0x10, IMPLICIT.encode()), (0x12, b"1.2.3.4.5"))


@pytest.mark.parametrize(
    "before", [counted(OWN), bytes(128) + b"DICM" + OWN], ids=["counted", "not"]
)
@pytest.mark.parametrize("is_ours", [True, False])
def test_read_file_meta_ends_before_group_2_in_the_data_set(before: bytes, is_ours: bool) -> None:
    # What lies behind the end says of itself what it likes.
    meta = read_file_meta(io.BytesIO(before + IN_DATA_SET + encoded()), is_ours=is_ours)

    assert (meta.transfer_syntax_uid, meta.data_set_offset) == (EXPLICIT, len(before))
    assert meta.is_part10 is (before == counted(OWN))


def test_read_file_meta_group_2_in_the_data_set_that_goes_on_ascending_is_not_taken() -> None:
    before, behind = counted(OWN), element(0x00020100, "UI", b"1.2.6")

    assert read_file_meta(io.BytesIO(before + behind + encoded())).data_set_offset == len(before)


@pytest.mark.parametrize("syntax", [IMPLICIT, BIG_ENDIAN])
def test_read_file_meta_uncounted_elements_encoded_unlike_the_data_set_are_taken(
    syntax: str,
) -> None:
    # A tool added them and left the group length as it was.
    added = element(0x00020016, "AE", b"TOOL")
    before = counted(group_2(*NAMES, (0x10, syntax.encode())) + added, less=len(added))

    meta = read_file_meta(io.BytesIO(before + encoded()))

    assert (meta.data_set_offset, meta.source_ae, meta.is_part10) == (len(before), "TOOL", False)
    # Our own files never have such, so there it is the data set.
    own = read_file_meta(io.BytesIO(before + encoded()), is_ours=True)
    assert own.data_set_offset == len(before) - len(added)


def test_read_file_meta_group_length_that_ends_before_the_uids_is_wrong() -> None:
    before = counted(OWN, less=len(group_2((0x10, EXPLICIT.encode()), (0x12, b"1.2.5"))))

    assert read_file_meta(io.BytesIO(before + encoded())).data_set_offset == len(before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            counted(group_2((0x10, EXPLICIT.encode()))) + element(0x00080016, "UI", b"1.2.3"),
            "The data set has no SOPInstanceUID",
            id="missing",
        ),
        pytest.param(
            counted(group_2((0x02, b"1.2.3"), (0x03, b"1\\2"), (0x10, EXPLICIT.encode()))),
            r"SOPInstanceUID is not a UID, '1\\2'",
            id="wrong",
        ),
        pytest.param(
            element(0x00080016, "UI", b"1.2.3") + element(0x00080018, "UI", b"1" * 130),
            f"SOPInstanceUID is not a UID, '{'1' * 64}'",
            id="wrong in a bare data set",
        ),
        pytest.param(
            element(0x00080005, "CS", b"ISO_IR 100") + element(0x00080008, "CS", b"ORIGINAL"),
            "The data set has no SOPClassUID",
            id="missing in a bare data set",
        ),
    ],
)
def test_read_file_meta_names_what_is_wrong_with_a_uid(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInstance) as caught:
        read_file_meta(io.BytesIO(data))

    assert caught.value.message == message
    assert not isinstance(caught.value, NotDicom)


def test_read_file_meta_of_text_says_that_it_is_no_dicom() -> None:
    with pytest.raises(NotDicom):
        read_file_meta(io.BytesIO(b"Dear colleague, " * 100))


# read_header


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_read_header_gives_the_same_in_every_transfer_syntax(transfer_syntax: str) -> None:
    instance = instance_with_sequences()

    header = read(part10(instance, transfer_syntax))

    assert header.transfer_syntax_uid == transfer_syntax
    assert header.sop_class_uid == instance.SOPClassUID
    assert header.sop_instance_uid == instance.SOPInstanceUID
    assert header.series_instance_uid == instance.SeriesInstanceUID
    assert header.study_instance_uid == instance.StudyInstanceUID
    assert header.values["PatientName"] == "Äneas^Rüdiger"
    assert header.values["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert header.values["Rows"] == "8"
    assert header.values["SliceLocation"] == "-7.50"
    assert '"00080104":{"vr":"LO","Value":["Thorax"]}' in header.values["RequestAttributesSequence"]
    assert "ReferringPhysicianName" not in header.values


@pytest.mark.parametrize("encoded_as", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("declared", [IMPLICIT, EXPLICIT, JPEG_XL, PRIVATE])
def test_read_header_finds_the_kind_of_vr_whatever_is_declared(
    encoded_as: str, declared: str
) -> None:
    data = part10(instance_with_sequences(), encoded_as)
    offset = read_file_meta(io.BytesIO(data)).data_set_offset

    header = read_header(io.BytesIO(data), declared, offset)

    assert header.transfer_syntax_uid == declared
    assert header.values == read(data).values


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_read_header_agrees_with_pydicom_on_the_files_it_ships(path: Path) -> None:
    by_pydicom = texts_by_pydicom(path)

    try:
        header = read(path.read_bytes())
    except InvalidInstance:
        assert path.name in TRUNCATED or not by_pydicom.keys() >= IDENTIFYING
        return

    assert header.values == by_pydicom


#: pydicom warns and goes on.
TRUNCATED = {"rtplan_truncated.dcm", "MR_truncated.dcm"}
IDENTIFYING = {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}


def texts_by_pydicom(path: Path) -> dict[str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data_set = pydicom.dcmread(path, force=True)
        except Exception:
            return {}
        texts = {
            attribute.keyword: index_value(data_set[attribute.keyword])
            for attribute in ATTRIBUTES
            if attribute.is_stored and attribute.keyword in data_set
        }
    return {keyword: text for keyword, text in texts.items() if text}


class CountingStream(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_read_header_does_not_read_pixel_data() -> None:
    instance = make_instance()
    instance.PixelData = bytes(4_000_000)
    stream = CountingStream(part10(instance))
    meta = read_file_meta(stream)

    read_header(stream, meta.transfer_syntax_uid, meta.data_set_offset)

    assert stream.bytes_read < 100_000


@pytest.mark.parametrize(
    ("keyword", "tag"), [("SOPClassUID", 0x00080016), ("SOPInstanceUID", 0x00080018)]
)
def test_read_header_without_sop_uid_is_a_mismatch(keyword: str, tag: int) -> None:
    with pytest.raises(InstanceMismatch, match=keyword) as caught:
        read_header(io.BytesIO(encoded((tag, "UI", b""))), EXPLICIT, 0)

    assert caught.value.offending == (tag,)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_read_header_without_parent_uid_is_invalid(keyword: str) -> None:
    with pytest.raises(InvalidInstance, match=keyword) as caught:
        read(part10(make_instance(**{keyword: None})))

    assert not isinstance(caught.value, InstanceMismatch)


@pytest.mark.parametrize(
    "uid",
    [
        "1.02.003",
        "1..2",
        "1.2.",
        "1" * 64,
        "1.2.3 ",
        "1.2.3\0\0",
        "1" * 128,
        "1.2.840.ABCDEF",
        "6F9619FF-8B86-D011-B42D-00CF4FC964FF",
        "1.2 .3",
        "-1.2",
        "..",
        "1.2/../3",
        "%00",
        "'",
    ],
)
@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
def test_read_header_sloppy_uid_is_accepted(tag: int, uid: str) -> None:
    header = read_header(io.BytesIO(encoded((tag, "UI", uid.encode()))), EXPLICIT, 0)

    assert header.values[keyword_for_tag(tag)] == uid.strip(" \0")


@pytest.mark.parametrize(
    "uid",
    [
        "1" * 129,
        "1.2\n3",
        "1.2\x1b",
        "1.2\x003",
        "1.2\x7f",
        "1.2\\1.3",
        "1.2.\xe4",
    ],
)
@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
def test_read_header_what_is_not_a_uid_is_invalid(tag: int, uid: str) -> None:
    data_set = encoded((tag, "UI", uid.encode("latin_1")))

    with pytest.raises(InvalidInstance) as caught:
        read_header(io.BytesIO(data_set), EXPLICIT, 0)

    assert caught.value.message == f"{keyword_for_tag(tag)} is not a UID, {uid[:64]!a}"


@pytest.mark.parametrize(
    ("tag", "vr", "value", "text"),
    [
        pytest.param(0x00200013, "IS", b"not a number", "not a number", id="IS"),
        pytest.param(0x00200013, "IS", b"+07 ", "7", id="IS with sign"),
        pytest.param(0x00200013, "US", b"\x07\0", "7", id="IS as US"),
        pytest.param(0x00280010, "IS", b"512 ", "512", id="US as IS"),
        pytest.param(0x00280010, "US", b"\0", None, id="US too short"),
        pytest.param(0x00280010, "US", b"\0\2\0", "512", id="US of odd length"),
        pytest.param(0x00101020, "DS", b"tall", "tall", id="DS"),
        pytest.param(0x00080020, "DA", b"yesterday", "yesterday", id="DA"),
        pytest.param(0x00080030, "TM", b"99:99", "99:99", id="TM"),
        pytest.param(0x00100010, "PN", b"A=B=C=D^^", None, id="PN"),
        pytest.param(0x00100020, "LO", b"A\\B", "A\\B", id="backslash in one"),
        pytest.param(0x00100020, "FD", b"123", None, id="LO as damaged FD"),
        pytest.param(0x00080005, "CS", b"NO SUCH SET", None, id="character set unknown"),
        pytest.param(0x00080005, "CS", b"ISO_IR 192\\\\X", None, id="character sets odd"),
        pytest.param(0x00080005, "CS", b"\xff\0", None, id="character set no text"),
        pytest.param(0x00104000, "LT", b"x" * 20_000, "x" * 10_240, id="too long"),
    ],
)
def test_read_header_value_its_vr_does_not_allow_is_read_as_well_as_can_be(
    tag: int, vr: str, value: bytes, text: str | None
) -> None:
    header = read_header(io.BytesIO(encoded((tag, vr, value))), EXPLICIT, 0)

    assert header.sop_instance_uid == "1.2.4"
    if text is not None:
        assert header.values[keyword_for_tag(tag)] == text


@pytest.mark.parametrize(
    ("character_set", "encoded_name", "name"),
    [
        ("ISO_IR 100", b"\xc4neas^R\xfcdiger", "Äneas^Rüdiger"),
        ("ISO-IR 100", b"\xc4neas^R\xfcdiger", "Äneas^Rüdiger"),
        ("ISO_IR 192", "山田^太郎".encode(), "山田^太郎"),
        ("GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
            "Yamada^Tarou=山田^太郎",
        ),
        ("\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
    ],
)
def test_read_header_name_is_decoded_by_its_character_set(
    character_set: str, encoded_name: bytes, name: str
) -> None:
    data_set = encoded((0x00080005, "CS", character_set.encode()), (0x00100010, "PN", encoded_name))

    header = read_header(io.BytesIO(data_set), EXPLICIT, 0)

    assert header.values["PatientName"] == name


def test_read_header_deflated_bomb_is_invalid() -> None:
    # (0008,1140) of 320 MiB, which has to be inflated to get past it.
    start = pack("<HH2sHL", 0x0008, 0x1140, b"OB", 0, 320 * 2**20)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(start) + deflater.compress(bytes(320 * 2**20)) + deflater.flush()

    with pytest.raises(InvalidInstance, match="inflates"):
        read_header(io.BytesIO(bomb), DEFLATED, 0)


def test_read_header_in_many_threads_leaves_the_process_as_it_is() -> None:
    data = [part10(instance_with_sequences(), syntax) for syntax in SYNTAXES] * 10
    filters, mode = list(warnings.filters), config.settings.reading_validation_mode
    showwarning = warnings.showwarning
    barrier = threading.Barrier(4)

    def read_all(number: int) -> list[InstanceHeader]:
        barrier.wait()
        headers = [read(one) for one in data]
        assert config.settings.reading_validation_mode == mode
        return headers

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read_all, range(4)))

    assert all(result == results[0] for result in results)
    assert (warnings.filters, warnings.showwarning) == (filters, showwarning)


class FailingStream(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, os.strerror(5))


@pytest.mark.parametrize(
    "act", [read_file_meta, lambda stream: read_header(stream, EXPLICIT, 0)], ids=["meta", "header"]
)
def test_read_stream_that_fails_is_unavailable(act: Callable[[BinaryIO], object]) -> None:
    with pytest.raises(StorageUnavailable):
        act(FailingStream(bytes(1000)))


# Any bytes: a value or one domain error


def outcome(data: bytes, transfer_syntax: str, offset: int) -> InstanceHeader | None:
    try:
        return read_header(io.BytesIO(data), transfer_syntax, offset)
    except InvalidInstance:
        return None


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_every_prefix_of_a_file_gives_a_header_or_an_invalid_instance(transfer_syntax: str) -> None:
    data = part10(instance_with_sequences(), transfer_syntax)
    offset = read_file_meta(io.BytesIO(data)).data_set_offset
    whole = read(data)
    results = []

    for end in range(len(data) + 1):
        try:
            read_file_meta(io.BytesIO(data[:end]))
        except InvalidInstance:
            assert end < offset or transfer_syntax != EXPLICIT
        results.append(outcome(data[:end], transfer_syntax, offset))

    headers = [header for header in results if header is not None]
    assert headers
    assert results[offset] is None
    assert headers[-1] == whole
    # What is read of a shorter file is never something else, at most less.
    assert all(header.values.items() <= whole.values.items() for header in headers)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_prefixes_of_the_files_pydicom_ships_raise_nothing_else(path: Path) -> None:
    data = path.read_bytes()
    for end in sorted({*range(0, min(len(data), 4_000), 53), *range(0, len(data), 40_009)}):
        try:
            read(data[:end])
        except InvalidInstance:
            continue


BASES = [part10(instance_with_sequences(), syntax) for syntax in SYNTAXES]


@settings(max_examples=300, deadline=None)
@given(
    base=st.sampled_from(BASES),
    edits=st.lists(
        st.tuples(st.integers(0, 2_000), st.integers(0, 8), st.binary(max_size=8)), max_size=6
    ),
)
@example(base=BASES[1], edits=[(0, 8, b"")])
def test_any_edits_of_a_file_give_a_header_or_an_invalid_instance(
    base: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(base)
    for position, removed, inserted in edits:
        data[position : position + removed] = inserted

    try:
        header = read(bytes(data))
    except InvalidInstance:
        return
    for text in header.values.values():
        assert text
        assert "\0" not in text
        text.encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([*SYNTAXES, PRIVATE, ""]))
def test_any_bytes_give_a_header_or_an_invalid_instance(data: bytes, transfer_syntax: str) -> None:
    outcome(data, transfer_syntax, 0)
    try:
        read_file_meta(io.BytesIO(data))
    except InvalidInstance:
        return


# check_identity


def test_check_identity_longer_uid_may_be_named_by_its_first_64_characters() -> None:
    uid = "1.2.3." + "4" * 80
    header = InstanceHeader("1.1", uid, "1.3", "1.4", EXPLICIT, {})

    check_identity(header, "1.1", uid)
    check_identity(header, "1.1", uid[:64])
    for other in (uid[:63], uid[:65], uid[:63] + "5"):
        with pytest.raises(InstanceMismatch):
            check_identity(header, "1.1", other)


@pytest.mark.parametrize(
    ("sop_class", "sop_instance", "offending"),
    [
        ("1.1", "1.2", None),
        ("9", "1.2", (0x00080016,)),
        ("1.1", "9", (0x00080018,)),
        ("9", "9", (0x00080016, 0x00080018)),
    ],
)
def test_check_identity_names_what_differs(
    sop_class: str, sop_instance: str, offending: tuple[int, ...] | None
) -> None:
    header = InstanceHeader("1.1", "1.2", "1.3", "1.4", EXPLICIT, {})

    if offending is None:
        check_identity(header, sop_class, sop_instance)
        return
    with pytest.raises(InstanceMismatch) as caught:
        check_identity(header, sop_class, sop_instance)
    assert caught.value.offending == offending
