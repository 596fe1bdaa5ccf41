"""What stored headers contain, and what requests ask of them, cannot break a response (PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

import random
import struct
from io import BytesIO

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import VR
from pynetdicom.dsutils import encode

from pacs.dicom.encoding.part10 import read_identifier
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.header_keys import _KEYWORDS, HeaderKey, header_keys, level_of
from pacs.dicom.query.header_values import HeaderValues, read_header_values
from pacs.dicom.query.identifier import parse_find
from pacs.dicom.query.response import encode_response
from pacs.dicom.sop_classes import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.errors import InvalidInstance

VRS = sorted(str(vr) for vr in VR if len(str(vr)) == 2)
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
UID = struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", 4) + b"1.2\0"


def _element(tag: int, vr: str, value: bytes) -> bytes:
    header = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG:
        return header + struct.pack("<HL", 0, len(value)) + value
    return header + struct.pack("<H", len(value)) + value


def _read(data_set: bytes, *keys: HeaderKey) -> HeaderValues:
    return read_header_values(BytesIO(data_set), ExplicitVRLittleEndian, 0, keys)


@pytest.mark.parametrize("vr", VRS)
@pytest.mark.parametrize("tag", [0x00180050, 0x00280106, 0x00280009, 0x00081199, 0x0020FFF0])
def test_any_bytes_in_any_vr_give_a_response_that_can_be_written(vr: str, tag: int) -> None:
    generator = random.Random(f"{vr}{tag}")
    query = parse_find(_study(), InformationModel.STUDY_ROOT)
    for _ in range(20):
        value = generator.randbytes(generator.choice([0, 2, 4, 8, 30]))
        charset = _element(
            0x00080005, "CS", generator.choice([b"ISO_IR 192", b"\\ISO 2022 IR 87 "])
        )
        try:
            found = _read(charset + UID + _element(tag, vr, value), HeaderKey(tag, vr))
        except InvalidInstance:
            continue

        response = encode_response(query, {}, retrieve_ae_title="PACS", header=found.data_set)

        assert encode(response, is_implicit_vr=False, is_little_endian=True) is not None
        assert found.is_complete == (tag in found.data_set)


def _study() -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    return identifier


@pytest.mark.parametrize(("fragments", "value"), [(1, "B"), (12, "B"), (2000, None)])
def test_key_behind_encapsulated_pixel_data_is_read_where_that_takes_few_reads(
    fragments: int, value: str | None
) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 4) + b"\xff\xd8\xff\xd9"
    pixel_data = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    behind = _element(0x00281090, "LO", b"B ")
    data_set = UID + pixel_data + item * (fragments + 1) + end + behind

    found = _read(data_set, HeaderKey(0x00281090, "LO"))

    assert found.is_complete
    assert found.data_set[0x00281090].value == value


def test_many_items_times_many_item_keys_is_left_out() -> None:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 20_000
    stored = UID + _element(0x00082218, "SQ", items)
    keys = tuple(HeaderKey(0x00080000 + number, "LO") for number in range(0x3100, 0x4100))

    found = _read(stored, HeaderKey(0x00082218, "SQ", items=keys))

    assert not found.is_complete
    assert not found.data_set


@pytest.mark.parametrize("vr", ["LO", "LT"])
def test_text_that_code_extensions_would_make_longer_than_its_vr_can_be_is_left_out(
    vr: str,
) -> None:
    """PS3.5 7.1.2: 16 bits for the length. In UTF-8 it has 48,000 bytes, with escape sequences 108,000."""
    identifier = _study()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID, identifier.SeriesInstanceUID = "1.2", "1.3"
    identifier.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    query = parse_find(identifier, InformationModel.STUDY_ROOT)
    charset = _element(0x00080005, "CS", b"ISO_IR 192")
    short, long = (
        _read(
            charset + UID + _element(0x00181400, vr, ("山a" * count).encode()),
            HeaderKey(0x00181400, vr),
        )
        for count in (1_000, 12_000)
    )

    response = encode_response(query, {}, retrieve_ae_title="PACS", header=short.data_set)

    assert short.is_complete
    assert encode(response, False, True) is not None
    assert not long.is_complete
    assert 0x00181400 not in long.data_set


def test_every_listed_keyword_is_in_the_data_dictionary_once() -> None:
    keywords = [keyword for listed in _KEYWORDS.values() for keyword in listed.split()]

    assert len(keywords) == len(set(keywords))
    assert [keyword for keyword in keywords if tag_for_keyword(keyword) is None] == []


@pytest.mark.parametrize(
    ("tag", "level"),
    [
        (0x00100022, Level.PATIENT),
        (0x00120040, Level.PATIENT),
        (0x00380010, Level.STUDY),
        (0x00080081, Level.SERIES),
        (0x00180050, Level.IMAGE),
        (0x00291001, Level.IMAGE),
        (0x0020FFF0, Level.IMAGE),
    ],
)
def test_level_is_that_of_the_modules_with_the_attribute(tag: int, level: Level) -> None:
    assert level_of(tag) is level


def test_item_keys_of_a_request_in_bytes_are_read_to_the_last_level() -> None:
    inner = _element(0x00080100, "SH", b"")
    code = struct.pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
    encoded = _element(0x00082218, "SQ", code)
    identifier = read_identifier(encoded, EXPLICIT_VR_LITTLE_ENDIAN)

    keys, unsupported = header_keys(
        identifier, [0x00082218], InformationModel.STUDY_ROOT, Level.IMAGE, {}
    )

    assert keys == (HeaderKey(0x00082218, "SQ", items=(HeaderKey(0x00080100, "SH"),)),)
    assert unsupported == ()
