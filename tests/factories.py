"""Builders shared by the tests: valid by default, the test names only what matters to it."""

from __future__ import annotations

from io import BytesIO

from pydicom import config, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

_PIXELS = bytes(range(64))
_NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
}
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_DEFAULTS: dict[str, object] = {
    "SOPClassUID": CTImageStorage,
    "PatientName": "Doe^Jane",
    "PatientID": "P-1",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "StudyDate": "20240229",
    "StudyTime": "101530",
    "AccessionNumber": "A-1",
    "StudyID": "1",
    "ReferringPhysicianName": "",
    "Modality": "CT",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "Rows": 8,
    "Columns": 8,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "PixelRepresentation": 0,
}


def make_instance(**keywords: object) -> Dataset:
    """A small CT instance with File Meta Information; ``Keyword=None`` leaves an Attribute out.

    Values are not validated, so an instance can be made invalid in one respect. Study, Series and SOP
    Instance UID are new ones unless given.
    """
    uids = {name: generate_uid() for name in _UIDS}
    instance = Dataset()
    for keyword, value in (_DEFAULTS | uids | keywords).items():
        if value is not None:
            add(instance, keyword, value)
    instance.add(DataElement(Tag("PixelData"), "OB", _PIXELS))
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta.MediaStorageSOPClassUID = instance.get("SOPClassUID", CTImageStorage)
    instance.file_meta.MediaStorageSOPInstanceUID = instance.get("SOPInstanceUID", generate_uid())
    return instance


def add(data_set: Dataset, keyword: str, value: object) -> None:
    """Set an Attribute by keyword without validation."""
    tag = Tag(keyword)
    vr = dictionary_VR(tag).split(" or ")[0]
    data_set.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))


def part10(instance: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """The instance as a DICOM file (PS3.10) in a transfer syntax.

    In an encapsulated one the Pixel Data is one fragment of bytes that no codec made: enough for
    whatever moves instances without looking at their pixels.
    """
    # Not Dataset(instance), which shares its elements with the original.
    copy = Dataset()
    copy.update(instance)
    copy.file_meta = FileMetaDataset(instance.file_meta)
    copy.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    if transfer_syntax_uid not in _NATIVE and "PixelData" in copy:
        pixel_data = DataElement(Tag("PixelData"), "OB", encapsulate([instance.PixelData]))
        pixel_data.is_undefined_length = True
        copy[pixel_data.tag] = pixel_data
    file = BytesIO()
    dcmwrite(file, copy, enforce_file_format=True)
    return file.getvalue()
