"""DICOMDIRs and the media they belong to (PS3.10 8), without a tool that would tidy them up."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from tests.factories import make_instance, part10


def make_record(file_id: Sequence[str] | None, *, in_use: bool = True) -> Dataset:
    """A directory record that names this file, or none."""
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = 0
    record.RecordInUseFlag = 0xFFFF if in_use else 0
    record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.DirectoryRecordType = "PATIENT" if file_id is None else "IMAGE"
    if file_id is not None:
        record.ReferencedFileID = list(file_id)
    record.PatientName = "Doe^Jane"
    return record


def make_dicomdir(
    records: Sequence[Dataset],
    transfer_syntax: str = ExplicitVRLittleEndian,
    *,
    undefined_sequence: bool = False,
    undefined_items: bool = False,
) -> bytes:
    """A DICOMDIR with these records, all offsets zero."""
    data_set = Dataset()
    data_set.FileSetID = "TEST"
    data_set.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    data_set.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    data_set.FileSetConsistencyFlag = 0
    for record in records:
        record.is_undefined_length_sequence_item = undefined_items
    data_set.DirectoryRecordSequence = list(records)
    data_set["DirectoryRecordSequence"].is_undefined_length = undefined_sequence
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data_set.file_meta.TransferSyntaxUID = transfer_syntax
    file = BytesIO()
    dcmwrite(file, data_set, enforce_file_format=True)
    return file.getvalue()


def make_medium(folder: Path, count: int = 3) -> Path:
    """A medium with so many instances in two folders; returns its DICOMDIR."""
    records = [make_record(None)]
    for number in range(count):
        file_id = ("IMAGES", f"S{number % 2}", f"IM{number}")
        path = folder.joinpath(*file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part10(make_instance(InstanceNumber=number)))
        records.append(make_record(file_id))
    dicomdir = folder / "DICOMDIR"
    dicomdir.write_bytes(make_dicomdir(records))
    return dicomdir
