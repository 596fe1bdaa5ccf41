"""The instances that travel: synthetic ones of 525 KB and 3 KB, one of 2 GiB, and real files of many kinds."""

from __future__ import annotations

import os
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom.data
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

_MULTI_FRAME_WORD_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"
#: 2 MiB a frame; 1,023 of them are 2 GiB less 2 MiB, which signed 32 bit lengths can just count.
_HUGE_SIDE, _HUGE_FRAMES = 1024, 1023
#: Each real file is sent so many times, under SOP Instance UIDs of its own.
_COPIES_OF_REAL_FILES = 8
_READ_BYTES = 1024 * 1024
#: Studies of one small instance, and how many of them a day has.
STUDIES, STUDIES_OF_A_DAY = 3000, 250


@dataclass(slots=True)
class Instances:
    """A folder of instances, and how many of them each series has."""

    folder: Path
    series: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: int = 0

    @property
    def files(self) -> list[Path]:
        """The files, in order."""
        return sorted(self.folder.iterdir())

    @property
    def count(self) -> int:
        """How many there are."""
        return self.series.total()

    @property
    def study(self) -> str:
        """The Study Instance UID of a set that is one study."""
        ((study, _),) = self.series
        return study

    def add(self, dataset: Dataset, path: Path) -> None:
        """Count a file that was written."""
        self.series[str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)] += 1
        self.bytes += path.stat().st_size


class Data:
    """The sets by name; each is made when it is first asked for."""

    def __init__(self, root: Path, scale: float) -> None:
        """Make them below ``root``, with ``scale`` times the usual number of instances."""
        self._root = root
        self._sets: dict[str, Instances] = {}
        self._makers: dict[str, Callable[[Instances], None]] = {
            "ct": lambda made: _one_series(made, _scaled(1000, scale), 512),
            "small": lambda made: _one_series(made, _scaled(2000, scale), 32),
            "small-few": lambda made: _one_series(made, _scaled(100, scale), 32),
            "studies": lambda made: _studies(made, _scaled(STUDIES, scale)),
            "new-studies": lambda made: _studies(made, _scaled(500, scale)),
            "small-series": lambda made: _many_series(made, _scaled(40, scale), 50),
            "move": lambda made: _one_series(made, _scaled(250, scale), 512),
            "mix": lambda made: _real_files(made, _COPIES_OF_REAL_FILES if scale >= 1 else 1),
            "huge": lambda made: _huge(made, _scaled(_HUGE_FRAMES, scale)),
        }

    def __getitem__(self, name: str) -> Instances:
        """The set called ``name``."""
        if name not in self._sets:
            made = Instances(self._root / name)
            made.folder.mkdir(parents=True)
            self._makers[name](made)
            _settle(made)
            self._sets[name] = made
        return self._sets[name]


def _settle(made: Instances) -> None:
    """Read everything once, so that the first archive is not the one that waits for the disk and for access times."""
    os.sync()
    for path in made.files:
        with path.open("rb", buffering=0) as file:
            while file.read(_READ_BYTES):
                pass
    os.sync()


def _scaled(count: int, scale: float) -> int:
    return max(8, round(count * scale))


def _many_series(made: Instances, count: int, size: int) -> None:
    for number in range(count):
        _one_series(made, size, 32, number * size)


def _one_series(made: Instances, count: int, side: int, first: int = 0) -> None:
    study, series = generate_uid(), generate_uid()
    for number in range(count):
        _save(made, image(study, series, number), first + number, side)


def _studies(made: Instances, count: int) -> None:
    """A study of one instance for each number, of a patient of its own."""
    for number in range(count):
        dataset = image(generate_uid(), generate_uid(), number)
        dataset.PatientName, dataset.PatientID = f"Bench^Mark {number}", f"B-{number:06d}"
        dataset.AccessionNumber = f"A-{number:06d}"
        dataset.StudyDate = f"2026{number // STUDIES_OF_A_DAY + 1:02d}02"
        _save(made, dataset, number, 16)


def _save(made: Instances, dataset: Dataset, number: int, side: int) -> None:
    """Write an instance with pixels."""
    add_pixels(dataset, side)
    path = made.folder / f"{number:05d}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    made.add(dataset, path)


def add_pixels(dataset: Dataset, side: int) -> None:
    """Give an image ``side`` times ``side`` random pixels of two bytes."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = os.urandom(side * side * 2)


def image(study: str, series: str, number: int) -> Dataset:
    """An image of a series, without pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyDate, dataset.StudyTime = "20260102", "101500"
    dataset.AccessionNumber, dataset.Modality = "A1", "CT"
    dataset.Manufacturer, dataset.StudyDescription = "Synthetic", "Benchmark"
    dataset.SeriesDescription = "Axial"
    dataset.PatientName, dataset.PatientID = "Bench^Mark", study[-16:]
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number + 1
    return dataset


def _huge(made: Instances, frames: int) -> None:
    """One instance whose Pixel Data is a hole in the file: it costs no disk, and reads as zeros."""
    dataset = image(generate_uid(), generate_uid(), 0)
    dataset.SOPClassUID = _MULTI_FRAME_WORD_SECONDARY_CAPTURE
    dataset.Modality = "OT"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames = frames
    dataset.Rows = dataset.Columns = _HUGE_SIDE
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    path = made.folder / "huge.dcm"
    dataset.save_as(path, enforce_file_format=True)
    length = frames * _HUGE_SIDE * _HUGE_SIDE * 2
    with path.open("ab") as file:
        # Tag, VR, two reserved bytes, length (PS3.5 7.1.2).
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length))
        file.truncate(file.tell() + length)
    made.add(dataset, path)


def _real_files(made: Instances, copies: int) -> None:
    with warnings.catch_warnings():
        # Some of pydicom's test files are there to be warned of.
        warnings.simplefilter("ignore")
        for number, dataset in enumerate(_storable()):
            for copy in range(copies):
                dataset.SOPInstanceUID = generate_uid()
                path = made.folder / f"{number:04d}-{copy}.dcm"
                try:
                    dataset.save_as(path, enforce_file_format=True)
                    # PS3.5 7.1.1: DCMTK and Orthanc abort when a data set has an odd length.
                    is_sound = path.stat().st_size % 2 == 0
                except (ValueError, TypeError, AttributeError, KeyError):
                    is_sound = False
                if not is_sound:
                    path.unlink(missing_ok=True)
                    break
                made.add(dataset, path)


def _storable() -> Iterator[Dataset]:
    """The test files in pydicom's wheel that have all that an archive needs to store them."""
    root = Path(pydicom.data.__file__).parent
    needed = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "PatientID")
    for path in sorted(root.rglob("*")):
        try:
            dataset = dcmread(path)
            complete = all(dataset.get(keyword) for keyword in needed)
        except (pydicom.errors.InvalidDicomError, OSError, ValueError, AttributeError, EOFError):
            continue
        if complete and dataset.file_meta.get("TransferSyntaxUID"):
            yield dataset
