"""The level of an Attribute is that of the Entity whose modules have it (PS3.3 A.1)."""

from __future__ import annotations

import pytest
from pydicom.datadict import tag_for_keyword

from pacs.dicom.levels import Level
from pacs.dicom.query.header_keys import _ALSO_OF_IMAGES, _KEYWORDS, level_of, may_be_key_of

_MODULES = {
    "SC Equipment": "ConversionType SecondaryCaptureDeviceID SecondaryCaptureDeviceSoftwareVersions",
    "General Equipment": "InstitutionAddress GantryID UDISequence PixelPaddingValue SpatialResolution",
    "VL Photographic Equipment": "CameraOwnerName LensMake LensSerialNumber",
    "General Series": "SeriesDescriptionCodeSequence SmallestPixelValueInSeries TreatmentSessionUID",
    "CR Series": "ViewPosition PlateType PhosphorType CollimatorGridName FocalSpots FilterType",
    "DX Series, Mammography Series": "PresentationIntentType",
    "PET Series": "Units CountsSource SeriesType DecayCorrection AttenuationCorrectionMethod SUVType",
    "PET Isotope": "RadiopharmaceuticalInformationSequence InterventionDrugInformationSequence",
    "PET Multi-gated Acquisition": "BeatRejectionFlag PVCRejection SkipBeats HeartRate",
    "NM/PET Patient Orientation": "PatientOrientationCodeSequence",
    "MR Series, SR Document Series": "ReferencedPerformedProcedureStepSequence",
    "Enhanced US Series": "PerformedProtocolCodeSequence PerformedProtocolType",
    "Clinical Trial Series": "ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID",
    "Synchronization": "SynchronizationTrigger AcquisitionTimeSynchronized",
    "Ultrasound Frame of Reference": "VolumeFrameOfReferenceUID ApexPosition",
}


def tag_of(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return tag


@pytest.mark.parametrize("module", _MODULES)
def test_level_of_series_and_equipment_modules_is_series(module: str) -> None:
    for keyword in _MODULES[module].split():
        assert level_of(tag_of(keyword)) is Level.SERIES, keyword


def test_no_attribute_is_listed_at_two_levels() -> None:
    listed = [keyword for keywords in _KEYWORDS.values() for keyword in keywords.split()]

    assert len(set(listed)) == len(listed)


def test_what_images_have_too_is_asked_for_at_their_level_as_well() -> None:
    for keyword in _ALSO_OF_IMAGES.split():
        tag = tag_of(keyword)
        assert level_of(tag) is Level.SERIES, keyword
        assert may_be_key_of(tag, Level.IMAGE)
        assert may_be_key_of(tag, Level.SERIES)
    assert not may_be_key_of(tag_of("SecondaryCaptureDeviceID"), Level.IMAGE)
    assert may_be_key_of(tag_of("SliceThickness"), Level.IMAGE)
