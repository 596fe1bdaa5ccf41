"""A data set without its bulk data (PS3.4 Z.1.3)."""

from __future__ import annotations

from typing import BinaryIO

from pydicom.tag import Tag

from pacs.dicom.encoding.element_encoding import UNDEFINED_LENGTH
from pacs.dicom.encoding.layout import PIXELS, Entry, Layout, read_layout
from pacs.dicom.encoding.pieces import Literal, Piece
from pacs.errors import InvalidInstance

#: PS3.4 Table Z.1-1, beside the repeating groups below. Only the top level counts: an icon keeps its pixels.
_BULK_DATA = PIXELS | {
    int(Tag(keyword))
    for keyword in ("PixelDataProviderURL", "SpectroscopyData", "EncapsulatedDocument")
}
#: Group and element: Overlay Data, Curve Data, Audio Sample Data.
_REPEATING = frozenset({(0x6000, 0x3000), (0x5000, 0x3000), (0x5000, 0x200C)})
#: They say where in Pixel Data the frames are, so they go with it.
_TABLES = frozenset({0x7FE00001, 0x7FE00002})
_WAVEFORM_SEQUENCE, _WAVEFORM_DATA = 0x54000100, 0x54001010


def without_bulk_data(
    stream: BinaryIO, transfer_syntax_uid: str, data_set_offset: int
) -> list[Piece]:
    """What is left of a data set, as pieces of the stored file; ``stream`` is neither kept nor closed.

    Raises:
        InvalidInstance: the data set cannot be read.
    """
    layout = read_layout(stream, transfer_syntax_uid, data_set_offset)
    pieces: list[Piece] = []
    for entry in layout.entries:
        if entry.tag == _WAVEFORM_SEQUENCE and entry.header.vr in ("", "SQ"):
            pieces += _waveforms(layout, entry)
        elif not _is_bulk_data(entry.tag):
            pieces.append(layout.range(entry.begin, entry.end))
    return pieces


def _is_bulk_data(tag: int) -> bool:
    group, number = tag >> 16, tag & 0xFFFF
    # Group lengths may be wrong by now.
    return (
        tag in _BULK_DATA or tag in _TABLES or (group & 0xFF01, number) in _REPEATING or number == 0
    )


def _waveforms(layout: Layout, sequence: Entry) -> list[Piece]:
    """The Waveform Sequence with Items that have lost their Waveform Data."""
    items: list[Piece] = []
    for begin, content, end in layout.reader.items(sequence.header, layout.encoding):
        data = list(layout.reader.find({_WAVEFORM_DATA}, content, end, layout.encoding))
        if not data:
            items.append(layout.range(begin, end))
            continue
        # Waveform Data ends the Item, but for private elements.
        encoding = layout.reader.encoding_at(content, layout.encoding)
        cut_at = data[0].value_at - (8 if encoding.is_implicit else 12)
        after = layout.reader.skip(data[0], encoding)
        item_end = _content_end(layout, begin, end)
        if after > item_end:
            raise InvalidInstance("Waveform Data is longer than the Item it is in")
        size = cut_at - content + item_end - after
        items += [
            Literal(layout.item_header(0xFFFEE000, size)),
            layout.range(content, cut_at),
            layout.range(after, item_end),
        ]
    return layout.sequence(_WAVEFORM_SEQUENCE, items)


def _content_end(layout: Layout, begin: int, end: int) -> int:
    # An Item of undefined length ends with a delimiter of eight bytes.
    header = layout.reader.header(begin, layout.encoding)
    return end - 8 if header.length == UNDEFINED_LENGTH else end
