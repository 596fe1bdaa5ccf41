"""A new SOP Instance of some frames of a multi-frame one (PS3.4 Y.3.3, PS3.3 C.12.3).

The stored data set is walked once, without its Pixel Data; what comes out is a list of pieces, most of them
ranges of the stored file. So memory depends on the number of frames and not on their size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from pacs import __version__
from pacs.dicom.encoding.layout import PIXELS, Layout, read_layout
from pacs.dicom.encoding.part10 import SOP_INSTANCE_UID
from pacs.dicom.encoding.pieces import Piece, Range, total_size
from pacs.dicom.frames.frame_attributes import (
    NUMBER_OF_FRAMES,
    Choice,
    Edits,
    frame_edits,
    refuse_uncreatable,
)
from pacs.dicom.frames.frame_selection import FrameSelection
from pacs.dicom.frames.frame_times import Groups, frame_times, read_cine, recorded_zone
from pacs.dicom.frames.pixel_frames import EXTENDED_LENGTHS, EXTENDED_OFFSET_TABLE, extract_pixels
from pacs.errors import FramesNotExtractable, InstanceNotCreatable, InvalidInstance

_INSTANCE_CREATION_DATE, _INSTANCE_CREATION_TIME = 0x00080012, 0x00080013
_FRAME_EXTRACTION_SEQUENCE = int(Tag("FrameExtractionSequence"))
_CONTRIBUTING_EQUIPMENT_SEQUENCE = int(Tag("ContributingEquipmentSequence"))
_PER_FRAME = int(Tag("PerFrameFunctionalGroupsSequence"))
_PIXEL_ELEMENTS = PIXELS | {EXTENDED_OFFSET_TABLE, EXTENDED_LENGTHS}
_MANUFACTURER = "mini-pacs"


@dataclass(frozen=True, slots=True)
class Extraction:
    """The data set of a new SOP Instance, as pieces of the stored file."""

    sop_instance_uid: str
    pieces: list[Piece]

    @property
    def size(self) -> int:
        """Bytes of the data set."""
        return total_size(self.pieces)


def extract_frames(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    data_set_offset: int,
    source_uid: str,
    selection: FrameSelection,
) -> Extraction:
    """Lay out the new instance; ``stream`` is read but neither kept nor closed.

    Raises:
        FramesNotFound, NotTimeBased, InvalidFrameRequest: the request does not fit the instance.
        InstanceNotCreatable, FramesNotExtractable: the instance does not lend itself to it.
    """
    try:
        layout = read_layout(stream, transfer_syntax_uid, data_set_offset)
        return _Extractor(layout, transfer_syntax_uid, source_uid, selection).extract()
    except InvalidInstance as error:
        raise FramesNotExtractable(f"The stored SOP Instance is damaged: {error}") from error


class _Extractor:
    """One extraction."""

    def __init__(
        self, layout: Layout, transfer_syntax_uid: str, source_uid: str, selection: FrameSelection
    ) -> None:
        self._layout = layout
        self._transfer_syntax_uid = transfer_syntax_uid
        self._source_uid = source_uid
        self._selection = selection
        self._sop_instance_uid = str(generate_uid(prefix=None))

    def extract(self) -> Extraction:
        """Decide what the new data set consists of."""
        layout = self._layout
        count = self._number_of_frames()
        # First that there are so many frames: a list of as many as an instance claims has no bound.
        extract_pixels(layout, self._transfer_syntax_uid, count, [count])
        items = self._per_frame_items(count)
        cine = read_cine(layout, count)
        groups: Groups = [(content, end) for _, content, end in items]
        times = frame_times(layout, cine, count, groups) if self._selection.is_by_time else []
        choice = Choice(count, tuple(self._selection.frames(count, times)))
        refuse_uncreatable(layout, choice)
        edits = frame_edits(layout, choice, cine) | self._identity() | self._provenance()
        if items:
            chosen = [items[frame - 1] for frame in choice.frames]
            kept: list[Piece] = [layout.range(begin, end) for begin, _, end in chosen]
            edits[_PER_FRAME] = layout.sequence(_PER_FRAME, kept)
        edits |= extract_pixels(layout, self._transfer_syntax_uid, count, choice.frames)
        return Extraction(self._sop_instance_uid, list(_merged(self._pieces(edits))))

    def _number_of_frames(self) -> int:
        text = self._layout.value(NUMBER_OF_FRAMES).decode("latin_1").strip(" \0")
        if self._layout.entry(NUMBER_OF_FRAMES) is None:
            raise InstanceNotCreatable("The SOP Instance is not a multi-frame image")
        if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
            raise FramesNotExtractable("Number of Frames of the SOP Instance is not a number")
        return int(text)

    def _per_frame_items(self, count: int) -> list[tuple[int, int, int]]:
        entry = self._layout.entry(_PER_FRAME)
        if entry is None:
            return []
        if entry.header.vr not in ("", "SQ"):
            raise FramesNotExtractable("Per-Frame Functional Groups Sequence is of an unknown VR")
        items = list(self._layout.reader.items(entry.header, self._layout.encoding))
        if len(items) != count:
            raise FramesNotExtractable(f"{len(items)} functional groups for {count} frames")
        return items

    def _identity(self) -> Edits:
        layout = self._layout
        # Timezone Offset From UTC is that of all times, also of those that are added; without one, UTC.
        now = datetime.now(recorded_zone(layout) or UTC)
        edits: Edits = {
            SOP_INSTANCE_UID: [
                layout.element(SOP_INSTANCE_UID, "UI", self._sop_instance_uid.encode())
            ],
            _INSTANCE_CREATION_DATE: [
                layout.element(_INSTANCE_CREATION_DATE, "DA", now.strftime("%Y%m%d").encode())
            ],
            _INSTANCE_CREATION_TIME: [
                layout.element(_INSTANCE_CREATION_TIME, "TM", now.strftime("%H%M%S.%f").encode())
            ],
        }
        return edits

    def _provenance(self) -> Edits:
        """Where it came from and who made it, behind what the source says of its own origin (PS3.3 C.12.3)."""
        item = Dataset()
        item.MultiFrameSourceSOPInstanceUID = self._source_uid
        setattr(item, self._selection.keyword, list(self._selection.values))
        return {
            tag: self._with_item(tag, content)
            for tag, content in (
                (_FRAME_EXTRACTION_SEQUENCE, item),
                (_CONTRIBUTING_EQUIPMENT_SEQUENCE, _equipment()),
            )
        }

    def _with_item(self, tag: int, content: Dataset) -> list[Piece]:
        layout, entry = self._layout, self._layout.entry(tag)
        items: list[Piece] = []
        if entry is not None and entry.header.vr in ("", "SQ"):
            found = layout.reader.items(entry.header, layout.encoding)
            items += [layout.range(begin, end) for begin, _, end in found]
        return layout.sequence(tag, [*items, layout.item(content)])

    def _pieces(self, edits: Edits) -> Iterator[Piece]:
        """The source's elements in order, with the edits in place and new elements where they belong."""
        layout, left = self._layout, dict(edits)
        new = sorted(tag for tag in edits if layout.entry(tag) is None)
        for entry in layout.entries:
            while new and new[0] < entry.tag:
                yield from left.pop(new.pop(0))
            if entry.tag in edits:
                yield from left.pop(entry.tag, [])
            elif not _is_left_out(entry.tag):
                yield layout.range(entry.begin, entry.end)
        for tag in new:
            yield from left[tag]


def _is_left_out(tag: int) -> bool:
    # Group lengths would be wrong. Private elements are not to be copied unless their meaning is known, for
    # they may describe what is not there any more (PS3.4 Y.3.3, PS3.17 MM).
    return tag & 0xFFFF == 0 or bool(tag >> 16 & 1) or tag in _PIXEL_ELEMENTS


def _merged(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Join ranges that touch: most of the header is one."""
    last: Range | None = None
    for piece in pieces:
        if not isinstance(piece, Range):
            if last is not None:
                yield last
            last = None
            yield piece
        elif last is not None and last.begin + last.size == piece.begin:
            last = Range(last.begin, last.size + piece.size)
        else:
            if last is not None:
                yield last
            last = piece
    if last is not None:
        yield last


def _equipment() -> Dataset:
    purpose = Dataset()
    purpose.CodeValue = "109105"
    purpose.CodingSchemeDesignator = "DCM"
    purpose.CodeMeaning = "Frame Extracting Equipment"
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = DicomSequence([purpose])
    item.Manufacturer = _MANUFACTURER
    item.ManufacturerModelName = "pacs"
    item.SoftwareVersions = __version__
    item.ContributionDateTime = datetime.now(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    item.ContributionDescription = "Frames extracted on request (PS3.4 Y.3.3)"
    return item
