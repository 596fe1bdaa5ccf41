"""THE table: one row for each Attribute that the archive indexes or computes.

A row holds only what the Query/Retrieve tables of the Standard add to the data dictionary: the level, the
key type (PS3.4 Tables C.6-1 to C.6-5) and whether the value is stored or computed. Tag, VR and VM come
from pydicom's dictionary. Everything else (columns, what is read from a file, what an Identifier may
contain, what a response returns, the tables of docs/conformance.md) is derived from these rows.

Adding, moving or removing a row changes what is in the index: raise ``ATTRIBUTE_SET_VERSION`` and add a
migration; ``pacs reindex`` then fills the new column from the stored instances.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from pacs.dicom.levels import Level

ATTRIBUTE_SET_VERSION = 3


class KeyType(Enum):
    """How an SCP shall support a key (PS3.4 C.2.2.1)."""

    UNIQUE = "U"
    REQUIRED = "R"
    OPTIONAL = "O"


class Origin(Enum):
    """Where the value of an Attribute comes from."""

    STORED = "stored"
    COMPUTED = "computed"


@dataclass(frozen=True)
class Attribute:
    """One Attribute of the index."""

    keyword: str
    level: Level
    key_type: KeyType
    origin: Origin = Origin.STORED

    @cached_property
    def tag(self) -> int:
        """The tag as an integer, group in the upper 16 bits."""
        tag = tag_for_keyword(self.keyword)
        assert tag is not None, self.keyword
        return tag

    @cached_property
    def vr(self) -> str:
        """The value representation of the data dictionary; the first one where it offers several."""
        return dictionary_VR(self.tag).split(" or ")[0]

    @cached_property
    def is_multi_valued(self) -> bool:
        """Whether the value multiplicity may exceed one."""
        return dictionary_VM(self.tag) != "1"

    @cached_property
    def is_stored(self) -> bool:
        """Whether the value is read from the instance and kept in a column."""
        return self.origin is Origin.STORED

    @cached_property
    def column(self) -> str:
        """The name of the index column that holds the value."""
        return _snake_case(self.keyword)

    @cached_property
    def shadow_columns(self) -> tuple[str, ...]:
        """The names of the columns that hold the forms a match is made on; empty if the value itself is.

        PN: the folded component groups, matched separately, and the codes for fuzzy matching
        (``pacs.dicom.text.fuzzy_names``). TM and DT: the canonical, full-length form, whose text order is the order in
        time.
        """
        return tuple(f"{self.column}_{suffix}" for suffix in _SHADOW_SUFFIXES.get(self.vr, ()))


_SHADOW_SUFFIXES = {
    "PN": ("alphabetic", "ideographic", "phonetic", "codes"),
    "TM": ("canonical",),
    "DT": ("canonical",),
}


def _snake_case(keyword: str) -> str:
    # A run of capitals is one word; its last letter starts the next word if a small letter follows:
    # "StudyInstanceUID" -> study_instance_uid, "SOPClassUID" -> sop_class_uid. "IDs" is one word too.
    keyword = re.sub(r"IDs\b", "Ids", keyword)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword).lower()


def _rows(level: Level, key_type: KeyType, keywords: str, origin: Origin) -> list[Attribute]:
    return [Attribute(keyword, level, key_type, origin) for keyword in keywords.split()]


_U, _R, _O = KeyType.UNIQUE, KeyType.REQUIRED, KeyType.OPTIONAL
_S, _C = Origin.STORED, Origin.COMPUTED

ATTRIBUTES: tuple[Attribute, ...] = tuple(
    # PATIENT (PS3.4 Table C.6-1)
    _rows(Level.PATIENT, _U, "PatientID", _S)
    + _rows(Level.PATIENT, _R, "PatientName", _S)
    + _rows(
        Level.PATIENT,
        _O,
        "IssuerOfPatientID PatientBirthDate PatientBirthTime PatientSex OtherPatientNames OtherPatientIDs "
        "EthnicGroup PatientComments",
        _S,
    )
    + _rows(
        Level.PATIENT,
        _O,
        "NumberOfPatientRelatedStudies NumberOfPatientRelatedSeries NumberOfPatientRelatedInstances",
        _C,
    )
    # STUDY (PS3.4 Tables C.6-2 and C.6-5)
    + _rows(Level.STUDY, _U, "StudyInstanceUID", _S)
    + _rows(Level.STUDY, _R, "StudyDate StudyTime AccessionNumber StudyID", _S)
    + _rows(
        Level.STUDY,
        _O,
        "ReferringPhysicianName StudyDescription ProcedureCodeSequence NameOfPhysiciansReadingStudy "
        "AdmittingDiagnosesDescription RequestingPhysician RequestedProcedureDescription PatientAge "
        "PatientSize PatientWeight Occupation AdditionalPatientHistory",
        _S,
    )
    + _rows(
        Level.STUDY,
        _O,
        "ModalitiesInStudy SOPClassesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances",
        _C,
    )
    # SERIES (PS3.4 Table C.6-3)
    + _rows(Level.SERIES, _U, "SeriesInstanceUID", _S)
    + _rows(Level.SERIES, _R, "Modality SeriesNumber", _S)
    + _rows(
        Level.SERIES,
        _O,
        "SeriesDescription BodyPartExamined Laterality ProtocolName SeriesDate SeriesTime "
        "PerformingPhysicianName OperatorsName StationName InstitutionName InstitutionalDepartmentName "
        "Manufacturer ManufacturerModelName DeviceSerialNumber SoftwareVersions PatientPosition "
        "FrameOfReferenceUID PerformedProcedureStepID PerformedProcedureStepDescription "
        "PerformedProcedureStepStartDate PerformedProcedureStepStartTime RequestAttributesSequence",
        _S,
    )
    + _rows(Level.SERIES, _O, "NumberOfSeriesRelatedInstances", _C)
    # IMAGE (PS3.4 Table C.6-4)
    + _rows(Level.IMAGE, _U, "SOPInstanceUID", _S)
    + _rows(Level.IMAGE, _R, "InstanceNumber", _S)
    + _rows(
        Level.IMAGE,
        _O,
        "SOPClassUID ImageType AcquisitionNumber AcquisitionDate AcquisitionTime AcquisitionDateTime "
        "ContentDate ContentTime InstanceCreationDate InstanceCreationTime Rows Columns NumberOfFrames "
        "BitsAllocated PhotometricInterpretation SliceLocation ImageComments ContentLabel "
        "ContentDescription ContentCreatorName CompletionFlag VerificationFlag ConceptNameCodeSequence",
        _S,
    )
    + _rows(Level.IMAGE, _O, "AvailableTransferSyntaxUID", _C)
)

BY_KEYWORD: dict[str, Attribute] = {attribute.keyword: attribute for attribute in ATTRIBUTES}
BY_TAG: dict[int, Attribute] = {attribute.tag: attribute for attribute in ATTRIBUTES}


def at_level(level: Level) -> tuple[Attribute, ...]:
    """The Attributes of one level, in table order."""
    return tuple(attribute for attribute in ATTRIBUTES if attribute.level is level)


def stored_at(level: Level) -> tuple[Attribute, ...]:
    """The Attributes of one level that have a column, in table order."""
    return tuple(attribute for attribute in at_level(level) if attribute.is_stored)
