"""C-FIND for Attributes that only the stored header has, against both engines (PS3.4 C.2.2.1.3, C.4.1.1.3.2)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context

from pacs.archive.find import find
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import parse_find
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
    settled_file,
)

PENDING, NOT_SUPPORTED = 0xFF00, 0xFF01
STUDY, SERIES = "1.2.276.7.1", "1.2.276.7.1.1"
CREATOR, OTHER_CREATOR = "ACME 1.0", "OTHER"


def _instance(number: int, **keywords: object) -> Dataset:
    common = {
        "PatientID": "P-1",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SOPInstanceUID": f"{SERIES}.{number}",
        "InstanceNumber": number,
    }
    return make_instance(**(common | keywords))


def _asked(level: str, **keys: object) -> Dataset:
    above = {"IMAGE": {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES}}
    above["SERIES"] = {"StudyInstanceUID": STUDY}
    return identifier(level, **(above.get(level, {}) | keys))


def _find(running: RunningArchive, query: Dataset, model: str = STUDY_ROOT_FIND) -> list[Response]:
    with association(running, model) as assoc:
        *pending, final = responses(assoc.send_c_find(query, model))
    assert final.status == 0x0000, (hex(final.status), final.comment)
    return pending


def _one(running: RunningArchive, query: Dataset, status: int = PENDING) -> Dataset:
    (found,) = _find(running, query)
    assert found.status == status
    assert found.identifier is not None
    return found.identifier


def _add(data_set: Dataset, tag: int, vr: str, value: Any) -> None:
    data_set[tag] = DataElement(tag, vr, value)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_image_key_comes_from_each_instance(service: RunningArchive, syntax: str) -> None:
    # PS3.4 Table C.6-4: all other Attributes at composite object instance level
    for number in (1, 2):
        stored = _instance(
            number,
            SliceThickness=f"{number}.5",
            PixelSpacing=["0.5", "0.25"],
            PixelRepresentation=1,
            FrameIncrementPointer=[0x00181063, 0x00181065],
            ScanOptions=["HELIX", "FAST"],
            TableTopVerticalPosition=1.25 * number,
        )
        _add(stored, 0x00280106, "SS", -number)
        deposit(service.archive, stored, transfer_syntax_uid=syntax)
    keys = (
        "SliceThickness PixelSpacing FrameIncrementPointer ScanOptions TableTopVerticalPosition "
        "SmallestImagePixelValue KVP"
    )

    found = _find(service, _asked("IMAGE", **dict.fromkeys(keys.split(), "")))

    assert [one.status for one in found] == [PENDING, PENDING]
    for one in found:
        assert one.identifier is not None
        number = int(one.identifier.SOPInstanceUID.rpartition(".")[2])
        assert one.identifier.SliceThickness == number + 0.5
        assert one.identifier.PixelSpacing == [0.5, 0.25]
        assert one.identifier.FrameIncrementPointer == [0x00181063, 0x00181065]
        assert one.identifier.ScanOptions == ["HELIX", "FAST"]
        assert one.identifier.TableTopVerticalPosition == 1.25 * number
        assert one.identifier.SmallestImagePixelValue == -number
        assert one.identifier["KVP"].is_empty  # supported, without a value in the instance


@pytest.mark.parametrize(
    ("level", "model", "keyword"),
    [
        ("PATIENT", PATIENT_ROOT_FIND, "ClinicalTrialSubjectID"),
        ("STUDY", STUDY_ROOT_FIND, "ClinicalTrialSubjectID"),
        ("STUDY", STUDY_ROOT_FIND, "AdmissionID"),
        ("SERIES", STUDY_ROOT_FIND, "InstitutionAddress"),
        ("SERIES", STUDY_ROOT_FIND, "AdmissionID"),
        ("SERIES", STUDY_ROOT_FIND, "SecondaryCaptureDeviceID"),
        ("SERIES", STUDY_ROOT_FIND, "CollimatorGridName"),
    ],
)
def test_key_of_a_higher_entity_comes_from_the_instance_received_last(
    service: RunningArchive, level: str, model: str, keyword: str
) -> None:
    deposit(service.archive, make_instance(PatientID="P-0", **{keyword: "of another patient"}))
    for number, value in ((2, "second"), (1, "first"), (3, "third"), (2, "again")):
        deposit(service.archive, _instance(number, **{keyword: value}))
    deposit(service.archive, make_instance(PatientID="P-2", **{keyword: "of another patient"}))
    unique = {"PATIENT": "PatientID", "STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID"}
    values = {"PATIENT": "P-1", "STUDY": STUDY, "SERIES": SERIES}

    (found,) = _find(service, _asked(level, **{unique[level]: values[level], keyword: ""}), model)

    assert found.status == PENDING
    assert found.identifier is not None
    assert found.identifier[keyword].value == "again"


@pytest.mark.parametrize(
    ("level", "keyword"),
    [
        ("STUDY", "SliceThickness"),
        ("SERIES", "SliceThickness"),
        ("STUDY", "InstitutionAddress"),
        ("IMAGE", "PixelData"),
        ("IMAGE", "RedPaletteColorLookupTableData"),
        ("IMAGE", "StorageMediaFileSetUID"),
    ],
)
def test_key_that_is_none_of_the_level_is_absent_and_said_to_be_unsupported(
    service: RunningArchive, level: str, keyword: str
) -> None:
    # PS3.4 C.2.2.1.3, C.4.1.1.4: an Attribute of one instance says nothing of the study
    deposit(service.archive, _instance(1, SliceThickness="1", InstitutionAddress="here"))

    query = _asked(level)
    vr = "OW" if keyword == "PixelData" else dictionary_VR(keyword)
    _add(query, Tag(keyword), vr, None)

    found = _one(service, query, NOT_SUPPORTED)

    assert keyword not in found


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (0x00280106, "SS", -9),
        (0x00280009, "AT", 0x00181063),
        (0x0020FFF0, "LO", "unknown Attribute"),
        (0x00291001, "LO", "private"),
    ],
)
def test_value_of_a_key_that_cannot_be_matched_does_not_filter_and_is_said_to_be_unsupported(
    service: RunningArchive, tag: int, vr: str, value: object
) -> None:
    # PS3.4 C.2.2.1.3: supported for existence and not for matching, so processed as universal
    deposit(service.archive, _instance(1))
    query = _asked("IMAGE")
    _add(query, 0x00290010, "LO", CREATOR)
    _add(query, tag, vr, value)

    assert tag in _one(service, query, NOT_SUPPORTED)


def _private(number: int, block: int, creator: str, value: str) -> Dataset:
    stored = _instance(number)
    _add(stored, 0x00290010 + block - 0x10, "LO", creator)
    _add(stored, 0x00290000 | block << 8 | 0x01, "LO", value)
    _add(stored, 0x00290000 | block << 8 | 0x02, "UN", b"\x01\x02")
    return stored


@pytest.mark.parametrize("block", [0x10, 0x11, 0xFF])
def test_private_key_is_found_in_whatever_block_its_creator_has(
    service: RunningArchive, block: int
) -> None:
    # PS3.5 7.8.1
    stored = _private(1, block, CREATOR, "secret")
    if block != 0x10:
        _add(stored, 0x00290010, "LO", OTHER_CREATOR)
        _add(stored, 0x00291001, "LO", "not this")
    deposit(service.archive, stored)
    query = _asked("IMAGE")
    _add(query, 0x00290010, "LO", CREATOR)
    _add(query, 0x00291001, "LO", None)
    _add(query, 0x00291002, "UN", None)
    _add(query, 0x00291003, "UN", None)

    found = _one(service, query)

    assert found[0x00290010].value == CREATOR
    assert found[0x00291001].value == "secret"
    assert found[0x00291002].value == b"\x01\x02"
    assert found[0x00291003].is_empty


def test_private_key_of_a_creator_that_the_instance_lacks_is_empty(
    service: RunningArchive,
) -> None:
    deposit(service.archive, _private(1, 0x10, OTHER_CREATOR, "not this"))
    query = _asked("IMAGE")
    _add(query, 0x00290010, "LO", CREATOR)
    _add(query, 0x00291001, "LO", None)

    assert _one(service, query)[0x00291001].is_empty


@pytest.mark.parametrize("level", ["IMAGE", "STUDY"])
def test_private_key_without_creator_or_above_image_level_is_unsupported(
    service: RunningArchive, level: str
) -> None:
    deposit(service.archive, _private(1, 0x10, CREATOR, "secret"))
    query = _asked(level)
    if level == "STUDY":
        _add(query, 0x00290010, "LO", CREATOR)
    _add(query, 0x00291001, "LO", None)

    assert 0x00291001 not in _one(service, query, NOT_SUPPORTED)


def _item(**keywords: object) -> Dataset:
    item = Dataset()
    for keyword, value in keywords.items():
        setattr(item, keyword, value)
    return item


def test_sequence_is_returned_whole_or_by_the_keys_of_its_item(service: RunningArchive) -> None:
    code = _item(CodeValue="T-1", CodingSchemeDesignator="SRT", CodeMeaning="Lunge")
    inner = _item(SpecificCharacterSet="ISO_IR 144", CodeValue="T-2", CodeMeaning="Люк")
    code.ContextIdentifier = "4"
    code.EquivalentCodeSequence = [inner]
    deposit(service.archive, _instance(1, AnatomicRegionSequence=[code, _item(CodeValue="T-3")]))
    wanted = _item(CodeValue="", EquivalentCodeSequence=[_item(CodeMeaning="")])

    whole = _one(service, _asked("IMAGE", AnatomicRegionSequence=None))
    part = _one(service, _asked("IMAGE", AnatomicRegionSequence=[wanted]))

    first, second = whole.AnatomicRegionSequence
    assert first.CodeMeaning == "Lunge"
    assert first.EquivalentCodeSequence[0].CodeMeaning == "Люк"
    assert (
        whole.SpecificCharacterSet == "ISO_IR 192"
    )  # that of the Item is not that of the response
    assert second.CodeValue == "T-3"
    first, second = part.AnatomicRegionSequence
    assert [element.keyword for element in first] == ["CodeValue", "EquivalentCodeSequence"]
    assert first.EquivalentCodeSequence[0].CodeMeaning == "Люк"
    assert second.EquivalentCodeSequence == Sequence()


def test_text_is_returned_in_the_character_set_of_the_request(service: RunningArchive) -> None:
    deposit(
        service.archive,
        _instance(1, SpecificCharacterSet="ISO_IR 192", DerivationDescription="Διο"),
    )
    keys = {"DerivationDescription": ""}

    found = _one(service, _asked("IMAGE", SpecificCharacterSet="ISO_IR 126", **keys))

    assert found.SpecificCharacterSet == "ISO_IR 126"
    assert found.DerivationDescription == "Διο"


def test_value_that_is_too_large_is_left_out_of_its_match_only(service: RunningArchive) -> None:
    large = _instance(1, TextValue="x" * 70_000)
    deposit(service.archive, large, _instance(2, TextValue="small"))

    by_uid = {
        one.identifier.SOPInstanceUID: one
        for one in _find(service, _asked("IMAGE", TextValue="", SOPInstanceUID=""))
        if one.identifier is not None
    }

    refused, returned = by_uid[f"{SERIES}.1"], by_uid[f"{SERIES}.2"]
    assert refused.status == NOT_SUPPORTED
    assert "TextValue" not in (refused.identifier or ())
    assert returned.status == PENDING
    assert returned.identifier is not None
    assert returned.identifier.TextValue == "small"


@pytest.mark.parametrize("damage", ["missing", "garbage", "cut"])
def test_match_whose_file_cannot_be_read_is_answered_without_header_and_logged_once(
    service: RunningArchive, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    deposit(service.archive, *(_instance(number, SliceThickness="1") for number in (1, 2, 3)))
    for number in (1, 2):
        _damage(service, f"{SERIES}.{number}", damage)

    with caplog.at_level(logging.WARNING, "pacs.archive.find"):
        found = _find(service, _asked("IMAGE", SliceThickness="", InstanceNumber=""))

    statuses = {str(one.identifier.InstanceNumber): one.status for one in found if one.identifier}
    assert statuses == {"1": NOT_SUPPORTED, "2": NOT_SUPPORTED, "3": PENDING}
    assert len([one for one in caplog.records if one.name == "pacs.archive.find"]) == 2


def _damage(service: RunningArchive, uid: str, damage: str) -> None:
    stored = service.archive.index.find_by_uid(uid)
    assert stored is not None
    path = settled_file(service.archive, uid)
    content = path.read_bytes()
    path.unlink()
    if damage == "garbage":
        path.write_bytes(content[: stored.data_set_offset] + b"\xfe\xff\xdd\xe0" * 100)
    elif damage == "cut":
        path.write_bytes(content[: stored.data_set_offset + 13])


def test_files_are_read_one_for_each_match_when_it_is_its_turn(service: RunningArchive) -> None:
    # What is streamed can be cancelled between rows (PS3.4 C.4.1.1.4) and needs no memory for the rest.
    deposit(service.archive, *(_instance(number, SliceThickness="1") for number in range(1, 6)))
    query = parse_find(_asked("IMAGE", SliceThickness=""), InformationModel.STUDY_ROOT)
    found = find(service.archive, query)

    first = next(found)
    for number in range(1, 6):
        _damage(service, f"{SERIES}.{number}", "missing")
    others = list(found)

    assert first.is_complete
    assert not any(one.is_complete for one in others)


def test_implicit_vr_private_value_of_unknown_vr_is_returned_as_it_is(
    service: RunningArchive,
) -> None:
    deposit(
        service.archive,
        _private(1, 0x10, CREATOR, "secret"),
        transfer_syntax_uid=ImplicitVRLittleEndian,
    )
    query = _asked("IMAGE")
    _add(query, 0x00290010, "LO", CREATOR)
    _add(query, 0x00291001, "LO", None)

    assert _one(service, query)[0x00291001].value == b"secret"


def test_private_key_of_an_implicit_vr_request_is_understood(service: RunningArchive) -> None:
    deposit(service.archive, _private(1, 0x11, CREATOR, "secret"))
    query = _asked("IMAGE")
    _add(query, 0x00290010, "LO", CREATOR)
    _add(query, 0x00291001, "LO", None)

    context = build_context(STUDY_ROOT_FIND, ImplicitVRLittleEndian)
    with association(service, context) as assoc:
        pending, final = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))

    assert (pending.status, final.status) == (PENDING, 0x0000)
    assert pending.identifier is not None
    assert pending.identifier[0x00291001].value == b"secret"
