"""The attribute table against the Query/Retrieve tables of the Standard, written out by hand."""

from __future__ import annotations

import re

import pytest
from pydicom.datadict import dictionary_VR

from pacs.dicom.attributes import (
    ATTRIBUTES,
    BY_KEYWORD,
    BY_TAG,
    Attribute,
    KeyType,
    at_level,
    stored_at,
)
from pacs.dicom.levels import Level

# PS3.4 Tables C.6-1 (Patient), C.6-2 (Study), C.6-3 (Series), C.6-4 (Composite Object Instance).
_UNIQUE_AND_REQUIRED = {
    Level.PATIENT: {"PatientID": (0x00100020, "LO", "U"), "PatientName": (0x00100010, "PN", "R")},
    Level.STUDY: {
        "StudyInstanceUID": (0x0020000D, "UI", "U"),
        "StudyDate": (0x00080020, "DA", "R"),
        "StudyTime": (0x00080030, "TM", "R"),
        "AccessionNumber": (0x00080050, "SH", "R"),
        "StudyID": (0x00200010, "SH", "R"),
    },
    Level.SERIES: {
        "SeriesInstanceUID": (0x0020000E, "UI", "U"),
        "Modality": (0x00080060, "CS", "R"),
        "SeriesNumber": (0x00200011, "IS", "R"),
    },
    Level.IMAGE: {
        "SOPInstanceUID": (0x00080018, "UI", "U"),
        "InstanceNumber": (0x00200013, "IS", "R"),
    },
}

# The optional keys of the same tables that the archive promises, with their computed ones.
_OPTIONAL = {
    Level.PATIENT: """IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex OtherPatientNames
        OtherPatientIDs EthnicGroup PatientComments NumberOfPatientRelatedStudies
        NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances""",
    Level.STUDY: """ReferringPhysicianName StudyDescription ProcedureCodeSequence
        NameOfPhysiciansReadingStudy AdmittingDiagnosesDescription PatientAge PatientSize PatientWeight
        Occupation AdditionalPatientHistory NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
        ModalitiesInStudy SOPClassesInStudy""",
    Level.SERIES: "NumberOfSeriesRelatedInstances",
    Level.IMAGE: "SOPClassUID AvailableTransferSyntaxUID ConceptNameCodeSequence",
}

_COMPUTED = {
    "NumberOfPatientRelatedStudies",
    "NumberOfPatientRelatedSeries",
    "NumberOfPatientRelatedInstances",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
    "NumberOfSeriesRelatedInstances",
    "ModalitiesInStudy",
    "SOPClassesInStudy",
    "AvailableTransferSyntaxUID",
}


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name)
def test_attributes_unique_and_required_keys_are_those_of_the_standard(level: Level) -> None:
    found = {
        one.keyword: (one.tag, one.vr, one.key_type.value)
        for one in at_level(level)
        if one.key_type is not KeyType.OPTIONAL
    }

    assert found == _UNIQUE_AND_REQUIRED[level]


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name)
def test_attributes_optional_keys_promised_are_at_their_level(level: Level) -> None:
    optional = {one.keyword for one in at_level(level) if one.key_type is KeyType.OPTIONAL}

    assert set(_OPTIONAL[level].split()) <= optional


def test_attributes_unique_key_of_each_level_is_the_one_in_levels() -> None:
    unique = {one.level: one.keyword for one in ATTRIBUTES if one.key_type is KeyType.UNIQUE}

    assert unique == {level: level.unique_key for level in Level}


def test_attributes_computed_ones_have_no_column() -> None:
    assert {one.keyword for one in ATTRIBUTES if not one.is_stored} == _COMPUTED
    assert not any(one.keyword in _COMPUTED for level in Level for one in stored_at(level))


def test_attributes_keywords_tags_and_columns_are_unique() -> None:
    columns = [name for one in ATTRIBUTES for name in (one.column, *one.shadow_columns)]

    assert len(BY_KEYWORD) == len(BY_TAG) == len(ATTRIBUTES)
    assert len(set(columns)) == len(columns)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{1,62}", name) for name in columns)


def test_attributes_vr_is_the_one_of_the_dictionary() -> None:
    assert all(one.vr in dictionary_VR(one.tag) for one in ATTRIBUTES)


@pytest.mark.parametrize(
    ("keyword", "column"),
    [
        ("StudyInstanceUID", "study_instance_uid"),
        ("SOPClassesInStudy", "sop_classes_in_study"),
        ("OtherPatientIDs", "other_patient_ids"),
        ("NameOfPhysiciansReadingStudy", "name_of_physicians_reading_study"),
        ("AcquisitionDateTime", "acquisition_date_time"),
    ],
)
def test_attribute_column_is_the_keyword_in_snake_case(keyword: str, column: str) -> None:
    assert Attribute(keyword, Level.STUDY, KeyType.OPTIONAL).column == column


@pytest.mark.parametrize(
    ("keyword", "suffixes"),
    [
        ("PatientName", ("alphabetic", "ideographic", "phonetic", "codes")),
        ("StudyTime", ("canonical",)),
        ("AcquisitionDateTime", ("canonical",)),
        ("StudyDate", ()),
    ],
)
def test_attribute_shadow_columns_follow_from_the_vr(
    keyword: str, suffixes: tuple[str, ...]
) -> None:
    attribute = BY_KEYWORD[keyword]

    assert attribute.shadow_columns == tuple(f"{attribute.column}_{one}" for one in suffixes)
