"""The Attributes that a choice of frames changes (PS3.4 Y.3.3): what to write instead, or nothing.

Everything else of the source stays byte for byte, so that the new instance is an exact subset.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from struct import Struct

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from pacs.dicom.encoding.layout import Layout
from pacs.dicom.encoding.pieces import Literal, Piece
from pacs.dicom.encoding.plain_values import UNREADABLE
from pacs.dicom.frames.frame_times import (
    CINE_RATE,
    FRAME_DELAY,
    FRAME_TIME,
    FRAME_TIME_VECTOR,
    Cine,
    frame_delay,
)
from pacs.errors import FramesNotExtractable, InstanceNotCreatable

NUMBER_OF_FRAMES = 0x00280008
_FRAME_INCREMENT_POINTER = 0x00280009
_GRID_FRAME_OFFSET_VECTOR = 0x3004000C
_MASK_SUBTRACTION_SEQUENCE, _RECOMMENDED_VIEWING_MODE = 0x00286100, 0x00281090
_DIMENSION_ORGANIZATION_TYPE = 0x00209311

#: Attributes of the top level that do not survive, and why.
DROPPED = frozenset(
    int(Tag(keyword))
    for keyword in (
        # The new instance is no part of a Concatenation (PS3.4 Y.3.3).
        "ConcatenationUID",
        "InConcatenationNumber",
        "InConcatenationTotalNumber",
        "ConcatenationFrameOffsetNumber",
        "SOPInstanceUIDOfConcatenationSource",
        # Of all frames, or of who made the source.
        "EffectiveDuration",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "InstanceCreatorUID",
        # Signatures cover bytes that are not there any more; padding means nothing.
        "MACParametersSequence",
        "DigitalSignaturesSequence",
        "DataSetTrailingPadding",
    )
)
#: One value for each frame.
_VECTORS = tuple(
    int(Tag(keyword))
    for keyword in (
        "PageNumberVector",
        "FrameLabelVector",
        "FramePrimaryAngleVector",
        "FrameSecondaryAngleVector",
        "SliceLocationVector",
        "DisplayWindowLabelVector",
        "EnergyWindowVector",
        "DetectorVector",
        "PhaseVector",
        "RotationVector",
        "RRIntervalVector",
        "TimeSlotVector",
        "SliceVector",
        "AngularViewVector",
        "TimeSliceVector",
        "GridFrameOffsetVector",
    )
)
#: One value for each frame, or one for all.
_PERHAPS_VECTORS = tuple(
    int(Tag(keyword))
    for keyword in (
        "PositionerPrimaryAngleIncrement",
        "PositionerSecondaryAngleIncrement",
        "TableVerticalIncrement",
        "TableLateralIncrement",
        "TableLongitudinalIncrement",
    )
)
#: Values of these VRs have a size; others are separated by backslashes (PS3.5 6.2).
_VALUE_SIZES = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "AT": 4, "FL": 4, "FD": 8}
_REPRESENTATIVE_FRAME_NUMBER = int(Tag("RepresentativeFrameNumber"))
_START_TRIM, _STOP_TRIM = int(Tag("StartTrim")), int(Tag("StopTrim"))
_FRAMES_OF_INTEREST = int(Tag("FrameNumbersOfInterest"))
_DESCRIPTIONS_OF_INTEREST = tuple(
    int(Tag(keyword)) for keyword in ("FrameOfInterestDescription", "FrameOfInterestType")
)

#: What to write for a tag; without pieces, nothing.
Edits = dict[int, list[Piece]]


@dataclass(frozen=True, slots=True)
class Choice:
    """The frames that are taken of those there are, counted from one, ascending."""

    count: int
    frames: tuple[int, ...]

    def number(self, frame: int) -> int | None:
        """What a frame of the source is called in the new instance."""
        position = bisect_left(self.frames, frame)
        found = position < len(self.frames) and self.frames[position] == frame
        return position + 1 if found else None


def refuse_uncreatable(layout: Layout, choice: Choice) -> None:
    """Refuse what cannot be made a valid instance of its SOP Class.

    Raises:
        InstanceNotCreatable: with the reason.
    """
    if layout.value(_DIMENSION_ORGANIZATION_TYPE).strip() == b"TILED_FULL":
        raise InstanceNotCreatable("TILED_FULL: the position of a frame follows from all others")
    if layout.entry(_GRID_FRAME_OFFSET_VECTOR) is not None and choice.frames[0] != 1:
        raise InstanceNotCreatable(
            "Frame offsets are relative to the first frame, which is missing"
        )
    for entry in layout.entries:
        group, number = entry.tag >> 16, entry.tag & 0xFFFF
        if group & 0xFF01 == 0x6000 and number == 0x0015:
            raise InstanceNotCreatable("A multi-frame Overlay cannot be reduced")
        if group & 0xFF01 == 0x5000 and number == 0x200C:
            raise InstanceNotCreatable("Audio that belongs to the frames cannot be reduced")


def frame_edits(layout: Layout, choice: Choice, cine: Cine | None) -> Edits:
    """Everything that follows from the choice, but the frames themselves.

    Raises:
        FramesNotExtractable: the source contradicts itself.
        InstanceNotCreatable: a value does not fit its VR.
    """
    edits: Edits = {tag: [] for tag in DROPPED}
    edits[NUMBER_OF_FRAMES] = [
        layout.element(NUMBER_OF_FRAMES, "IS", str(len(choice.frames)).encode())
    ]
    edits |= _vectors(layout, choice)
    if cine is not None:
        edits |= _timing(layout, choice, cine)
    edits |= _references(layout, choice)
    if layout.entry(_MASK_SUBTRACTION_SEQUENCE) is not None:
        edits |= _masks(layout, choice)
    return edits


def _vectors(layout: Layout, choice: Choice) -> Edits:
    edits: Edits = {}
    for tag in (*_VECTORS, *_PERHAPS_VECTORS):
        if layout.entry(tag) is None:
            continue
        vr, values = _values(layout, tag)
        if len(values) == choice.count:
            chosen = [values[frame - 1] for frame in choice.frames]
            edits[tag] = [layout.element(tag, vr, _joined(vr, chosen))]
        elif tag in _VECTORS:
            raise FramesNotExtractable(f"{_named(tag)} does not have a value for each frame")
    return edits


def _values(layout: Layout, tag: int) -> tuple[str, list[bytes]]:
    value, vr = layout.value(tag), dictionary_VR(tag)
    size = _VALUE_SIZES.get(vr)
    if size is None:
        return vr, value.rstrip(b" \0").split(b"\\")
    return vr, [value[begin : begin + size] for begin in range(0, len(value), size)]


def _joined(vr: str, values: Sequence[bytes]) -> bytes:
    return (b"" if vr in _VALUE_SIZES else b"\\").join(values)


def _timing(layout: Layout, choice: Choice, cine: Cine) -> Edits:
    """Frame Time stays if the frames are still evenly spaced; else there is a vector (PS3.3 C.7.6.5.1)."""
    times = [cine.milliseconds[frame - 1] for frame in choice.frames]
    steps = [later - earlier for earlier, later in pairwise(times)]
    edits: Edits = {}
    if times[0] != cine.milliseconds[0]:
        # Content Time stays that of the acquisition, so its distance from the first frame grows.
        edits[FRAME_DELAY] = [_decimal(layout, FRAME_DELAY, [frame_delay(layout) + times[0]])]
    if cine.is_vector:
        edits[FRAME_TIME_VECTOR] = [_decimal(layout, FRAME_TIME_VECTOR, [0.0, *steps])]
    elif any(not math.isclose(step, steps[0], abs_tol=1e-6) for step in steps):
        edits[FRAME_TIME] = []
        edits[FRAME_TIME_VECTOR] = [_decimal(layout, FRAME_TIME_VECTOR, [0.0, *steps])]
        edits |= _pointer(layout)
    elif steps:
        edits[FRAME_TIME] = [_decimal(layout, FRAME_TIME, [steps[0]])]
    distances = [later - earlier for earlier, later in pairwise(choice.frames)]
    if any(distance != 1 for distance in distances):
        edits[CINE_RATE] = []
    return edits


def _pointer(layout: Layout) -> Edits:
    vr, pointers = _values(layout, _FRAME_INCREMENT_POINTER)
    order = ">" if layout.encoding.is_big_endian else "<"
    old, new = (
        Struct(f"{order}HH").pack(tag >> 16, tag & 0xFFFF)
        for tag in (FRAME_TIME, FRAME_TIME_VECTOR)
    )
    if old not in pointers:
        return {}
    value = b"".join(new if one == old else one for one in pointers)
    return {_FRAME_INCREMENT_POINTER: [layout.element(_FRAME_INCREMENT_POINTER, vr, value)]}


def _decimal(layout: Layout, tag: int, numbers: Sequence[float]) -> Literal:
    if not all(map(math.isfinite, numbers)):
        raise FramesNotExtractable(f"{_named(tag)} would be beyond all numbers")
    # Sums of decimal texts: what floating point adds to them is far below a nanosecond.
    texts = [format_number_as_ds(round(number, 9) + 0.0) for number in numbers]
    return layout.element(tag, "DS", "\\".join(text.removesuffix(".0") for text in texts).encode())


def _references(layout: Layout, choice: Choice) -> Edits:
    """Attributes of the top level that name frames by their number."""
    edits: Edits = {}
    if layout.entry(_REPRESENTATIVE_FRAME_NUMBER) is not None:
        edits[_REPRESENTATIVE_FRAME_NUMBER] = _remaining(
            layout, choice, _REPRESENTATIVE_FRAME_NUMBER
        )
    if layout.entry(_START_TRIM) is not None or layout.entry(_STOP_TRIM) is not None:
        edits |= _trims(layout, choice)
    if layout.entry(_FRAMES_OF_INTEREST) is not None:
        edits |= _frames_of_interest(layout, choice)
    return edits


def _remaining(layout: Layout, choice: Choice, tag: int) -> list[Piece]:
    numbers = [choice.number(frame) for frame in _shorts(layout, tag)]
    kept = [number for number in numbers if number is not None]
    return [layout.element(tag, "US", _packed_shorts(layout, kept))] if kept else []


def _trims(layout: Layout, choice: Choice) -> Edits:
    """The trimmed range, as far as it is still there."""
    start, stop = (_integer(layout.value(tag)) for tag in (_START_TRIM, _STOP_TRIM))
    within = [
        number
        for number, frame in enumerate(choice.frames, start=1)
        if (start is None or frame >= start) and (stop is None or frame <= stop)
    ]
    edits: Edits = {_START_TRIM: [], _STOP_TRIM: []}
    for tag, old, position in ((_START_TRIM, start, 0), (_STOP_TRIM, stop, -1)):
        if within and old is not None:
            edits[tag] = [layout.element(tag, "IS", str(within[position]).encode())]
    return edits


def _frames_of_interest(layout: Layout, choice: Choice) -> Edits:
    numbers = [choice.number(frame) for frame in _shorts(layout, _FRAMES_OF_INTEREST)]
    edits: Edits = {_FRAMES_OF_INTEREST: _remaining(layout, choice, _FRAMES_OF_INTEREST)}
    for tag in _DESCRIPTIONS_OF_INTEREST:
        if layout.entry(tag) is None:
            continue
        vr, texts = _values(layout, tag)
        kept = [text for text, number in zip(texts, numbers, strict=False) if number is not None]
        edits[tag] = [layout.element(tag, vr, _joined(vr, kept))] if kept else []
    return edits


def _masks(layout: Layout, choice: Choice) -> Edits:
    """Mask Subtraction Items whose mask frames are still there, for the frames that are (PS3.3 C.7.6.10)."""
    entry = layout.entry(_MASK_SUBTRACTION_SEQUENCE)
    assert entry is not None
    found = layout.reader.wanted(
        layout.encoding, {_MASK_SUBTRACTION_SEQUENCE}, _MASK_SUBTRACTION_SEQUENCE
    )
    element = found.get(_MASK_SUBTRACTION_SEQUENCE)
    items: Sequence[Dataset] = () if element is None else getattr(element, "value", ())
    try:
        kept = [layout.item(item) for item in items if _keep_mask(item, choice)]
    except UNREADABLE as error:
        raise FramesNotExtractable("Mask Subtraction Sequence cannot be read") from error
    if kept:
        return {_MASK_SUBTRACTION_SEQUENCE: layout.sequence(_MASK_SUBTRACTION_SEQUENCE, [*kept])}
    edits: Edits = {_MASK_SUBTRACTION_SEQUENCE: []}
    if layout.value(_RECOMMENDED_VIEWING_MODE).strip() == b"SUB":
        edits[_RECOMMENDED_VIEWING_MODE] = [layout.element(_RECOMMENDED_VIEWING_MODE, "CS", b"NAT")]
    return edits


def _keep_mask(item: Dataset, choice: Choice) -> bool:
    masks = _numbers(item, "MaskFrameNumbers")
    # A number that is of no frame of the source, often 0, names no mask that could be missing now.
    real = [frame for frame in masks if 1 <= frame <= choice.count]
    if all(choice.number(frame) is not None for frame in real):
        if real:
            item.MaskFrameNumbers = [choice.number(frame) or frame for frame in masks]
    elif str(item.get("MaskOperation") or "").strip() == "NONE":
        # Nothing is subtracted: the numbers mean nothing, and must not mean another frame.
        del item.MaskFrameNumbers
    else:
        return False
    ranges = _numbers(item, "ApplicableFrameRange")
    if not ranges:
        return True
    applicable: list[int] = []
    for first, last in zip(ranges[::2], ranges[1::2], strict=False):
        # Of a hostile source both may be long: no look at each frame for each range.
        begin, end = bisect_left(choice.frames, first), bisect_right(choice.frames, last)
        applicable += [begin + 1, end] if begin < end else []
    if applicable:
        item.ApplicableFrameRange = applicable
    return bool(applicable)


def _numbers(item: Dataset, keyword: str) -> list[int]:
    value = item.get(keyword)
    if value is None:
        return []
    return [int(one) for one in (value if hasattr(value, "append") else [value])]


def _shorts(layout: Layout, tag: int) -> list[int]:
    value = layout.value(tag)
    return list(_short_packer(layout, len(value) // 2).unpack(value[: len(value) // 2 * 2]))


def _packed_shorts(layout: Layout, numbers: Sequence[int]) -> bytes:
    return _short_packer(layout, len(numbers)).pack(*numbers)


def _short_packer(layout: Layout, count: int) -> Struct:
    return Struct(f"{'>' if layout.encoding.is_big_endian else '<'}{count}H")


def _integer(value: bytes) -> int | None:
    try:
        return int(value.decode("latin_1").strip(" \0"))
    except ValueError:
        return None


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
