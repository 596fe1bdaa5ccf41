from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag, Tag

from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Query, parse_find, parse_retrieve
from pacs.dicom.query.matching import (
    Match,
    SequenceMatch,
    SingleValue,
    UidList,
    Universal,
    WildCard,
)
from pacs.dicom.query.query_options import QueryOptions
from pacs.dicom.query.ranges import Range
from pacs.errors import InvalidIdentifier
from tests.factories import add

_PATIENT, _STUDY = InformationModel.PATIENT_ROOT, InformationModel.STUDY_ROOT
_ONLY = InformationModel.PATIENT_STUDY_ONLY
_RELATIONAL = QueryOptions(relational=True)


def _identifier(level: str | None, **keywords: Any) -> Dataset:
    identifier = Dataset()
    if level is not None:
        add(identifier, "QueryRetrieveLevel", level)
    for keyword, value in keywords.items():
        add(identifier, keyword, value)
    return identifier


def _conditions(query: Query) -> dict[str, Match]:
    return {one.attribute.keyword: one.match for one in query.conditions}


def _returns(query: Query) -> list[str]:
    return [one.keyword for one in query.returns]


def _sent(identifier: Dataset, *, is_implicit: bool) -> Dataset:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, is_implicit
    write_dataset(buffer, identifier)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit, True)


@pytest.mark.parametrize("is_implicit", [True, False], ids=["implicit", "explicit"])
def test_parse_find_reads_what_came_over_the_wire(is_implicit: bool) -> None:
    item = _identifier(None, CodeValue="A*", CodeMeaning="")
    identifier = _identifier(
        "STUDY",
        SpecificCharacterSet="ISO_IR 126",
        StudyDate="20240101-",
        AccessionNumber="",
        PatientName="Διον*",
        PatientID="*",
        StudyInstanceUID=["1.2", "1.3"],
        NumberOfStudyRelatedInstances="",
        ProcedureCodeSequence=[item],
    )

    query = parse_find(_sent(identifier, is_implicit=is_implicit), _STUDY)

    codes = SequenceMatch(
        keys=((0x00080100, "SH", WildCard("A*")), (0x00080104, "LO", Universal()))
    )
    assert (query.model, query.level) == (_STUDY, Level.STUDY)
    assert _conditions(query) == {
        "StudyDate": Range("20240101", None),
        "PatientName": WildCard("Διον*"),
        "StudyInstanceUID": UidList(("1.2", "1.3")),
        "ProcedureCodeSequence": codes,
    }
    assert _returns(query) == [
        "StudyDate",
        "AccessionNumber",
        "ProcedureCodeSequence",
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "NumberOfStudyRelatedInstances",
    ]
    assert [(one.keyword, match) for one, match in query.sequence_keys] == [
        ("ProcedureCodeSequence", codes)
    ]
    assert query.character_sets == ("ISO_IR 126",)
    assert (query.unsupported, query.retrieval_keys) == ((), ())


@pytest.mark.parametrize(
    ("model", "level"),
    [
        (_STUDY, None),
        (_STUDY, ""),
        (_STUDY, "PATIENT"),
        (_STUDY, "study"),
        (_STUDY, "WORLD"),
        (_STUDY, ["STUDY", "SERIES"]),
        (_ONLY, "SERIES"),
        (_ONLY, "IMAGE"),
    ],
)
@pytest.mark.parametrize("parse", [parse_find, parse_retrieve])
def test_parse_level_missing_or_not_of_the_model_is_refused(
    parse: Any, model: InformationModel, level: Any
) -> None:
    with pytest.raises(InvalidIdentifier, match=r"^QueryRetrieveLevel \(0008,0052\)") as caught:
        parse(_identifier(level, StudyInstanceUID="1.2"), model)

    assert caught.value.offending == (0x00080052,)


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        (_PATIENT, "PATIENT", {}),
        (_PATIENT, "PATIENT", {"PatientID": "P*"}),
        (_PATIENT, "STUDY", {"PatientID": "P"}),
        (_PATIENT, "SERIES", {"PatientID": "P", "StudyInstanceUID": "1"}),
        (
            _PATIENT,
            "IMAGE",
            {"PatientID": "P", "StudyInstanceUID": "1", "SeriesInstanceUID": "2"},
        ),
        (_STUDY, "STUDY", {}),
        (_STUDY, "SERIES", {"StudyInstanceUID": "1"}),
        (_STUDY, "IMAGE", {"StudyInstanceUID": "1", "SeriesInstanceUID": "2"}),
        (_ONLY, "STUDY", {"PatientID": "P"}),
    ],
)
def test_parse_find_hierarchical_keys_are_accepted(
    model: InformationModel, level: str, keys: dict[str, str]
) -> None:
    query = parse_find(_identifier(level, **keys), model)

    assert set(_conditions(query)) == set(keys)
    unique = [one.unique_key for one in (query.level, *model.levels_above(query.level))]
    assert set(unique) <= set(_returns(query))


@pytest.mark.parametrize(
    ("model", "level", "keys", "offending"),
    [
        (_PATIENT, "STUDY", {}, 0x00100020),
        (_PATIENT, "STUDY", {"PatientID": ""}, 0x00100020),
        (_PATIENT, "STUDY", {"PatientID": "*"}, 0x00100020),
        (_PATIENT, "STUDY", {"PatientID": "P*"}, 0x00100020),
        (_PATIENT, "SERIES", {"PatientID": "P"}, 0x0020000D),
        (_STUDY, "SERIES", {}, 0x0020000D),
        (_STUDY, "SERIES", {"StudyInstanceUID": ["1", "2"]}, 0x0020000D),
        (_STUDY, "IMAGE", {"StudyInstanceUID": "1"}, 0x0020000E),
        (_STUDY, "SERIES", {"StudyInstanceUID": "1", "PatientID": "P"}, 0x00100020),
        (_STUDY, "SERIES", {"StudyInstanceUID": "1", "StudyDate": "20240101"}, 0x00080020),
        (_PATIENT, "STUDY", {"PatientID": "P", "PatientName": "D*"}, 0x00100010),
        (_STUDY, "STUDY", {"Modality": "CT"}, 0x00080060),
        (_STUDY, "STUDY", {"SeriesInstanceUID": "1"}, 0x0020000E),
        (_ONLY, "STUDY", {"PatientID": "P", "Modality": "CT"}, 0x00080060),
        (_STUDY, "STUDY", {"StudyDate": "yesterday"}, 0x00080020),
        (_STUDY, "STUDY", {"ModalitiesInStudy": ["C*", "MR"]}, 0x00080061),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1.*"}, 0x0020000D),
    ],
)
def test_parse_find_violation_is_refused_with_its_tag(
    model: InformationModel, level: str, keys: dict[str, Any], offending: int
) -> None:
    with pytest.raises(InvalidIdentifier) as caught:
        parse_find(_identifier(level, **keys), model)

    assert caught.value.offending == (offending,)
    assert f"({offending >> 16:04X},{offending & 0xFFFF:04X})" in caught.value.message


def test_parse_find_relational_needs_no_parents_and_takes_keys_above() -> None:
    identifier = _identifier("SERIES", PatientName="D*", StudyInstanceUID=["1", "2"], Modality="CT")

    query = parse_find(identifier, _PATIENT, _RELATIONAL)

    assert _conditions(query) == {
        "PatientName": WildCard("D*"),
        "StudyInstanceUID": UidList(("1", "2")),
        "Modality": SingleValue("CT"),
    }


def test_parse_find_relational_matches_keys_below_and_does_not_return_them() -> None:
    """PS3.4 C.4.1.3.2.1: all keys, regardless of the Query/Retrieve level."""
    query = parse_find(_identifier("STUDY", Modality="CT", Rows=512), _STUDY, _RELATIONAL)

    assert _conditions(query) == {"Modality": SingleValue("CT"), "Rows": SingleValue("512")}
    assert _returns(query) == ["StudyInstanceUID"]
    assert query.unsupported == (0x00080060, 0x00280010)


def test_parse_find_empty_key_above_is_returned_and_below_is_unsupported() -> None:
    identifier = _identifier(
        "SERIES", StudyInstanceUID="1", PatientName="", StudyDate="", SOPInstanceUID="", Rows=None
    )

    query = parse_find(identifier, _STUDY)

    assert {"PatientName", "StudyDate"} <= set(_returns(query))
    assert set(query.unsupported) == {0x00080018, 0x00280010}
    assert not {"SOPInstanceUID", "Rows"} & set(_returns(query))


def test_parse_find_keys_of_no_level_and_private_ones_without_creator_are_unsupported() -> None:
    identifier = _identifier("STUDY", PixelSpacing=None, StorageMediaFileSetID="")
    identifier.add_new(0x00091001, "LO", "x")
    identifier.add_new(0x00880140, "UI", "")

    query = parse_find(identifier, _STUDY)

    assert query.unsupported == (0x00091001, 0x00280030, 0x00880130, 0x00880140)
    assert query.conditions == ()


def test_parse_find_response_only_keys_are_supported_but_not_matched() -> None:
    asked = parse_find(_identifier("STUDY", RetrieveAETitle="", InstanceAvailability=""), _STUDY)
    matched = parse_find(_identifier("STUDY", RetrieveAETitle="OTHER"), _STUDY)

    assert asked.retrieval_keys == ("RetrieveAETitle", "InstanceAvailability")
    assert asked.unsupported == ()
    assert matched.retrieval_keys == ("RetrieveAETitle",)
    assert matched.unsupported == (0x00080054,)


def test_parse_find_what_is_no_key_is_not_unsupported() -> None:
    identifier = _identifier(
        "STUDY", SpecificCharacterSet="ISO_IR 100", TimezoneOffsetFromUTC="+0100"
    )
    identifier.add_new(0x00080000, "UL", 8)

    assert parse_find(identifier, _STUDY).unsupported == ()


def test_parse_find_patient_attributes_are_keys_of_study_in_study_root() -> None:
    query = parse_find(_identifier("STUDY", PatientID="P?", PatientName="D*"), _STUDY)

    assert _conditions(query) == {"PatientID": WildCard("P?"), "PatientName": WildCard("D*")}


@pytest.mark.parametrize(
    ("model", "level", "keys"),
    [
        (_PATIENT, "PATIENT", {"PatientID": "P"}),
        (_PATIENT, "STUDY", {"PatientID": "P", "StudyInstanceUID": ["1", "2"]}),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1"}),
        (_STUDY, "STUDY", {"StudyInstanceUID": ["1", "2"]}),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1", "PatientID": "P"}),
        (_STUDY, "SERIES", {"StudyInstanceUID": "1", "SeriesInstanceUID": ["2", "3"]}),
        (
            _STUDY,
            "IMAGE",
            {"StudyInstanceUID": "1", "SeriesInstanceUID": "2", "SOPInstanceUID": ["3", "4"]},
        ),
        (_ONLY, "PATIENT", {"PatientID": "P"}),
    ],
)
def test_parse_retrieve_unique_keys_are_accepted(
    model: InformationModel, level: str, keys: dict[str, Any]
) -> None:
    query = parse_retrieve(_identifier(level, **keys), model)

    assert set(_conditions(query)) == set(keys)
    assert query.returns == ()


@pytest.mark.parametrize(
    ("model", "level", "keys", "offending"),
    [
        (_PATIENT, "PATIENT", {}, 0x00100020),
        (_PATIENT, "PATIENT", {"PatientID": ""}, 0x00100020),
        (_PATIENT, "PATIENT", {"PatientID": "*"}, 0x00100020),
        (_PATIENT, "PATIENT", {"PatientID": "P*"}, 0x00100020),
        (_PATIENT, "STUDY", {"StudyInstanceUID": "1"}, 0x00100020),
        (_STUDY, "STUDY", {}, 0x0020000D),
        (_STUDY, "STUDY", {"StudyInstanceUID": ""}, 0x0020000D),
        (_STUDY, "STUDY", {"PatientID": "P"}, 0x0020000D),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1", "PatientID": "P*"}, 0x00100020),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1", "SeriesInstanceUID": "2"}, 0x0020000E),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1", "PatientName": "Doe"}, 0x00100010),
        (_STUDY, "STUDY", {"StudyInstanceUID": "1", "PixelSpacing": [1, 1]}, 0x00280030),
        (_STUDY, "SERIES", {"SeriesInstanceUID": "2"}, 0x0020000D),
        (_STUDY, "SERIES", {"StudyInstanceUID": ["1", "2"], "SeriesInstanceUID": "2"}, 0x0020000D),
        (_STUDY, "IMAGE", {"StudyInstanceUID": "1", "SOPInstanceUID": "3"}, 0x0020000E),
    ],
)
def test_parse_retrieve_violation_is_refused_with_its_tag(
    model: InformationModel, level: str, keys: dict[str, Any], offending: int
) -> None:
    with pytest.raises(InvalidIdentifier) as caught:
        parse_retrieve(_identifier(level, **keys), model)

    assert caught.value.offending == (offending,)


def test_parse_retrieve_relational_needs_the_unique_key_of_its_level_only() -> None:
    query = parse_retrieve(_identifier("IMAGE", SOPInstanceUID="3"), _STUDY, _RELATIONAL)

    assert _conditions(query) == {"SOPInstanceUID": SingleValue("3")}
    with pytest.raises(InvalidIdentifier):
        parse_retrieve(_identifier("IMAGE", StudyInstanceUID="1"), _STUDY, _RELATIONAL)


def test_parse_retrieve_ignores_what_peers_copy_from_responses() -> None:
    identifier = _identifier(
        "STUDY",
        SpecificCharacterSet="ISO_IR 100",
        StudyInstanceUID="1",
        PatientName="",
        RetrieveAETitle="PACS",
        InstanceAvailability="ONLINE",
    )
    identifier.add_new(0x00091001, "LO", "private")
    identifier.add_new(0x00080000, "UL", 8)

    assert _conditions(parse_retrieve(identifier, _STUDY)) == {"StudyInstanceUID": SingleValue("1")}


_KEYWORDS = st.sampled_from([one.keyword for one in ATTRIBUTES] + ["SpecificCharacterSet"])
_VRS = st.sampled_from([None, "LO", "PN", "SQ", "UN", "US", "IS", "UI", "ZZ"])


@given(st.lists(st.tuples(_KEYWORDS, _VRS, st.binary(max_size=40)), max_size=5))
@pytest.mark.parametrize("parse", [parse_find, parse_retrieve])
def test_parse_any_bytes_give_a_query_or_invalid_identifier(
    parse: Any, elements: list[tuple[str, str | None, bytes]]
) -> None:
    identifier = _identifier("STUDY", StudyInstanceUID="1")
    for keyword, vr, value in elements:
        tag = BaseTag(Tag(keyword))
        identifier._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, True)

    with suppress(InvalidIdentifier):
        parse(identifier, _STUDY)
