"""The frames within Pixel Data: find some, and write them as Pixel Data of their own (PS3.5 8, A.4).

Native frames follow from the Image Pixel module. Encapsulated ones are found by the Basic or Extended Offset Table,
by having one fragment each, or by where a JPEG stream ends. Nothing is decoded, and only what leads to the
wanted frames is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from struct import Struct

from pacs.dicom.encoding.element_encoding import ITEM, SEQUENCE_DELIMITER, UNDEFINED_LENGTH
from pacs.dicom.encoding.layout import FLOAT_PIXEL_DATA, PIXEL_DATA, PIXELS, Entry, Layout
from pacs.dicom.encoding.pieces import Literal, PackedBits, Piece, total_size
from pacs.errors import FramesNotExtractable

EXTENDED_OFFSET_TABLE, EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
#: More frames than any instance has; keeps lists of them small.
MAX_FRAMES = 1_000_000
# Fragments may be empty: a file of 100 MB has room for 12 million, which take as many microseconds and more.
_MAX_FRAGMENTS = 2 * MAX_FRAMES

#: Video, and JPEG 2000 Part 2, whose frames need others to be decoded (PS3.5 A.4.5 to A.4.8).
_BETWEEN_FRAMES = re.compile(r"1\.2\.840\.10008\.1\.2\.(4\.(9[23]|10[0-8])(\.1)?|7\..*)")
_ITEM_HEADER = Struct("<HHL")
_ITEM = (ITEM >> 16, ITEM & 0xFFFF)
_MAX_OFFSET = 0xFFFFFFFF
_JPEG_END = b"\xff\xd9"
#: How a codestream of JPEG and JPEG-LS, or of JPEG 2000, begins: in the first fragment of a frame only.
_BEGINNINGS = frozenset(
    [b"\xff\x4f\xff\x51", *(b"\xff\xd8\xff" + bytes([marker]) for marker in range(0xC0, 0xFF))]
)
#: Two thirds of the samples are stored (PS3.3 C.7.6.3.1.2).
_HALF_CHROMINANCE = ("YBR_FULL_422", "YBR_PARTIAL_422")
_ROWS, _COLUMNS, _SAMPLES, _BITS, _PHOTOMETRIC = (
    0x00280010,
    0x00280011,
    0x00280002,
    0x00280100,
    0x00280004,
)


def extract_pixels(
    layout: Layout, transfer_syntax_uid: str, count: int, frames: Sequence[int]
) -> dict[int, list[Piece]]:
    """The Pixel Data, and its offset tables, of the given frames of ``count``; by tag.

    Raises:
        FramesNotExtractable: the frames cannot be told apart, or are not all there.
    """
    if _BETWEEN_FRAMES.fullmatch(transfer_syntax_uid):
        raise FramesNotExtractable("Frames cannot be cut out of this transfer syntax")
    entry = layout.entries[-1] if layout.entries else None
    if entry is None or entry.tag not in PIXELS:
        raise FramesNotExtractable("The SOP Instance has no Pixel Data")
    if count > MAX_FRAMES:
        raise FramesNotExtractable(f"Number of Frames is over {MAX_FRAMES}")
    if entry.header.length != UNDEFINED_LENGTH:
        return {entry.tag: _native(layout, entry, count, frames)}
    if entry.tag != PIXEL_DATA or layout.encoding.is_implicit or layout.encoding.is_big_endian:
        raise FramesNotExtractable("Pixel Data has no length")
    return _Encapsulated(layout, entry, count).extract(frames)


def encapsulated_frames(
    layout: Layout, transfer_syntax_uid: str, count: int
) -> list[list[tuple[int, int]]]:
    """Where the fragments of each of ``count`` frames are, without their headers; positions in the data set.

    An offset table that is wrong counts for nothing where each fragment is a frame, as other readers have it.

    Raises:
        FramesNotExtractable: the frames cannot be told apart, are not all there, or are more.
    """
    if _BETWEEN_FRAMES.fullmatch(transfer_syntax_uid):
        raise FramesNotExtractable("Frames of this transfer syntax need each other to be decoded")
    entry = layout.entries[-1]
    if entry.tag != PIXEL_DATA or entry.header.length != UNDEFINED_LENGTH:
        raise FramesNotExtractable("Pixel Data is not encapsulated")
    if not 0 < count <= MAX_FRAMES:
        raise FramesNotExtractable(f"Number of Frames is not between 1 and {MAX_FRAMES}")
    return _Encapsulated(layout, entry, count).fragments()


def _native(layout: Layout, entry: Entry, count: int, frames: Sequence[int]) -> list[Piece]:
    header = entry.header
    bits = _bits_per_frame(layout, entry.tag)
    if not bits or header.length * 8 < bits * count:
        raise FramesNotExtractable(f"Pixel Data is too short for {count} frames")
    if not layout.reader.has_bytes(header.value_at + header.length):
        raise FramesNotExtractable("Pixel Data is cut off")
    unit = 16 if layout.encoding.is_big_endian and header.vr == "OW" else 8
    if bits % unit == 0:
        size = bits // 8
        content: list[Piece] = [
            layout.range(first, first + size)
            for first in (header.value_at + (frame - 1) * size for frame in frames)
        ]
    elif layout.encoding.is_big_endian:
        raise FramesNotExtractable("A frame does not end at a word, whose bytes are swapped")
    else:
        begin = layout.offset + header.value_at
        content = [PackedBits(begin, bits, tuple(frame - 1 for frame in frames))]
    size = total_size(content)
    if size % 2:
        content.append(Literal(b"\0"))
    vr = header.vr or "OW"
    return [Literal(layout.element_header(entry.tag, vr, size + size % 2)), *content]


def _bits_per_frame(layout: Layout, tag: int) -> int:
    rows, columns, samples, bits = (
        unsigned_short(layout, one) for one in (_ROWS, _COLUMNS, _SAMPLES, _BITS)
    )
    if tag != PIXEL_DATA:
        return rows * columns * (32 if tag == FLOAT_PIXEL_DATA else 64)
    photometric = layout.value(_PHOTOMETRIC).decode("latin_1").strip(" \0")
    if samples == 3 and photometric in _HALF_CHROMINANCE:
        samples = 2
    return rows * columns * samples * bits


def unsigned_short(layout: Layout, tag: int) -> int:
    """The first value of an Attribute of VR US; 0 if there is none."""
    value = layout.value(tag)[:2]
    return int.from_bytes(value, "big" if layout.encoding.is_big_endian else "little")


class _Encapsulated:
    """Encapsulated Pixel Data (PS3.5 A.4); positions count from the first byte of the data set."""

    def __init__(self, layout: Layout, entry: Entry, count: int) -> None:
        self._layout = layout
        self._entry = entry
        self._count = count
        self._looked_at = 0
        table, self._first = self._item_at(entry.header.value_at)
        if table is None:
            raise FramesNotExtractable("Pixel Data has no Basic Offset Table")
        self._table = table

    def extract(self, frames: Sequence[int]) -> dict[int, list[Piece]]:
        """The Pixel Data of these frames with tables of their own."""
        layout = self._layout
        extended = layout.entry(EXTENDED_OFFSET_TABLE) is not None
        ranges = self._by_extended_table(frames) if extended else self._ranges(frames)
        pieces: list[Piece] = [layout.range(begin, end) for begin, end in ranges]
        offsets = [0, *accumulate(piece.size for piece in pieces)][:-1]
        found: dict[int, list[Piece]] = {}
        table = b""
        if extended:
            # PS3.3 C.7.6.3.1.8: then the Basic Offset Table is empty.
            lengths = self._extended_values(EXTENDED_LENGTHS)
            kept = [lengths[frame - 1] for frame in frames]
            found[EXTENDED_OFFSET_TABLE] = [_very_long(layout, EXTENDED_OFFSET_TABLE, offsets)]
            found[EXTENDED_LENGTHS] = [_very_long(layout, EXTENDED_LENGTHS, kept)]
        elif offsets[-1] > _MAX_OFFSET:
            raise FramesNotExtractable("The frames do not fit a Basic Offset Table")
        else:
            table = Struct(f"<{len(offsets)}L").pack(*offsets)
        found[PIXEL_DATA] = [
            Literal(layout.element_header(PIXEL_DATA, "OB", UNDEFINED_LENGTH)),
            Literal(layout.item_header(ITEM, len(table)) + table),
            *pieces,
            Literal(layout.delimiter()),
        ]
        return found

    def fragments(self) -> list[list[tuple[int, int]]]:
        """The contents of the fragments of each frame."""
        frames = range(1, self._count + 1)
        try:
            extended = self._layout.entry(EXTENDED_OFFSET_TABLE) is not None
            ranges = self._by_extended_table(frames) if extended else self._ranges(frames)
        except FramesNotExtractable:
            ranges = self._all_fragments()
            if len(ranges) != self._count:
                raise
        return [self._contents(begin, end) for begin, end in ranges]

    def _contents(self, begin: int, end: int) -> list[tuple[int, int]]:
        contents: list[tuple[int, int]] = []
        while begin < end:
            content, begin = self._item_at(begin)
            assert content is not None
            if contents and self._read(content[0], min(4, content[1] - content[0])) in _BEGINNINGS:
                raise FramesNotExtractable("Pixel Data has more frames than Number of Frames")
            contents.append(content)
        return contents

    def _ranges(self, frames: Sequence[int]) -> list[tuple[int, int]]:
        begin, end = self._table
        if end > begin:
            return self._by_basic_table(frames)
        return self._by_fragments(frames)

    def _by_basic_table(self, frames: Sequence[int]) -> list[tuple[int, int]]:
        begin, end = self._table
        if end - begin != 4 * self._count:
            raise FramesNotExtractable("The Basic Offset Table is not that of the frames")
        offsets = Struct(f"<{self._count}L").unpack(self._read(begin, end - begin))
        if offsets[0] or any(b <= a for a, b in pairwise(offsets)):
            raise FramesNotExtractable("The Basic Offset Table does not ascend")
        starts = [self._first + offset for offset in offsets]
        return [
            self._walked(starts[frame - 1], starts[frame] if frame < self._count else None)
            for frame in frames
        ]

    def _walked(self, begin: int, end: int | None) -> tuple[int, int]:
        """Check that whole fragments lie between two positions, or up to the end of Pixel Data."""
        position = begin
        while end is None or position < end:
            fragment, following = self._item_at(position)
            if fragment is None:
                if end is not None:
                    raise FramesNotExtractable("Pixel Data ends before the last frame")
                break
            position = following
        if position == begin or (end is not None and position != end):
            raise FramesNotExtractable("An offset table does not point at a fragment")
        return begin, position

    def _by_extended_table(self, frames: Sequence[int]) -> list[tuple[int, int]]:
        offsets = self._extended_values(EXTENDED_OFFSET_TABLE)
        ranges: list[tuple[int, int]] = []
        following = self._first
        for frame in frames:
            begin = self._first + offsets[frame - 1]
            # Many frames in the same bytes would make the new instance larger than the old one.
            fragment, end = self._item_at(begin) if begin >= following else (None, following)
            if fragment is None:
                raise FramesNotExtractable("An offset table does not point at a fragment")
            ranges.append((begin, end))
            following = end
        return ranges

    def _extended_values(self, tag: int) -> tuple[int, ...]:
        entry = self._layout.entry(tag)
        if entry is None or entry.header.length != 8 * self._count:
            raise FramesNotExtractable("The Extended Offset Table is not that of the frames")
        data = self._read(entry.header.value_at, entry.header.length)
        return Struct(f"<{self._count}Q").unpack(data)

    def _by_fragments(self, frames: Sequence[int]) -> list[tuple[int, int]]:
        fragments = self._all_fragments()
        if len(fragments) != self._count:
            fragments = self._joined(fragments)
        if len(fragments) != self._count:
            raise FramesNotExtractable("There is no offset table and no one fragment for a frame")
        return [fragments[frame - 1] for frame in frames]

    def _all_fragments(self) -> list[tuple[int, int]]:
        fragments: list[tuple[int, int]] = []
        position = self._first
        while True:
            fragment, following = self._item_at(position)
            if fragment is None:
                return fragments
            fragments.append((position, following))
            position = following

    def _joined(self, fragments: list[tuple[int, int]]) -> list[tuple[int, int]]:
        # Most JPEG streams that were cut into fragments end with the marker EOI, padded to an even length.
        if self._count == 1 and fragments:
            return [(fragments[0][0], fragments[-1][1])]
        frames: list[tuple[int, int]] = []
        begin: int | None = None
        for first, end in fragments:
            begin = first if begin is None else begin
            if self._read(end - 4, 4).rstrip(b"\0").endswith(_JPEG_END):
                frames.append((begin, end))
                begin = None
        return [] if begin is not None else frames

    def _item_at(self, position: int) -> tuple[tuple[int, int] | None, int]:
        """Where the content of the Item here begins and ends, and what follows; none at the delimiter.

        Where that is missing, the end of the data set takes its place: such an instance is kept with a warning.
        """
        self._looked_at += 1
        if self._looked_at > _MAX_FRAGMENTS:
            raise FramesNotExtractable("Pixel Data has too many fragments")
        if self._is_end(position):
            return None, position
        group, number, length = _ITEM_HEADER.unpack(self._read(position, 8))
        tag = group << 16 | number
        if tag == SEQUENCE_DELIMITER:
            return None, position
        end = position + 8 + length
        if (group, number) != _ITEM or not self._layout.reader.has_bytes(end):
            raise FramesNotExtractable("Pixel Data is cut off or damaged")
        return (position + 8, end), end

    def _is_end(self, position: int) -> bool:
        reader = self._layout.reader
        return reader.has_bytes(position) and not reader.has_bytes(position + 1)

    def _read(self, position: int, size: int) -> bytes:
        # Not through the reader, whose window is more than a fragment's header needs.
        if not self._layout.reader.has_bytes(position + size):
            raise FramesNotExtractable("Pixel Data is cut off or damaged")
        stream = self._layout.stream
        stream.seek(self._layout.offset + position)
        return stream.read(size)


def _very_long(layout: Layout, tag: int, values: Sequence[int]) -> Literal:
    return layout.element(tag, "OV", Struct(f"<{len(values)}Q").pack(*values))
