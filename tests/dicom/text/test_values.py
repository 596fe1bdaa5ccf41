from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_charset_files
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.encoding.plain_values import character_set_terms
from pacs.dicom.text.character_sets import codecs_of
from pacs.dicom.text.values import index_value, shadow_values
from tests.factories import add, make_instance


def _raw(keyword: str, value: bytes | None, vr: str | None = None) -> RawDataElement:
    return RawDataElement(BaseTag(Tag(keyword)), vr, len(value or b""), value, 0, vr is None, True)


def _index_of(**keywords: Any) -> str | None:
    (keyword,) = keywords
    return index_value(make_instance(**keywords)[keyword])


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("PatientID", " P 1 ", "P 1"),
        ("PatientID", "", None),
        ("PatientID", "   ", None),
        ("PatientID", "A\0B\x1b", "AB"),
        ("StudyInstanceUID", "1.2.3\0", "1.2.3"),
        ("PatientComments", "  indented\\text ", "  indented\\text"),
        ("ImageType", ["ORIGINAL ", " PRIMARY"], "ORIGINAL\\PRIMARY"),
        ("ImageType", ["", "", ""], None),
        ("ImageType", ["", "B"], "\\B"),
        ("StudyDate", "2024.02.29", "20240229"),
        ("StudyDate", "19500000", "19500000"),
        ("StudyTime", "10:15", "10:15"),
        ("SeriesNumber", 7, "7"),
        ("Rows", 512, "512"),
        ("PatientName", "Doe^Jane ", "Doe^Jane"),
        ("PatientName", "Je\u0301ro\u0302me", "Jérôme"),
    ],
)
def test_index_value_normalises_by_vr(keyword: str, value: object, text: str | None) -> None:
    assert _index_of(**{keyword: value}) == text


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        (b"+01 ", "1"),
        (b"-0", "0"),
        (b"007", "7"),
        (b"1.5", "1.5"),
        (b"1_0", "1_0"),
        (b"abc", "abc"),
    ],
)
def test_index_value_of_is_is_a_plain_integer_text(encoded: bytes, text: str) -> None:
    assert index_value(_raw("SeriesNumber", encoded)) == text


@pytest.mark.parametrize(
    ("keyword", "encoded", "text"),
    [
        ("PatientID", b" AB\\1 ", "AB\\1"),
        ("PatientID", b"\\A\\", "\\A\\"),
        ("PatientID", b" \\ \\", None),
        ("IssuerOfPatientID", b"H\\1", "H\\1"),
        ("AccessionNumber", b"2024\\7", "2024\\7"),
        ("StudyID", b"S\\2 ", "S\\2"),
        ("StudyDescription", b"C-SPINE W\\O CONTRAST", "C-SPINE W\\O CONTRAST"),
        ("PatientName", b"Doe^Jane\\Roe^Ann", "Doe^Jane\\Roe^Ann"),
        ("PatientComments", b"one\\two", "one\\two"),
        # Several values are still several, and a code has one.
        ("OtherPatientIDs", b"A \\ B", "A\\B"),
        ("Modality", b"CT\\MR", "CT"),
        ("StudyDate", b"20240101\\20240102", "20240101"),
    ],
)
def test_index_value_of_a_text_of_vm_1_is_the_whole_text(
    keyword: str, encoded: bytes, text: str | None
) -> None:
    assert index_value(_raw(keyword, encoded)) == text
    assert index_value(_raw(keyword, encoded, vr="UN")) == text


def test_index_value_follows_the_dictionary_whatever_the_peer_wrote() -> None:
    assert index_value(_raw("StudyDate", b"2024.02.29", vr="LO")) == "20240229"
    assert index_value(_raw("PatientID", b"P-1 ", vr="UN")) == "P-1"
    assert index_value(_raw("Rows", b"512 ", vr="IS")) == "512"
    assert index_value(DataElement(0x00100020, "SQ", [Dataset()])) is None
    assert index_value(DataElement(0x00081032, "LO", "text")) is None


@pytest.mark.parametrize(
    ("keyword", "length", "kept"),
    [
        ("PatientID", 300, 256),
        ("ImageType", 2_000, 1_024),
        ("PatientComments", 20_000, 10_240),
    ],
)
def test_index_value_is_capped(keyword: str, length: int, kept: int) -> None:
    assert len(_index_of(**{keyword: "x" * length}) or "") == kept


def test_index_value_never_exceeds_what_a_btree_key_may_have() -> None:
    values = [
        "\N{MATHEMATICAL FRAKTUR CAPITAL A}" * 500,
        "\N{ARABIC LIGATURE ALLAH ISOLATED FORM}" * 500,
    ]

    for value in values:
        text = _index_of(OtherPatientNames=[value, value]) or ""
        columns = [text, *(column or "" for column in shadow_values("PN", text))]
        assert all(len(column.encode()) <= 2_500 for column in columns)


def test_index_value_of_a_sequence_is_compact_dicom_json() -> None:
    item = Dataset()
    item.CodeValue = "T-1"
    item.PatientName = "Doe^Jane=山田"
    item.SeriesNumber = "3"
    item.Rows = 2
    item.add_new(0x00091001, "LO", "private")
    item.PixelData = b"\0\0"
    nested = Dataset()
    nested.CodeMeaning = None
    item.ConceptNameCodeSequence = [nested]

    text = _index_of(ProcedureCodeSequence=[item])

    assert text is not None
    assert " " not in text
    assert json.loads(text) == [
        {
            "00080100": {"vr": "SH", "Value": ["T-1"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Ideographic": "山田"}]},
            "00200011": {"vr": "IS", "Value": ["3"]},
            "00280010": {"vr": "US", "Value": [2]},
            "0040A043": {"vr": "SQ", "Value": [{"00080104": {"vr": "LO"}}]},
        }
    ]


def test_index_value_of_a_sequence_too_large_or_too_deep_is_none() -> None:
    large, deep = Dataset(), Dataset()
    add(large, "PatientComments", "x" * 70_000)
    for _ in range(50):
        outer = Dataset()
        outer.ConceptNameCodeSequence = [deep]
        deep = outer

    assert _index_of(ProcedureCodeSequence=[large]) is None
    assert _index_of(ProcedureCodeSequence=[deep]) is None
    assert index_value(_raw("ProcedureCodeSequence", bytes(2 << 20))) is None
    assert index_value(_raw("ProcedureCodeSequence", b"garbage")) is None


def test_index_value_items_have_their_own_character_set() -> None:
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 126"
    item._dict[BaseTag(0x00080104)] = _raw("CodeMeaning", "Δ".encode("iso_ir_126"))

    text = index_value(DataElement(0x00081032, "SQ", [item]), codecs_of(("ISO_IR 100",)))

    assert text == '[{"00080104":{"vr":"LO","Value":["Δ"]}}]'


_CHARSET_FILES = {
    "chrGerm.dcm": "Äneas^Rüdiger",
    "chrGreek.dcm": "Διονυσιος",
    "chrRuss.dcm": "Люкceмбypг",  # noqa: RUF001 - a Russian name
    "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동",
    "chrX1.dcm": "Wang^XiaoDong=王^小東",
    "chrX2.dcm": "Wang^XiaoDong=王^小东",
    "chrHbrw.dcm": "שרון^דבורה",
    "chrArab.dcm": "قباني^لنزار",
}


@pytest.mark.parametrize(("file", "name"), _CHARSET_FILES.items(), ids=_CHARSET_FILES.keys())
def test_index_value_of_real_names_is_unicode(file: str, name: str) -> None:
    (path,) = get_charset_files(file)
    data_set = dcmread(path)
    codecs = codecs_of(character_set_terms(data_set))

    assert index_value(data_set.get_item(0x00100010), codecs) == name
    assert index_value(data_set[0x00100010]) == name


_KEYWORDS = st.sampled_from([one.keyword for one in ATTRIBUTES])
_VRS = st.sampled_from([None, "LO", "PN", "SQ", "UN", "OB", "US", "IS", "FD", "AT", "DA", "ZZ"])


@given(_KEYWORDS, _VRS, st.binary(max_size=200))
def test_index_value_any_bytes_give_a_text_or_none(
    keyword: str, vr: str | None, value: bytes
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, on damaged sequences
        text = index_value(_raw(keyword, value, vr))

    assert text is None or (text and "\0" not in text and text.encode())


@given(_KEYWORDS, st.text())
def test_index_value_any_text_is_storable(keyword: str, value: str) -> None:
    text = index_value(DataElement(Tag(keyword), "LO", value, already_converted=True))

    assert text is None or (text and "\0" not in text and text.encode())


def test_index_value_lone_surrogate_is_replaced() -> None:
    element = DataElement(0x00100020, "LO", "a\ud800b", already_converted=True)

    assert index_value(element) == "a?b"


@pytest.mark.parametrize(
    ("vr", "text", "columns"),
    [
        ("PN", "Doe^Jane", ("doe^jane", None, None, " T JN ")),
        ("PN", "A=B=C", ("a", "b", "c", " A B K ")),
        ("PN", "A=B\\C", ("a\\c", "b\\", None, " A B \\ K ")),
        ("PN", "^", (None, None, None, None)),
        ("PN", None, (None, None, None, None)),
        ("TM", "10", ("100000.000000",)),
        ("TM", "noon", (None,)),
        ("TM", None, (None,)),
        ("DT", "2024", ("20240101000000.000000",)),
        ("LO", "x", ()),
    ],
)
def test_shadow_values_align_with_the_shadow_columns(
    vr: str, text: str | None, columns: tuple[str | None, ...]
) -> None:
    assert shadow_values(vr, text) == columns


def test_shadow_values_have_one_for_each_shadow_column_of_the_table() -> None:
    for attribute in ATTRIBUTES:
        assert len(shadow_values(attribute.vr, "1")) == len(attribute.shadow_columns)
