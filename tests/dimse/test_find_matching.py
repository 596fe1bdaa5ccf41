"""Attribute matching with a real client, clause by clause (PS3.4 C.2.2.2)."""

from __future__ import annotations

from typing import Any

import pytest
from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_FIND,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
)
from tests.serving import Serve

_A, _B, _C, _D = (f"1.2.276.4.{number}" for number in (1, 2, 3, 4))
_NAMES = {_A: "A", _B: "B", _C: "C", _D: "D"}


def _code(value: str | None, meaning: str | None = None, **more: Any) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = "99PACS" if value else None
    item.CodeMeaning = meaning
    for keyword, keys in more.items():
        setattr(item, keyword, keys)
    return item


def _request(procedure: str, code: Dataset | None) -> Dataset:
    item = Dataset()
    item.RequestedProcedureID = procedure
    if code is not None:
        item.RequestedProcedureCodeSequence = [code]
    return item


def _studies() -> list[Dataset]:
    """Four studies: A and B have everything, C is spelt in the forms before DICOM, D has nothing."""
    return [
        make_instance(
            StudyInstanceUID=_A,
            SeriesInstanceUID=f"{_A}.1",
            SOPInstanceUID=f"{_A}.1.1",
            PatientID="P-A",
            PatientName="Äneas^Rüdiger",
            SpecificCharacterSet="ISO_IR 100",
            StudyDate="20240229",
            StudyTime="101530",
            AccessionNumber="A-1",
            StudyDescription="Head 100% [a_b]",
            PatientWeight="70.50",
            OtherPatientIDs="X1\\X2",
            ProcedureCodeSequence=[_code("CT1", "Head"), _code("CT2", "Chest")],
            RequestAttributesSequence=[_request("RP1", _code("R1"))],
            AcquisitionDateTime="20240229101530+0100",
        ),
        make_instance(
            StudyInstanceUID=_A,
            SeriesInstanceUID=f"{_A}.2",
            SOPInstanceUID=f"{_A}.2.1",
            Modality="SR",
            PatientID="P-A",
            PatientName="Äneas^Rüdiger",
            SpecificCharacterSet="ISO_IR 100",
            RequestAttributesSequence=[_request("RP2", None)],
        ),
        make_instance(
            StudyInstanceUID=_B,
            PatientID="P-B",
            PatientName="Doe^Jane",
            Modality="MR",
            StudyDate="20240301",
            StudyTime="235960",
            AccessionNumber="a-1",
            StudyDescription="head",
            PatientWeight="71",
            ProcedureCodeSequence=[_code("CT1", "Chest")],
        ),
        make_instance(
            StudyInstanceUID=_C,
            PatientID="P-C",
            PatientName="Roe^Ann",
            Modality="US",
            StudyDate="2023.12.31",
            StudyTime="10:15",
            AccessionNumber="01",
            PatientWeight="7.05E1",
        ),
        make_instance(
            StudyInstanceUID=_D,
            PatientID="P-D",
            PatientName="",
            Modality="CR",
            StudyDate="",
            StudyTime="",
            AccessionNumber="",
            StudyID="",
        ),
    ]


@pytest.fixture(scope="module")
def library(serve_module: Serve) -> RunningArchive:
    """An archive with the four studies, for tests that only read."""
    running = serve_module()
    deposit(running.archive, *_studies())
    return running


def _find(
    running: RunningArchive, query: Dataset, negotiated: bytes = b""
) -> tuple[list[Dataset], Response]:
    proposal = SOPClassExtendedNegotiation()
    proposal.sop_class_uid = STUDY_ROOT_FIND
    proposal.service_class_application_information = negotiated
    with association(running, STUDY_ROOT_FIND, items=[proposal] if negotiated else []) as assoc:
        *pending, final = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))
    assert all(one.status == 0xFF00 for one in pending)
    return [one.identifier for one in pending if one.identifier is not None], final


def _query(keyword: str, value: object, level: str = "STUDY", **keys: object) -> Dataset:
    query = identifier(
        level, **({"StudyInstanceUID": "", "SpecificCharacterSet": "ISO_IR 192"} | keys)
    )
    tag = Tag(keyword)
    vr = dictionary_VR(tag)
    # As it is, so that pydicom neither refuses nor reads it; but only its own names can be encoded.
    query[tag] = DataElement(
        tag, vr, value, validation_mode=config.IGNORE, already_converted=vr != "PN"
    )
    return query


def _found(running: RunningArchive, keyword: str, value: object, negotiated: bytes = b"") -> str:
    """The letters of the studies that a key finds."""
    found, final = _find(running, _query(keyword, value), negotiated)
    assert final.status == 0x0000, final.comment
    return "".join(sorted(_NAMES[one.StudyInstanceUID] for one in found))


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        # C.2.2.2.1: exactly, case-sensitively; padding aside
        ("AccessionNumber", "A-1", "A"),
        ("AccessionNumber", "a-1", "B"),
        ("AccessionNumber", " A-1 ", "A"),
        ("AccessionNumber", "1", ""),
        ("AccessionNumber", "A%1", ""),
        ("PatientWeight", "70.5", "AC"),
        # C.2.2.2.1: names by the rule of the conformance statement
        ("PatientName", "aneas^RUDIGER", "A"),
        ("PatientName", "Doe ^Jane^", "B"),
        ("PatientName", "Doe", ""),
        # C.2.2.2.1: dates and times by meaning
        ("StudyDate", "20231231", "C"),
        ("StudyDate", "2024.02.29", "A"),
        ("StudyTime", "1015", "AC"),
        ("StudyTime", "10:15:30", "A"),
        ("StudyTime", "101530.000", "A"),
        # C.2.2.2.2
        ("StudyInstanceUID", f"{_A}\\{_C}\\1.9", "AC"),
        # C.2.2.2.3: also what has no value
        ("AccessionNumber", "", "ABCD"),
        ("AccessionNumber", "*", "ABCD"),
        ("PatientName", "*", "ABCD"),
        # C.2.2.2.4: other characters are literal
        ("AccessionNumber", "?-1", "AB"),
        ("AccessionNumber", "??*", "ABC"),
        ("AccessionNumber", "A*", "A"),
        ("StudyDescription", "*100%*", "A"),
        ("StudyDescription", "*[a_b]", "A"),
        ("StudyDescription", "*[a?b]", "A"),
        ("StudyDescription", "*[ab]*", ""),
        ("PatientName", "*RÜD*", "A"),
        # C.2.2.2.5.1, C.2.2.2.5.2: inclusive, open ended, partial, leap second
        ("StudyDate", "20240101-20240229", "A"),
        ("StudyDate", "20240229-", "AB"),
        ("StudyDate", "-20240229", "AC"),
        ("StudyDate", "20240229 - 20240301", "AB"),
        ("StudyTime", "10-10", "AC"),
        ("StudyTime", "101530-", "AB"),
        ("StudyTime", "-101529.999999", "C"),
        ("StudyTime", "2359-", "B"),
        # C.2.2.3: one value of several is enough
        ("OtherPatientIDs", "X2", "A"),
        ("OtherPatientIDs", "X?", "A"),
        ("ModalitiesInStudy", "SR", "A"),
        # C.2.2.2.8 note 4: not negotiated, any value of the list
        ("ModalitiesInStudy", "SR\\MR", "AB"),
        ("AccessionNumber", "A-1\\01", "AC"),
        ("PatientName", "doe^jane\\ROE^ANN", "BC"),
        # C.2.2.2.7, not negotiated: two quotation marks are a value like others
        ("AccessionNumber", '""', ""),
        # C.2.2.2.6: one Item has to match all keys
        ("ProcedureCodeSequence", [_code("CT1")], "AB"),
        ("ProcedureCodeSequence", [_code("CT1", "Head")], "A"),
        ("ProcedureCodeSequence", [_code("CT2", "Head")], ""),
        ("ProcedureCodeSequence", [_code(None, "Ch*")], "AB"),
        ("ProcedureCodeSequence", [_code("ct1")], ""),
        ("ProcedureCodeSequence", [_code("CT2\\CT9")], "A"),
        ("ProcedureCodeSequence", [Dataset()], "ABCD"),
        ("ProcedureCodeSequence", [], "ABCD"),
        ("ProcedureCodeSequence", [_code(None)], "ABCD"),
    ],
)
def test_find_matches_as_the_clause_says(
    library: RunningArchive, keyword: str, value: object, expected: str
) -> None:
    assert _found(library, keyword, value) == expected


_EMPTY_VALUES, _MULTIPLE_VALUES = b"\0\0\0\0\0\1", b"\0\0\0\0\0\0\1"  # PS3.4 Table C.5-1


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("AccessionNumber", "D"),
        ("PatientName", "D"),
        ("StudyDate", "D"),
        ("StudyTime", "D"),
        ("PatientWeight", "D"),
        ("StudyDescription", "CD"),
        ("OtherPatientIDs", "BCD"),
        ("ModalitiesInStudy", ""),
        ("StudyInstanceUID", ""),
    ],
)
def test_find_empty_value_negotiated_finds_what_has_no_value(
    library: RunningArchive, keyword: str, expected: str
) -> None:
    """PS3.4 C.2.2.2.7."""
    assert _found(library, keyword, '""', _EMPTY_VALUES) == expected


def test_find_empty_value_in_an_item(library: RunningArchive) -> None:
    """PS3.4 C.2.2.2.7 within C.2.2.2.6."""
    coded = _query("ProcedureCodeSequence", [_code("CT1", '""')])

    found, final = _find(library, coded, _EMPTY_VALUES)

    assert (found, final.status) == ([], 0x0000)


def test_find_empty_value_not_negotiated_is_no_date(library: RunningArchive) -> None:
    _, final = _find(library, _query("StudyDate", '""'))

    assert (final.status, final.offending) == (0xA900, (0x00080020,))


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("ModalitiesInStudy", "CT\\SR", "A"),
        ("ModalitiesInStudy", "SR\\MR", ""),
        ("OtherPatientIDs", "X2\\X1", "A"),
        ("OtherPatientIDs", "X1\\X9", ""),
        # VM 1: the clause is about Attributes that can have several values.
        ("AccessionNumber", "A-1\\01", "AC"),
    ],
)
def test_find_multiple_values_negotiated_finds_what_has_all_of_them(
    library: RunningArchive, keyword: str, value: str, expected: str
) -> None:
    """PS3.4 C.2.2.2.8."""
    assert _found(library, keyword, value, _MULTIPLE_VALUES) == expected


def test_find_multiple_values_with_a_wild_card_is_a900(library: RunningArchive) -> None:
    """PS3.4 C.2.2.2.8: the values have no wild cards."""
    _, final = _find(library, _query("OtherPatientIDs", "X1\\X*"), _MULTIPLE_VALUES)

    assert (final.status, final.offending) == (0xA900, (0x00101000,))
    assert "wild card" in final.comment


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("StudyInstanceUID", "1.2.*", "is not a UID"),
        ("StudyDate", "*", "is no DA"),
        ("StudyDate", "202402??", "is no DA"),
        ("StudyDate", "20240230", "is no DA"),
        ("StudyDate", "20240301-20240229", "is no DA"),
        ("StudyDate", "20240229\\20240301", "has several values"),
        ("StudyTime", "2200-0600", "is a range across midnight"),
        ("StudyTime", "24", "is no TM"),
        ("PatientWeight", "7*", "has a wild card"),
        ("PatientWeight", "heavy", "is not a valid value of VR DS"),
        ("ModalitiesInStudy", "C*\\MR", "has a wild card in a list"),
        ("ProcedureCodeSequence", [_code("A"), _code("B")], "has several Items"),
    ],
)
def test_find_key_without_meaning_is_a900_with_element_and_reason(
    library: RunningArchive, keyword: str, value: object, reason: str
) -> None:
    found, final = _find(library, _query(keyword, value))

    assert found == []
    assert final.status == 0xA900
    assert final.offending == (int(Tag(keyword)),)
    assert f"{keyword} " in final.comment
    assert reason[:20] in final.comment


def test_find_bad_key_in_an_item_names_the_element_in_the_item(library: RunningArchive) -> None:
    code = Dataset()
    code.add(DataElement(0x0008010D, "UI", "1" * 129, validation_mode=config.IGNORE))

    _, final = _find(library, _query("ProcedureCodeSequence", [code]))

    assert final.status == 0xA900
    assert "(0008,010D)" in final.comment


def test_find_sequence_returns_the_matching_items_with_what_was_asked(
    library: RunningArchive,
) -> None:
    """PS3.4 C.2.2.2.6."""
    wanted = Dataset()
    wanted.CodeMeaning = "Ch*"
    wanted.CodeValue = ""

    found, _ = _find(library, _query("ProcedureCodeSequence", [wanted], StudyInstanceUID=_A))

    [item] = found[0].ProcedureCodeSequence
    assert (item.CodeValue, item.CodeMeaning) == ("CT2", "Chest")
    assert "CodingSchemeDesignator" not in item


def test_find_sequence_without_keys_returns_whole_items(library: RunningArchive) -> None:
    """PS3.4 C.2.2.2.6."""
    for empty in ([], [Dataset()]):
        [found], _ = _find(library, _query("ProcedureCodeSequence", empty, StudyInstanceUID=_A))

        assert [item.CodeValue for item in found.ProcedureCodeSequence] == ["CT1", "CT2"]
        assert found.ProcedureCodeSequence[0].CodingSchemeDesignator == "99PACS"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (_request("RP1", None), [f"{_A}.1"]),
        (_request("RP*", None), [f"{_A}.1", f"{_A}.2"]),
        (_request("", _code("R1")), [f"{_A}.1"]),
        (_request("RP2", _code("R1")), []),
        (_request("", _code("R9")), []),
    ],
)
def test_find_sequence_in_a_sequence_is_matched_too(
    library: RunningArchive, key: Dataset, expected: list[str]
) -> None:
    """PS3.4 C.2.2.2.6, recursive."""
    query = _query(
        "RequestAttributesSequence", [key], "SERIES", StudyInstanceUID=_A, SeriesInstanceUID=""
    )

    found, final = _find(library, query)

    assert final.status == 0x0000
    assert sorted(one.SeriesInstanceUID for one in found) == expected


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("20240229091530", 1),
        ("20240229101530+0100", 1),
        ("20240229041530-0500", 1),
        ("20240229101530", 0),
        ("20240229091530-", 1),
        ("-20240229101529+0100", 0),
        ("202402", 1),
        ("2023-2025", 1),
    ],
)
def test_find_date_time_with_offset_is_the_instant(
    library: RunningArchive, value: str, count: int
) -> None:
    """PS3.4 C.2.2.2.5.3: the offset is taken into account."""
    query = _query(
        "AcquisitionDateTime",
        value,
        "IMAGE",
        StudyInstanceUID=_A,
        SeriesInstanceUID=f"{_A}.1",
        SOPInstanceUID="",
    )

    found, _ = _find(library, query)

    assert len(found) == count


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("AccessionNumber", "A-1", "AD"),
        ("PatientName", "doe*", "BD"),
        ("StudyDate", "20240301-", "BD"),
        ("StudyTime", "10", "ACD"),
        # An optional key that is supported is processed as a required one is (C.2.2.1.3).
        ("StudyDescription", "head", "BCD"),
        ("ProcedureCodeSequence", [_code("CT2")], "ACD"),
        # Unique keys have a value, and counts are known.
        ("StudyInstanceUID", _A, "A"),
        ("PatientID", "P-B", "B"),
    ],
)
def test_find_with_match_unknown_what_has_no_value_matches_every_value(
    unknown: RunningArchive, keyword: str, value: object, expected: str
) -> None:
    """PS3.4 C.2.2.1.2, C.2.2.1.3."""
    assert _found(unknown, keyword, value) == expected


@pytest.fixture(scope="module")
def unknown(library: RunningArchive, serve_module: Serve) -> RunningArchive:
    """A second archive over the library's index, where what is unknown matches."""
    assert library.archive.index.stats().studies == len(_NAMES)
    return serve_module(match_unknown=True)
