"""What it costs a store to walk a data set to its end.

Processor time of the walk beyond the last indexed Attribute, as a share of that of spooling and storing the instance:
for a CT, and for multi-frames of 2,000 fragments, without and with functional groups of undefined length. The network
is left out, so the share of a C-STORE is smaller.

Run: ``python -m benchmarks.completeness``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from pacs.archive.archive import Archive
from pacs.archive.redo import Redo
from pacs.archive.store import store
from pacs.dicom.attributes import ATTRIBUTES
from pacs.dicom.encoding.completeness import read_whole
from pacs.dicom.encoding.data_set_reader import data_set_reader
from pacs.dicom.encoding.part10 import read_file_meta
from pacs.index.index import Index
from pacs.model.instances import Origin
from pacs.storage.base import Spooled
from pacs.storage.filesystem import FilesystemStorage

T = TypeVar("T")

_TAGS = frozenset(attribute.tag for attribute in ATTRIBUTES if attribute.is_stored)
_CT_BYTES = 512 * 512 * 2
_FRAMES = 2_000
_FRAME_BYTES = 20_000
_ROUNDS = 5


def main() -> None:
    """Print a line for each kind of instance."""
    for name, instance, count in (
        ("CT", _image(), 50),
        (f"{_FRAMES} fragments", _multi_frame(), 3),
        (f"{_FRAMES} fragments, functional groups", _multi_frame(groups=True), 3),
    ):
        files = [_file(instance) for _ in range(count)]
        with tempfile.TemporaryDirectory() as directory:
            walked, stored = _measure(Path(directory), files)
        size = len(files[0]) / 1e6
        print(
            f"{name}: {size:.2f} MB, walk {walked * 1e6:.0f} us of {stored * 1e6:.0f} us: {walked / stored:.1%}"
        )


def _measure(directory: Path, files: list[bytes]) -> tuple[float, float]:
    storage = FilesystemStorage(directory / "storage")
    index = Index.open(f"sqlite:///{directory / 'index.sqlite'}", upgrade=True)
    archive = Archive(storage, index, Redo(storage, index))
    walked, stored = [], []
    for _ in range(_ROUNDS):
        spooled = [_spool(archive, data) for data in files]
        walked.append(
            _seconds(lambda one: _read(one, whole=True), spooled)
            - _seconds(lambda one: _read(one, whole=False), spooled)
        )
        for one in spooled:
            storage.spool.discard(one)
        stored.append(_seconds(lambda data: _store(archive, data), files))
        for location in [file.location for file in storage.files()]:
            storage.remove(location)
    archive.redo.close()
    storage.spool.close()
    index.close()
    return min(walked) / len(files), min(stored) / len(files)


def _seconds(act: Callable[[T], object], each: list[T]) -> float:
    started = time.process_time()
    for one in each:
        act(one)
    return time.process_time() - started


def _spool(archive: Archive, data: bytes) -> Spooled:
    offset = read_file_meta(BytesIO(data)).data_set_offset
    with archive.storage.spool.create(data[:offset]) as writer:
        # As much at a time as a peer with large PDUs sends.
        for begin in range(offset, len(data), 1 << 16):
            writer.write(memoryview(data)[begin : begin + (1 << 16)])
        return writer.finish()


def _store(archive: Archive, data: bytes) -> None:
    spooled = _spool(archive, data)
    store(archive, spooled, Origin("BENCH", read_file_meta(BytesIO(data)).transfer_syntax_uid))


def _read(spooled: Spooled, *, whole: bool) -> None:
    with spooled.open() as stream:
        if whole:
            read_whole(stream, ExplicitVRLittleEndian, spooled.data_set_offset, _TAGS)
        else:
            reader, encoding = data_set_reader(
                stream, ExplicitVRLittleEndian, spooled.data_set_offset
            )
            reader.wanted(encoding, _TAGS, max(_TAGS))


def _image() -> Dataset:
    instance = Dataset()
    instance.SOPClassUID = CTImageStorage
    instance.StudyInstanceUID, instance.SeriesInstanceUID = generate_uid(), generate_uid()
    instance.PatientID, instance.PatientName, instance.Modality = "P1", "Doe^Jane", "CT"
    instance.Rows = instance.Columns = 512
    for number in range(100):
        # As many as scanners write, private ones among them.
        instance.add_new(0x00090010 if not number else 0x00091000 + number, "LO", "a value")
    instance.PixelData = bytes(_CT_BYTES)
    instance["PixelData"].VR = "OW"
    return instance


def _multi_frame(*, groups: bool = False) -> Dataset:
    instance = _image()
    instance.NumberOfFrames = _FRAMES
    if groups:
        instance.PerFrameFunctionalGroupsSequence = [_group(frame) for frame in range(_FRAMES)]
    instance.PixelData = encapsulate([bytes(_FRAME_BYTES)] * _FRAMES)
    instance["PixelData"].VR = "OB"
    instance["PixelData"].is_undefined_length = True
    return instance


def _group(frame: int) -> Dataset:
    group = Dataset()
    for keyword in ("FrameContentSequence", "PlanePositionSequence", "PixelMeasuresSequence"):
        item = Dataset()
        item.InStackPositionNumber, item.TemporalPositionIndex = frame, 1
        item.ImagePositionPatient, item.SliceThickness = [0, 0, frame], 1
        item.is_undefined_length_sequence_item = True
        setattr(group, keyword, [item])
        group[keyword].is_undefined_length = True
    group.is_undefined_length_sequence_item = True
    return group


def _file(instance: Dataset) -> bytes:
    instance.SOPInstanceUID = generate_uid()
    meta = instance.file_meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = instance.SOPClassUID
    meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    is_multi_frame = "NumberOfFrames" in instance
    meta.TransferSyntaxUID = JPEG2000Lossless if is_multi_frame else ExplicitVRLittleEndian
    if "PerFrameFunctionalGroupsSequence" in instance:
        instance["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    buffer = BytesIO()
    dcmwrite(buffer, instance, enforce_file_format=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
