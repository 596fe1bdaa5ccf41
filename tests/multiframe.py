"""Multi-frame instances whose frames can be told apart, and what was made of them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)

from pacs.dicom.encoding.part10 import file_meta
from tests.factories import make_instance, part10

MULTI_FRAME = MultiFrameGrayscaleByteSecondaryCaptureImageStorage


def native_frame(number: int, size: int = 64) -> bytes:
    """The bytes of one frame."""
    return bytes((number * 7 + position) % 256 for position in range(size))


def make_multiframe(count: int = 10, **keywords: object) -> Dataset:
    """A multi-frame Secondary Capture of 8 x 8 pixels, one byte each, 40 ms a frame."""
    size = int(str(keywords.get("Rows", 8))) * int(str(keywords.get("Columns", 8)))
    instance = make_instance(
        **{
            "SOPClassUID": MULTI_FRAME,
            "Modality": "OT",
            "ConversionType": "SYN",
            "ContentDate": "20240229",
            "ContentTime": "101530",
            "NumberOfFrames": count,
            "FrameIncrementPointer": 0x00181063,
            "FrameTime": "40",
            "BurnedInAnnotation": "NO",
            "RecognizableVisualFeatures": "NO",
            "PresentationLUTShape": "IDENTITY",
            "RescaleIntercept": "0",
            "RescaleSlope": "1",
            "RescaleType": "US",
        }
        | keywords
    )
    pixels = b"".join(native_frame(number, size) for number in range(1, count + 1))
    instance[Tag("PixelData")] = DataElement(
        Tag("PixelData"), "OB", pixels + b"\0" * (len(pixels) % 2)
    )
    return instance


def with_functional_groups(instance: Dataset) -> Dataset:
    """The instance with shared and per-frame functional groups, one second from frame to frame."""
    groups = []
    for number in range(1, int(instance.NumberOfFrames) + 1):
        content = Dataset()
        content.FrameAcquisitionDateTime = f"202402291015{29 + number}"
        content.DimensionIndexValues = [number]
        group = Dataset()
        group.FrameContentSequence = [content]
        groups.append(group)
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing = ["1", "1"]
    shared.PixelMeasuresSequence = [measures]
    instance.SharedFunctionalGroupsSequence = [shared]
    instance.PerFrameFunctionalGroupsSequence = groups
    return instance


def encapsulated_frame(number: int) -> bytes:
    """A frame that no codec made, of a length of its own."""
    return bytes([number]) * (20 + 2 * number)


def make_encapsulated(count: int = 5, tables: str = "basic", fragments: int = 1) -> bytes:
    """The file of an instance in RLE Lossless with ``basic``, ``extended`` or ``none`` offset tables."""
    instance = make_multiframe(count)
    frames = [encapsulated_frame(number) for number in range(1, count + 1)]
    element = DataElement(Tag("PixelData"), "OB", b"")
    if tables == "extended":
        element.value, offsets, lengths = encapsulate_extended(frames)
        instance.ExtendedOffsetTable, instance.ExtendedOffsetTableLengths = offsets, lengths
    else:
        element.value = encapsulate(frames, fragments, has_bot=tables == "basic")
    element.is_undefined_length = True
    instance[element.tag] = element
    instance.file_meta.TransferSyntaxUID = RLELossless
    file = BytesIO()
    instance.save_as(file, enforce_file_format=True)
    return file.getvalue()


def big_endian_file(instance: Dataset) -> bytes:
    """The instance in Explicit VR Big Endian with OB Pixel Data."""
    return part10(instance, ExplicitVRBigEndian)


def read(data: bytes, sop_class_uid: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """A data set that came over the network."""
    meta = file_meta(sop_class_uid, generate_uid(), syntax, source_ae="")
    return dcmread(BytesIO(meta + data))


def native_frames(instance: Dataset, size: int = 64) -> list[bytes]:
    """The frames of an uncompressed instance of whole bytes."""
    data = instance.PixelData
    return [data[at : at + size] for at in range(0, int(instance.NumberOfFrames) * size, size)]


def wanted(frames: Sequence[int]) -> list[bytes]:
    """What ``native_frames`` should find."""
    return [native_frame(number) for number in frames]
