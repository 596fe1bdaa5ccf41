"""Keys outside the attribute table: they are answered from the stored header (PS3.4 C.2.2.1.3).

Tables C.6-1 to C.6-4 have all other Attributes of a level as optional keys of that level; ``header_matching`` says
which of them are supported for matching too. Which level an Attribute has is that of the Information Entity whose
modules have it (PS3.3 C.7): the lists below; every Attribute that is in none of them, and every private one, belongs
to IMAGE level. So nothing is said of a study that is true of one of its instances only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacs.dicom.encoding.plain_values import (
    MAXIMUM_DEPTH,
    SPECIFIC_CHARACTER_SET,
    Element,
    character_set_terms,
    dictionary_facts,
    is_empty,
    items_of,
    normalised,
    text_of_bytes,
    texts_of,
    vr_of,
)
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.matching import UNIVERSAL, Match, SequenceMatch, is_universal
from pacs.dicom.text.character_sets import codecs_of

_KEYWORDS = {
    # Patient, Clinical Trial Subject (PS3.3 C.7.1); the demographics that PS3.4 Table C.6-1 leaves to the
    # Patient entity of other Information Models occur in instances as well.
    Level.PATIENT: (
        "IssuerOfPatientIDQualifiersSequence TypeOfPatientID OtherPatientIDsSequence "
        "PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar "
        "PatientAlternativeCalendar ReferencedPatientPhotoSequence QualityControlSubject "
        "ReferencedPatientSequence PatientSpeciesDescription PatientSpeciesCodeSequence "
        "PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence StrainDescription "
        "StrainNomenclature StrainCodeSequence StrainAdditionalInformation StrainStockSequence "
        "GeneticModificationsSequence ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization "
        "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence "
        "SourcePatientGroupIdentificationSequence GroupOfPatientsIdentificationSequence "
        "PatientBirthName PatientMotherBirthName PatientAddress PatientTelephoneNumbers MilitaryRank "
        "BranchOfService CountryOfResidence RegionOfResidence PatientReligiousPreference "
        "PatientPrimaryLanguageCodeSequence PatientInsurancePlanCodeSequence EthnicGroupCodeSequence "
        "ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID "
        "ClinicalTrialSiteName ClinicalTrialSubjectID ClinicalTrialSubjectReadingID "
        "ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber "
        "IssuerOfClinicalTrialProtocolID OtherClinicalTrialProtocolIDsSequence IssuerOfClinicalTrialSiteID "
        "IssuerOfClinicalTrialSubjectID IssuerOfClinicalTrialSubjectReadingID"
    ),
    # General Study, Patient Study, Clinical Trial Study (PS3.3 C.7.2)
    Level.STUDY: (
        "ReferringPhysicianIdentificationSequence ConsultingPhysicianName "
        "ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence PhysiciansOfRecord "
        "PhysiciansOfRecordIdentificationSequence PhysiciansReadingStudyIdentificationSequence "
        "RequestingService RequestingServiceCodeSequence RequestingPhysicianIdentificationSequence "
        "ReferencedStudySequence ReasonForPerformedProcedureCodeSequence RequestedProcedureCodeSequence "
        "AdmittingDiagnosesCodeSequence PatientSizeCodeSequence PatientBodyMassIndex MeasuredAPDimension "
        "MeasuredLateralDimension MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate "
        "PatientState PatientSexNeutered AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID "
        "IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription ReasonForVisit "
        "ReasonForVisitCodeSequence ClinicalTrialTimePointID ClinicalTrialTimePointDescription "
        "ClinicalTrialTimePointTypeCodeSequence LongitudinalTemporalOffsetFromEvent "
        "LongitudinalTemporalEventType ConsentForClinicalTrialUseSequence IssuerOfClinicalTrialTimePointID"
    ),
    # Every module of the Series, Frame of Reference and Equipment Entities (PS3.3 A.1), by the clause of the first.
    Level.SERIES: (
        # General Series, Clinical Trial Series (PS3.3 C.7.3); Key Object Document, SR Document, Encapsulated Document,
        # RT, MR, Enhanced Series and most others have no more than these
        "SeriesDescriptionCodeSequence PerformingPhysicianIdentificationSequence "
        "OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence RelatedSeriesSequence "
        "PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProtocolCodeSequence "
        "CommentsOnThePerformedProcedureStep TreatmentSessionUID AnatomicalOrientationType "
        "SmallestPixelValueInSeries LargestPixelValueInSeries ClinicalTrialCoordinatingCenterName "
        "ClinicalTrialSeriesID IssuerOfClinicalTrialSeriesID ClinicalTrialSeriesDescription "
        # Frame of Reference, Synchronization, Ultrasound Frame of Reference (PS3.3 C.7.4, C.8.24.2)
        "PositionReferenceIndicator SynchronizationFrameOfReferenceUID SynchronizationTrigger "
        "TriggerSourceOrType SynchronizationChannel AcquisitionTimeSynchronized TimeSource "
        "TimeDistributionProtocol NTPSourceAddress UltrasoundAcquisitionGeometry ApexPosition "
        "VolumeToTransducerRelationship VolumeToTransducerMappingMatrix VolumeToTableMappingMatrix "
        "VolumeFrameOfReferenceUID PatientFrameOfReferenceSource TableFrameOfReferenceUID "
        # General and Enhanced General Equipment (PS3.3 C.7.5)
        "InstitutionAddress InstitutionalDepartmentTypeCodeSequence SpatialResolution "
        "DateOfLastCalibration TimeOfLastCalibration DateOfManufacture DateOfInstallation GantryID "
        "UDISequence ManufacturerDeviceClassUID DeviceUID PixelPaddingValue "
        # SC Equipment, VL Photographic Equipment (PS3.3 C.8.6.1, C.8.12.12)
        "ConversionType SecondaryCaptureDeviceID SecondaryCaptureDeviceManufacturer "
        "SecondaryCaptureDeviceManufacturerModelName SecondaryCaptureDeviceSoftwareVersions "
        "VideoImageFormatAcquired DigitalImageFormatAcquired CameraOwnerName LensSpecification LensMake "
        "LensModel LensSerialNumber "
        # CR, DX and Mammography Series (PS3.3 C.8.1.1, C.8.11.1, C.8.11.6)
        "ViewPosition FilterType CollimatorGridName FocalSpots PlateType PhosphorType "
        "PresentationIntentType "
        # PET Series, PET Isotope, PET Multi-gated Acquisition, NM/PET Patient Orientation (PS3.3 C.8.9, C.8.4.6)
        "Units CountsSource SeriesType ReprojectionMethod NumberOfRRIntervals NumberOfTimeSlots "
        "NumberOfTimeSlices NumberOfSlices CorrectedImage RandomsCorrectionMethod "
        "AttenuationCorrectionMethod ScatterCorrectionMethod DecayCorrection ReconstructionDiameter "
        "ConvolutionKernel ReconstructionMethod DetectorLinesOfResponseUsed AcquisitionStartCondition "
        "AcquisitionStartConditionData AcquisitionTerminationCondition "
        "AcquisitionTerminationConditionData FieldOfViewShape FieldOfViewDimensions GantryDetectorTilt "
        "GantryDetectorSlew TypeOfDetectorMotion CollimatorType AxialAcceptance AxialMash TransverseMash "
        "DetectorElementSize CoincidenceWindowWidth EnergyWindowRangeSequence SecondaryCountsType "
        "ScanProgressionDirection SUVType RadiopharmaceuticalInformationSequence "
        "InterventionDrugInformationSequence BeatRejectionFlag PVCRejection SkipBeats HeartRate "
        "CardiacFramingType PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence "
        # Enhanced US Series, Optical Surface Scanner Series (PS3.3 C.8.24.1, C.8.29.1)
        "PerformedProtocolType ReferencedSurfaceDataSequence"
    ),
}
# Of those, what a module of images has as well (the filter of a CT image, the heart rate of an MR image): a series
# has it where its own modules do, and an image may be asked for by it.
_ALSO_OF_IMAGES = (
    "TriggerSourceOrType ConversionType ViewPosition FilterType FocalSpots CountsSource NumberOfRRIntervals "
    "NumberOfTimeSlots NumberOfSlices CorrectedImage RandomsCorrectionMethod ScatterCorrectionMethod "
    "ReconstructionDiameter ConvolutionKernel AcquisitionStartCondition AcquisitionTerminationCondition "
    "FieldOfViewShape FieldOfViewDimensions GantryDetectorTilt TypeOfDetectorMotion CollimatorType "
    "CoincidenceWindowWidth EnergyWindowRangeSequence ScanProgressionDirection "
    "RadiopharmaceuticalInformationSequence InterventionDrugInformationSequence BeatRejectionFlag "
    "PVCRejection SkipBeats HeartRate CardiacFramingType PatientOrientationCodeSequence "
    "PatientGantryRelationshipCodeSequence TreatmentSessionUID"
)


def _tags(keywords: str) -> list[int]:
    # A dictionary that is older than an Attribute does not know it.
    return [tag for tag in map(tag_for_keyword, keywords.split()) if tag is not None]


_LEVELS: dict[int, Level] = {
    tag: level for level, keywords in _KEYWORDS.items() for tag in _tags(keywords)
}
_IMAGE_TAGS = frozenset(_tags(_ALSO_OF_IMAGES))
# Command, File Meta Information, DICOMDIR before; Pixel Data and what only encodings have behind.
_FIRST_GROUP, _PIXEL_DATA_GROUP = 0x0008, 0x7FE0
_BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """One Attribute to return from the stored header."""

    tag: int
    vr: str
    #: Of a private Attribute: who reserved its block, which may be another block in the instance (PS3.5 7.8.1).
    creator: str = ""
    #: What to return of each Item; empty for all of it.
    items: tuple[HeaderKey, ...] = ()
    #: What restricts the matches, and of a sequence which Items are returned.
    match: Match = UNIVERSAL

    @property
    def is_creator(self) -> bool:
        """Whether this is a Private Creator, which the request itself has the value of."""
        return is_private_creator(self.tag)

    @property
    def is_condition(self) -> bool:
        """Whether it restricts the matches."""
        return not is_universal(self.match)


def level_of(tag: int) -> Level:
    """The level that an Attribute outside the attribute table is a key of."""
    return _LEVELS.get(tag, Level.IMAGE)


def may_be_key_of(tag: int, level: Level) -> bool:
    """Whether an Attribute outside the attribute table is one of entities of ``level``, and not of those above only."""
    return level_of(tag) >= level or (level is Level.IMAGE and tag in _IMAGE_TAGS)


def header_keys(
    identifier: Dataset,
    tags: Sequence[int],
    model: InformationModel,
    level: Level,
    matches: Mapping[int, Match],
) -> tuple[tuple[HeaderKey, ...], tuple[int, ...]]:
    """The keys among ``tags`` that the header answers, and the tags that are unsupported in some way.

    ``matches`` has those that are matched. Another key with a value is both: it is returned, and its value is
    ignored, as a key that is supported for existence but not for matching (PS3.4 C.2.2.1.3).
    """
    at_level = [tag for tag in tags if max(level_of(tag), model.levels[0]) <= level]
    keys, unsupported = _keys(identifier, at_level, (), MAXIMUM_DEPTH, matches)
    return keys, (*(tag for tag in tags if tag not in at_level), *unsupported)


def _keys(
    data_set: Dataset,
    tags: Sequence[int],
    codecs: Sequence[str],
    depth: int,
    matches: Mapping[int, Match],
) -> tuple[tuple[HeaderKey, ...], tuple[int, ...]]:
    if SPECIFIC_CHARACTER_SET in data_set or not codecs:
        codecs = codecs_of(character_set_terms(data_set))
    creators = _creators(data_set, tags, codecs)
    keys: list[HeaderKey] = []
    unsupported: list[int] = []
    for tag in tags:
        creator = creators.get(_block_of(tag), "")
        element = data_set.get_item(tag)
        if not _is_returned(tag, element, creator):
            unsupported.append(tag)
            continue
        items: tuple[HeaderKey, ...] = ()
        match = matches.get(tag)
        is_supported = match is not None or is_empty(element) or is_private_creator(tag)
        if vr_of(element) == "SQ" and not is_empty(element):
            items, is_supported = _item_keys(element, codecs, depth, match)
        keys.append(HeaderKey(tag, vr_of(element), creator, items, match or UNIVERSAL))
        if not is_supported:
            unsupported.append(tag)
    return tuple(keys), tuple(unsupported)


def _item_keys(
    element: Element, codecs: Sequence[str], depth: int, match: Match | None
) -> tuple[tuple[HeaderKey, ...], bool]:
    # The keys of the request's Item, and whether all of them can be answered as they are.
    items = items_of(element, codecs)
    if items is None or len(items) > 1 or not depth:
        return (), False
    keys: tuple[HeaderKey, ...] = ()
    unsupported: tuple[int, ...] = ()
    matches = {tag: one for tag, _, one in match.keys} if isinstance(match, SequenceMatch) else {}
    for item in items:
        tags = [
            int(tag) for tag in sorted(item.keys()) if tag.element and tag != SPECIFIC_CHARACTER_SET
        ]
        keys, unsupported = _keys(item, tags, codecs, depth - 1, matches)
    return keys, not unsupported


def _creators(
    data_set: Dataset, tags: Sequence[int], codecs: Sequence[str]
) -> dict[tuple[int, int], str]:
    texts = {
        tag: creator_of(data_set.get_item(tag), codecs) for tag in tags if is_private_creator(tag)
    }
    return {_block_of(tag): text for tag, text in texts.items() if text}


def creator_of(element: Element, codecs: Sequence[str]) -> str:
    """The value of a Private Creator; its VR is LO also where the encoding does not say so."""
    if isinstance(element.value, bytes):
        return normalised("LO", text_of_bytes(element.value, "LO", codecs))
    return next(iter(texts_of(element, codecs)), "")


def _is_returned(tag: int, element: Element, creator: str) -> bool:
    if tag >> 16 < _FIRST_GROUP or tag >> 16 >= _PIXEL_DATA_GROUP:
        return False
    if BaseTag(tag).is_private:
        return bool(creator)
    facts = dictionary_facts(tag)
    return (facts[0] if facts else str(element.VR)) not in _BULK_VRS


def is_private_creator(tag: int) -> bool:
    """Whether an element reserves a block of private elements (PS3.5 7.8.1)."""
    return BaseTag(tag).is_private and 0x10 <= tag & 0xFFFF <= 0xFF


def _block_of(tag: int) -> tuple[int, int]:
    number = tag & 0xFFFF
    return tag >> 16, number if number <= 0xFF else number >> 8
