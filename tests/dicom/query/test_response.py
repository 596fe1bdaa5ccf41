from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

from pacs.dicom.attributes import BY_KEYWORD, at_level
from pacs.dicom.encoding.plain_values import character_set_terms
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Query, parse_find
from pacs.dicom.query.response import encode_response
from pacs.dicom.text.character_sets import codecs_of, decode
from pacs.dicom.text.values import index_value
from tests.factories import add

_CODES = (
    '[{"00080100":{"vr":"SH","Value":["A"]},"00080104":{"vr":"LO","Value":["one"]}},'
    '{"00080100":{"vr":"SH","Value":["B"]},"00080104":{"vr":"LO"},'
    '"0040A043":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["N"]},'
    '"00280010":{"vr":"US","Value":[3]}}]}}]'
)


def _query(level: Any = "STUDY", **keywords: Any) -> Query:
    identifier = Dataset()
    add(identifier, "QueryRetrieveLevel", level)
    for keyword, value in keywords.items():
        add(identifier, keyword, value)
    return parse_find(identifier, InformationModel.STUDY_ROOT)


def _response(query: Query, **record: str | None) -> Dataset:
    return encode_response(query, record, retrieve_ae_title="PACS")


def _sent(data_set: Dataset, *, is_implicit: bool = True) -> Dataset:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, is_implicit
    write_dataset(buffer, data_set)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit, True)


def _keywords(data_set: Dataset) -> set[str]:
    return {element.keyword for element in data_set}


def test_response_has_what_was_asked_for_and_what_the_standard_adds() -> None:
    query = _query(PatientName="D*", StudyDate="", Modality="", PixelSpacing=None)

    response = _response(query, PatientName="Doe^Jane", StudyInstanceUID="1.2", StudyDate=None)

    assert _keywords(response) == {
        "PatientName",
        "StudyDate",
        "StudyInstanceUID",
        "QueryRetrieveLevel",
        "RetrieveAETitle",
    }
    assert response.PatientName == "Doe^Jane"
    assert response["StudyDate"].is_empty
    assert response.QueryRetrieveLevel == "STUDY"
    assert response.RetrieveAETitle == "PACS"


def test_response_has_the_unique_keys_of_the_levels_above() -> None:
    query = _query("SERIES", StudyInstanceUID="1.2")

    response = _response(query, StudyInstanceUID="1.2", SeriesInstanceUID="1.3")

    assert (response.StudyInstanceUID, response.SeriesInstanceUID) == ("1.2", "1.3")


def test_response_instance_availability_only_when_asked_for() -> None:
    assert "InstanceAvailability" not in _response(_query())
    assert _response(_query(InstanceAvailability="")).InstanceAvailability == "ONLINE"


@pytest.mark.parametrize("is_implicit", [True, False], ids=["implicit", "explicit"])
def test_response_values_are_typed_by_vr_and_survive_the_wire(is_implicit: bool) -> None:
    query = _query(
        "IMAGE",
        StudyInstanceUID="1",
        SeriesInstanceUID="2",
        **dict.fromkeys(("ImageType", "Rows", "InstanceNumber", "SliceLocation", "ImageComments")),
    )

    response = _response(
        query,
        ImageType="ORIGINAL\\PRIMARY",
        Rows="512",
        InstanceNumber="7",
        SliceLocation="-1.50",
        ImageComments="a\\b",
        SOPInstanceUID="1.2.3",
    )
    received = _sent(response, is_implicit=is_implicit)

    for data_set in (response, received):
        assert list(data_set.ImageType) == ["ORIGINAL", "PRIMARY"]
        assert data_set.Rows == 512
        assert data_set.InstanceNumber == 7
        assert str(data_set.SliceLocation) == "-1.50"
        assert data_set.ImageComments == "a\\b"
        assert data_set.SOPInstanceUID == "1.2.3"


_NAMES = {
    "ascii": ("ISO_IR 100", "Doe^Jane", None),
    "latin": ("ISO_IR 100", "Äneas^Rüdiger", "ISO_IR 100"),
    "misspelt": ("ISO-IR 100", "Äneas^Rüdiger", "ISO_IR 100"),
    "greek": ("ISO_IR 126", "Διονυσιος", "ISO_IR 126"),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг", "ISO_IR 144"),  # noqa: RUF001 - a Russian name
    "japanese": (
        ["ISO 2022 IR 6", "ISO 2022 IR 87"],
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ["ISO 2022 IR 6", "ISO 2022 IR 87"],
    ),
    "katakana": (
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ["ISO 2022 IR 13", "ISO 2022 IR 87"],
    ),
    "korean": (
        ["", "ISO 2022 IR 149"],
        "Hong^Gildong=洪^吉洞=홍^길동",
        ["", "ISO 2022 IR 149"],
    ),
    "chinese": ("GB18030", "Wang^XiaoDong=王^小东", "GB18030"),
    "not in the requested set": ("ISO_IR 100", "Διονυσιος", "ISO_IR 192"),
    "none requested": (None, "Äneas", "ISO_IR 192"),
    "unknown requested": ("KLINGON", "Äneas", "ISO_IR 192"),
}


@pytest.mark.parametrize(("requested", "name", "used"), _NAMES.values(), ids=_NAMES.keys())
@pytest.mark.parametrize("is_implicit", [True, False], ids=["implicit", "explicit"])
def test_response_names_arrive_in_the_requested_character_set(
    requested: Any, name: str, used: Any, is_implicit: bool
) -> None:
    character_set = {} if requested is None else {"SpecificCharacterSet": requested}
    query = _query(**character_set, PatientName="", StudyDescription="")

    response = _response(query, PatientName=name, StudyDescription=name, StudyInstanceUID="1.2")
    received = _sent(response, is_implicit=is_implicit)

    assert received.get("SpecificCharacterSet") == used
    assert received.StudyDescription == name
    assert str(received.PatientName) == name
    raw = _sent(response, is_implicit=is_implicit).get_item(0x00100010)
    assert index_value(raw, codecs_of(character_set_terms(received))) == name


def test_response_name_longer_than_its_vr_allows_is_written_as_it_is() -> None:
    name = "山" * 100
    query = _query(PatientName="", SpecificCharacterSet=["", "ISO 2022 IR 87"])

    # pydicom's warning of its length would be an error here.
    sent = _sent(_response(query, PatientName=name), is_implicit=False)

    value = sent.get_item("PatientName").value
    assert decode(value, ["", "ISO 2022 IR 87"], is_name=True).strip() == name
    assert sent.SpecificCharacterSet == ["", "ISO 2022 IR 87"]


def test_response_character_set_considers_every_value_of_several() -> None:
    query = _query(SpecificCharacterSet="ISO_IR 100", OtherPatientNames="")

    # An ideographic space, which a repr would hide.
    response = _response(query, OtherPatientNames="Doe\\Roe\u3000Rick", StudyInstanceUID="1")

    assert response.SpecificCharacterSet == "ISO_IR 192"
    assert str(_sent(response).OtherPatientNames[1]) == "Roe\u3000Rick"


def test_response_sequence_asked_for_as_a_whole_is_returned_as_a_whole() -> None:
    response = _response(_query(ProcedureCodeSequence=None), ProcedureCodeSequence=_CODES)

    items = _sent(response).ProcedureCodeSequence
    assert [item.CodeValue for item in items] == ["A", "B"]
    assert items[0].CodeMeaning == "one"
    assert items[1].ConceptNameCodeSequence[0].Rows == 3


def test_response_sequence_asked_for_by_keys_has_those_of_matching_items_only() -> None:
    inner, item = Dataset(), Dataset()
    add(inner, "CodeValue", "")
    add(item, "CodeMeaning", "")
    add(item, "CodeValue", "B")
    item.ConceptNameCodeSequence = [inner]

    response = _response(_query(ProcedureCodeSequence=[item]), ProcedureCodeSequence=_CODES)

    (found,) = _sent(response).ProcedureCodeSequence
    assert _keywords(found) == {"CodeValue", "CodeMeaning", "ConceptNameCodeSequence"}
    assert found.CodeValue == "B"
    assert _keywords(found.ConceptNameCodeSequence[0]) == {"CodeValue"}


def test_response_sequence_without_a_value_has_zero_length() -> None:
    for text in (None, "", "[]", "broken", '[{"00080100": 1}]'):
        response = _response(_query(ProcedureCodeSequence=None), ProcedureCodeSequence=text)

        assert "ProcedureCodeSequence" in _sent(response)


@pytest.mark.parametrize(
    ("keyword", "text", "received"),
    [
        ("InstanceNumber", "1.5", b"1.5 "),
        ("InstanceNumber", "abc", b"abc "),
        ("InstanceNumber", "99999999999999", b"99999999999999"),
        ("SliceLocation", "wide", b"wide"),
        ("Rows", "abc", b""),
        ("Rows", "70000", b""),
        ("ContentDate", "19500000", b"19500000"),
        ("ContentTime", "noon", b"noon"),
        ("SOPClassUID", "not a UID", b"not a UID\0"),
        ("ImageType", "lower\\CASE", b"lower\\CASE"),
        ("ImageType", "\u0100\\B", b"?\\B "),
    ],
)
def test_response_value_its_vr_does_not_allow_is_returned_without_a_warning(
    keyword: str, text: str, received: bytes
) -> None:
    query = _query("IMAGE", StudyInstanceUID="1", SeriesInstanceUID="2", **{keyword: None})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = _response(query, **{keyword: text})
        raw = _sent(response).get_item(Tag(keyword))

    assert (raw.value or b"") == received


_KEYS = {
    level: [one.keyword for one in at_level(level) if one.keyword != level.unique_key]
    for level in Level
}


@given(st.data(), st.booleans())
def test_response_any_index_texts_can_be_written(data: st.DataObject, is_implicit: bool) -> None:
    keywords = _KEYS[Level.PATIENT] + _KEYS[Level.STUDY]
    query = _query(SpecificCharacterSet="ISO 2022 IR 6", **dict.fromkeys(keywords))
    record: dict[str, str | None] = {}
    for keyword in data.draw(st.lists(st.sampled_from(keywords), max_size=5, unique=True)):
        value = Dataset()
        add(value, "PatientID", data.draw(st.text(max_size=20)))
        element = value["PatientID"]
        element.tag = Tag(BY_KEYWORD[keyword].tag)
        record[keyword] = index_value(element)

    response = _response(query, **record)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = _sent(response, is_implicit=is_implicit)
    assert received.QueryRetrieveLevel == "STUDY"
