"""Where the Data Elements of a stored data set are, and how to write others between them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.dicom.encoding import element_writer
from pacs.dicom.encoding.byte_source import MAX_INFLATED_BYTES, InflatedBytes
from pacs.dicom.encoding.data_set_reader import data_set_reader
from pacs.dicom.encoding.element_encoding import (
    ITEM,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
)
from pacs.dicom.encoding.element_headers import ElementHeader
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.encoding.pieces import Literal, Piece, Range
from pacs.dicom.sop_classes import (
    DEFLATED,
    EXPLICIT_VR_LITTLE_ENDIAN,
)
from pacs.errors import InstanceNotCreatable, InvalidInstance

FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA = 0x7FE00008, 0x7FE00009, 0x7FE00010
PIXELS = frozenset({FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA, PIXEL_DATA})


@dataclass(frozen=True, slots=True)
class Entry:
    """One element at the top level; positions count from the first byte of the data set."""

    header: ElementHeader
    begin: int
    end: int

    @property
    def tag(self) -> int:
        """The tag."""
        return self.header.tag


@dataclass(frozen=True, slots=True)
class Layout:
    """The elements of one data set up to its Pixel Data; whoever reads it closes ``stream``."""

    stream: BinaryIO
    offset: int
    encoding: Encoding
    reader: ElementReader
    entries: tuple[Entry, ...]
    by_tag: Mapping[int, Entry]

    def entry(self, tag: int) -> Entry | None:
        """The first element with this tag."""
        return self.by_tag.get(tag)

    def value(self, tag: int) -> bytes:
        """The value of an element, cut at 64 KiB; empty if there is none."""
        entry = self.entry(tag)
        if entry is None or entry.header.length in (0, UNDEFINED_LENGTH):
            return b""
        return self.reader.value(entry.header)

    def range(self, begin: int, end: int) -> Range:
        """The bytes between two positions, as they are."""
        return Range(self.offset + begin, end - begin)

    def element(self, tag: int, vr: str, value: bytes) -> Literal:
        """A new element whose value is encoded already; padded to an even length (PS3.5 6.2)."""
        content = element_writer.padded(vr, value)
        return Literal(self.element_header(tag, vr, len(content)) + content)

    def element_header(self, tag: int, vr: str, length: int) -> bytes:
        """Tag, VR and length as this data set encodes them.

        Raises:
            InstanceNotCreatable: the length does not fit (PS3.5 7.1.2).
        """
        if not element_writer.has_room(vr, length, self.encoding):
            raise InstanceNotCreatable(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) would be too long")
        return element_writer.element_header(tag, vr, length, self.encoding)

    def sequence(self, tag: int, items: list[Piece]) -> list[Piece]:
        """A sequence of undefined length with these Items."""
        begin = Literal(self.element_header(tag, "SQ", UNDEFINED_LENGTH))
        return [begin, *items, Literal(self.delimiter())]

    def delimiter(self) -> bytes:
        """The Sequence Delimitation Item."""
        return self.item_header(SEQUENCE_DELIMITER, 0)

    def item_header(self, tag: int, length: int) -> bytes:
        """Tag and length of an Item or delimiter."""
        return element_writer.item_header(tag, length, self.encoding)

    def item(self, content: Dataset) -> Literal:
        """A new Item."""
        encoded = self.encode(content)
        return Literal(self.item_header(ITEM, len(encoded)) + encoded)

    def encode(self, content: Dataset) -> bytes:
        """Elements, encoded as this data set is."""
        buffer = DicomBytesIO()
        buffer.is_implicit_VR = self.encoding.is_implicit
        buffer.is_little_endian = not self.encoding.is_big_endian
        write_dataset(buffer, content)
        return buffer.getvalue()


def read_layout(stream: BinaryIO, transfer_syntax_uid: str, offset: int) -> Layout:
    """Find the elements of a data set that is not deflated, in bounded time and memory.

    Raises:
        InvalidInstance: it is not what PS3.5 7 allows, or has too many elements.
    """
    reader, encoding = data_set_reader(stream, transfer_syntax_uid, offset)
    entries = tuple(Entry(*found) for found in reader.elements(encoding, PIXELS))
    by_tag = {entry.tag: entry for entry in reversed(entries)}
    return Layout(stream, offset, encoding, reader, entries, by_tag)


def inflated(stream: BinaryIO, transfer_syntax_uid: str, offset: int) -> tuple[BinaryIO, str, int]:
    """The data set in a form that can be read anywhere: stream, transfer syntax and offset.

    A deflated one (PS3.5 A.5) comes back inflated in memory, up to 64 MiB.

    Raises:
        InvalidInstance: it is damaged or inflates to more.
    """
    if transfer_syntax_uid not in DEFLATED:
        return stream, transfer_syntax_uid, offset
    source = InflatedBytes(stream, offset)
    data = source.read_at(0, MAX_INFLATED_BYTES + 1)
    if len(data) > MAX_INFLATED_BYTES:
        raise InvalidInstance("The deflated data set inflates to more than can be searched")
    return io.BytesIO(data), EXPLICIT_VR_LITTLE_ENDIAN, 0
