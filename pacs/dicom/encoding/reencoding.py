"""A data set in another uncompressed encoding (PS3.5 7, A.1 to A.3): headers and byte order change, values do not.

Value bytes are copied, so that text which does not fit its character set, and all else that a decoder would have an
opinion on, arrives as it was received. What comes out is a list of pieces: short values and headers, and ranges
of the source for what is long, which are read while they are sent. So memory depends on the number of elements.

What changes beside the headers: numbers of a VR of more than one byte are swapped when the byte order changes (PS3.5
7.3; OB and UN are not); Group Lengths go, for they would be wrong; the lengths of sequences and Items of defined length
are those of the new encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import BinaryIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR, private_dictionary_VR

from pacs.dicom.encoding import element_writer
from pacs.dicom.encoding.byte_source import StreamBytes
from pacs.dicom.encoding.element_encoding import (
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
    declared_encoding,
)
from pacs.dicom.encoding.element_headers import DELIMITERS, ElementHeader, ends_within
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.encoding.pieces import Literal, Piece, Range, Swapped, swapped, total_size
from pacs.errors import InvalidInstance

#: Bytes of one number of a VR (PS3.5 6.2, 7.3). AT is two numbers of two bytes.
_UNITS = (
    dict.fromkeys(("AT", "OW", "SS", "US"), 2)
    | dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
    | dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
)
#: What implicit VR means where the dictionary offers several (PS3.5 A.1). US or SS is decided by Pixel Representation.
_OF_SEVERAL = {"OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}
_US_OR_SS = "US or SS"
_PIXEL_REPRESENTATION = 0x00280103
_PIXEL_DATA = 0x7FE00010
#: Of Type 3 wherever it is (PS3.3 C.7.6.1): a copy in small of what is sent with it.
_ICON_IMAGE_SEQUENCE = 0x00880200
#: Longer values stay in the source until they are sent.
_SHORT_BYTES = 1024
_HEADER_BYTES = 8
#: How often a walk asks whether it is to go on: after so many elements, some milliseconds.
_ELEMENTS_PER_CHECK = 1024
_MAX_LENGTH = 0xFFFFFFFE

#: Elements of the top level that are written anew: VR and value in the target's byte order; None leaves one out.
Replacements = Mapping[int, "tuple[str, Sequence[Piece]] | None"]


def _go_on() -> None:
    return


def _is_left_out(_tag: int) -> None:
    """Tell nobody."""


def reencoded(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    offset: int,
    target: Encoding,
    *,
    replacements: Replacements | None = None,
    check: Callable[[], None] = _go_on,
    leaves_out: Callable[[int], None] = _is_left_out,
) -> list[Piece]:
    """The data set from ``offset`` on, which is not deflated, in the encoding ``target``, as pieces of ``stream``.

    ``check`` is called every so often; what it raises ends the work. ``leaves_out`` is told the tag of an icon that is
    compressed: it is left out, as no uncompressed transfer syntax can have its fragments (PS3.5 A.4).

    Raises:
        InvalidInstance: the data set is not what PS3.5 7 allows, ends early, or cannot be told in ``target``.
    """
    walk = _Walk(StreamBytes(stream, offset), stream.seek(0, 2) - offset, check)
    source = walk.encoding_at(0, declared_encoding(transfer_syntax_uid))
    reencoder = _Reencoder(walk, source, target, offset, replacements or {}, leaves_out=leaves_out)
    return reencoder.run()


class _Walk(ElementReader):
    """Bounded by whoever asks and not by a number: an image of 10,000 frames has a million elements."""

    def __init__(self, source: StreamBytes, size: int, check: Callable[[], None]) -> None:
        super().__init__(source)
        self.source = source
        self.size = size
        self._check = check

    def count(self) -> None:
        """One header more was read."""
        self._count()

    def behind_filler(self, position: int) -> int:
        """Where the bytes end that some writers fill up a data set with."""
        return self._behind_filler(position)

    def is_over(self, position: int, encoding: Encoding) -> bool:
        """Whether the data set has no more elements."""
        return not self._has_element(position, None, encoding)

    def has_fragments(self, sequence: ElementHeader, encoding: Encoding) -> bool:
        """Whether an Item of a sequence has encapsulated Pixel Data."""
        within = self._content(sequence, encoding)
        return any(
            pixels.length == UNDEFINED_LENGTH
            for _, begin, end in self.items(sequence, within)
            for pixels in self.find({_PIXEL_DATA}, begin, end, self.encoding_at(begin, within))
        )

    def _count(self) -> None:
        self._elements += 1
        if self._elements % _ELEMENTS_PER_CHECK == 0:
            self._check()


@dataclass(slots=True)
class _Level:
    """The data set, a sequence or an Item that is being walked."""

    #: Of a sequence, its tag; of an Item, and of the data set, None.
    sequence: int | None
    #: How its content is encoded in the source.
    encoding: Encoding
    #: Where it ends; None where its delimiter says so.
    end: int | None
    #: No content reaches beyond this.
    limit: int
    #: Where its length is to be written when it is known.
    slot: tuple[bytearray, int, int] | None = None
    is_signed: bool = False
    #: Private Creators by group and block (PS3.5 7.8.1).
    creators: dict[tuple[int, int], str] = field(default_factory=dict)


class _Output:
    """What has been written so far."""

    def __init__(self, target: Encoding) -> None:
        self.position = 0
        self._length = Struct(">L" if target.is_big_endian else "<L")
        self._pieces: list[Piece | bytearray] = []
        self._buffer = bytearray()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._buffer += data
        self.position += len(data)

    def append(self, piece: Piece) -> None:
        """Append a piece."""
        if self._buffer:
            self._pieces.append(self._buffer)
            self._buffer = bytearray()
        self._pieces.append(piece)
        self.position += piece.size

    def slot(self) -> tuple[bytearray, int, int]:
        """The length that was just written, to be corrected: where it is, and where its content begins."""
        return self._buffer, len(self._buffer) - 4, self.position

    def close(self, slot: tuple[bytearray, int, int]) -> None:
        """Correct the length of what ends here."""
        buffer, at, begin = slot
        length = self.position - begin
        if length > _MAX_LENGTH:
            raise InvalidInstance("A sequence would be longer than its length can say")
        self._length.pack_into(buffer, at, length)

    def pieces(self) -> list[Piece]:
        """All of it."""
        whole = [*self._pieces, self._buffer] if self._buffer else self._pieces
        return [Literal(bytes(one)) if isinstance(one, bytearray) else one for one in whole]


class _Reencoder:
    """One data set on its way into another encoding."""

    def __init__(
        self,
        walk: _Walk,
        source: Encoding,
        target: Encoding,
        offset: int,
        replacements: Replacements,
        *,
        leaves_out: Callable[[int], None],
    ) -> None:
        self._walk = walk
        self._target = target
        self._offset = offset
        self._replacements = replacements
        self._leaves_out = leaves_out
        self._output = _Output(target)
        self._levels = [_Level(None, source, None, walk.size)]
        if source.is_implicit and not target.is_implicit:
            self._levels[0].is_signed = self._signedness(source)

    def run(self) -> list[Piece]:
        """Walk the data set to its end."""
        position = 0
        while True:
            level = self._levels[-1]
            if level.end is not None and position >= level.end:
                if position > level.end:
                    raise InvalidInstance(f"{_name(level)} is shorter than what it contains")
                self._leave(level)
            elif level.sequence is not None:
                position = self._item(level, level.sequence, position)
            elif len(self._levels) > 1:
                position = self._element(level, position)
            else:
                position = self._walk.behind_filler(position)
                if self._walk.is_over(position, level.encoding):
                    return self._output.pieces()
                position = self._element(level, position)

    def _signedness(self, encoding: Encoding) -> bool:
        found = self._walk.find({_PIXEL_REPRESENTATION}, 0, self._walk.size, encoding)
        for header in found:
            return self._is_signed(header, encoding)
        return False

    def _is_signed(self, header: ElementHeader, encoding: Encoding) -> bool:
        value = self._walk.source.read_at(header.value_at, min(header.length, 2))
        return int.from_bytes(value, "big" if encoding.is_big_endian else "little") == 1

    def _leave(self, level: _Level) -> None:
        if level.slot is not None:
            self._output.close(level.slot)
        self._levels.pop()

    # Sequences

    def _item(self, level: _Level, sequence: int, position: int) -> int:
        head = self._walk.source.read_at(position, _HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            raise InvalidInstance(f"The data set ends within {_tag(sequence)}")
        group, number, length = level.encoding.tag_and_length.unpack(head)
        tag, begin = group << 16 | number, position + _HEADER_BYTES
        self._walk.count()
        if tag == SEQUENCE_DELIMITER:
            if level.end is None:
                self._output.write(element_writer.item_header(tag, 0, self._target))
                self._leave(level)
            elif begin < level.end:
                raise InvalidInstance(f"{_tag(sequence)} is longer than what it contains")
            return begin
        if tag != ITEM:
            raise InvalidInstance(f"{_tag(sequence)} contains {_tag(tag)} in place of an Item")
        self._open(
            level, None, begin, length, element_writer.item_header(tag, length, self._target)
        )
        return begin

    def _open(
        self, level: _Level, sequence: int | None, begin: int, length: int, header: bytes
    ) -> None:
        """Begin a sequence or an Item."""
        self._output.write(header)
        encoding = level.encoding
        if sequence is None:
            encoding = self._walk.encoding_at(begin, encoding)
        end = None if length == UNDEFINED_LENGTH else begin + length
        if end is not None and end > level.limit:
            raise ends_within(ElementHeader(sequence or ITEM, "", length, begin), level.limit)
        opened = _Level(sequence, encoding, end, level.limit if end is None else end)
        opened.slot = None if end is None else self._output.slot()
        opened.is_signed = level.is_signed
        if end == begin:
            # Nothing is in there that could be encoded in some way.
            opened.encoding = level.encoding
        self._levels.append(opened)

    # Elements

    def _element(self, level: _Level, position: int) -> int:
        header = self._walk.header(position, level.encoding)
        tag, length = header.tag, header.length
        if tag >> 16 == ITEM >> 16:
            self._delimiter(level, header)
            return header.value_at
        if length != UNDEFINED_LENGTH and header.value_at + length > level.limit:
            raise ends_within(header, level.limit)
        if len(self._levels) == 1 and tag in self._replacements:
            return self._replace(header, level.encoding)
        if tag & 0xFFFF == 0:
            return self._walk.skip(header, level.encoding)
        if tag == _PIXEL_REPRESENTATION:
            level.is_signed = self._is_signed(header, level.encoding)
        elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF:
            self._note_creator(level, header)
        vr = header.vr or self._implied_vr(level, tag, length)
        if vr == "SQ" or (vr == "UN" and self._is_sequence(level, header)):
            return self._sequence(level, header, vr)
        if length == UNDEFINED_LENGTH:
            raise self._in_fragments(tag)
        self._plain(level, header, vr)
        return header.value_at + length

    def _delimiter(self, level: _Level, header: ElementHeader) -> None:
        tag = header.tag
        if len(self._levels) == 1:
            # What it begins or ends, nobody knows; the index reads on behind it.
            if tag in DELIMITERS or (tag == ITEM and not header.length):
                return
        elif tag == ITEM_DELIMITER and level.end is None:
            self._output.write(element_writer.item_header(tag, 0, self._target))
            self._leave(level)
            return
        raise InvalidInstance(f"{_tag(tag)} is where no Item or sequence begins or ends")

    def _in_fragments(self, tag: int) -> InvalidInstance:
        within = self._levels[-2].sequence if len(self._levels) > 1 else None
        if within is None:
            return InvalidInstance(f"{_tag(tag)} is in fragments, which needs a compressed syntax")
        return InvalidInstance(f"{_tag(within)} has {_tag(tag)} in fragments within it")

    def _is_sequence(self, level: _Level, header: ElementHeader) -> bool:
        """Whether an element with VR UN is to be walked.

        Whoever gets to know what a UN is takes it for implicit VR, whatever its length (PS3.5 6.2.2; DCMTK does). Some
        is explicit, as it is where a sequence was relabelled as it was (pydicom looks): in implicit VR nothing would
        tell, and its Items would be read wrong. What no dictionary knows may be anything, and is copied.
        """
        if header.length == UNDEFINED_LENGTH:
            return True
        if not (header.vr and header.length and self._target.is_implicit):
            return False
        creator = "" if header.tag >> 16 & 1 == 0 else self._creator(level, header.tag)
        return (
            _is_known_sequence(header.tag, creator) and not self._walk.within_un(header).is_implicit
        )

    def _sequence(self, level: _Level, header: ElementHeader, vr: str) -> int:
        tag, length = header.tag, header.length
        encoding = level.encoding
        if tag == _ICON_IMAGE_SEQUENCE and self._walk.has_fragments(header, encoding):
            self._leaves_out(tag)
            return self._walk.skip(header, encoding)
        if vr == "UN" and header.vr:
            # What is in it is implicit VR little endian by rule (PS3.5 6.2.2), though not by habit.
            encoding = self._walk.within_un(header)
            end = self._walk.skip(header, level.encoding)
            if encoding.is_implicit or not self._target.is_implicit:
                head = element_writer.element_header(tag, "UN", length, self._target)
                self._output.write(head)
                self._output.append(Range(self._offset + header.value_at, end - header.value_at))
                return end
        # Of implicit VR only a sequence has no length, whatever else is not known of it.
        head = element_writer.element_header(tag, "SQ", length, self._target)
        self._open(level, tag, header.value_at, length, head)
        self._levels[-1].encoding = encoding
        return header.value_at

    def _plain(self, level: _Level, header: ElementHeader, vr: str) -> None:
        tag, length = header.tag, header.length
        changes_order = level.encoding.is_big_endian != self._target.is_big_endian
        unit = _UNITS.get(vr, 1) if changes_order else 1
        if not element_writer.has_room(vr, length, self._target):
            # PS3.5 6.2.2: then UN, whose content is little endian.
            unit = _UNITS.get(vr, 1) if level.encoding.is_big_endian else 1
            vr = "UN"
        output = self._output
        output.write(element_writer.element_header(tag, vr, length, self._target))
        if length <= _SHORT_BYTES:
            value = self._walk.source.read_at(header.value_at, length)
            output.write(value if unit == 1 else swapped(value, unit))
        else:
            whole = Range(self._offset + header.value_at, length)
            output.append(whole if unit == 1 else Swapped(whole.begin, length, unit))

    def _replace(self, header: ElementHeader, encoding: Encoding) -> int:
        if replacement := self._replacements[header.tag]:
            self._write(header, *replacement)
        if header.length == UNDEFINED_LENGTH:
            # Pixel Data, which may lack its delimiter.
            return self._walk.fragments(header, encoding).end
        return header.value_at + header.length

    def _write(self, header: ElementHeader, vr: str, pieces: Sequence[Piece]) -> None:
        size = total_size(pieces)
        if size > _MAX_LENGTH or not element_writer.has_room(vr, size, self._target):
            raise InvalidInstance(f"{_tag(header.tag)} would be longer than its length can say")
        self._output.write(element_writer.element_header(header.tag, vr, size, self._target))
        for piece in pieces:
            self._output.append(piece)

    # What implicit VR does not say

    def _implied_vr(self, level: _Level, tag: int, length: int) -> str:
        vr = _dictionary_vr(tag)
        if vr == _US_OR_SS:
            return "SS" if level.is_signed else "US"
        if vr or not tag >> 16 & 1:
            return vr or "UN"
        if 0x10 <= tag & 0xFFFF <= 0xFF:
            return "LO"
        creator = self._creator(level, tag)
        return _private_vr(tag, creator, length) if creator else "UN"

    def _creator(self, level: _Level, tag: int) -> str:
        return level.creators.get((tag >> 16, tag >> 8 & 0xFF), "")

    def _note_creator(self, level: _Level, header: ElementHeader) -> None:
        value = self._walk.source.read_at(header.value_at, min(header.length, 64))
        creator = value.decode("latin_1").strip(" \0")
        level.creators[header.tag >> 16, header.tag & 0xFF] = creator


@lru_cache(maxsize=4096)
def _dictionary_vr(tag: int) -> str:
    """The VR of an Attribute of the Standard; empty if it is not known."""
    if tag >> 16 & 1 or not dictionary_has_tag(tag):
        return ""
    vr = dictionary_VR(tag)
    return _OF_SEVERAL.get(vr, vr)


@lru_cache(maxsize=4096)
def _private_vr(tag: int, creator: str, length: int) -> str:
    """The VR that a vendor's dictionary has for a private Attribute, if it can be: else UN, which never is wrong."""
    try:
        vr = private_dictionary_VR(tag, creator)
    except KeyError:
        return "UN"
    vr = _OF_SEVERAL.get(vr, vr)
    if len(vr) != 2 or vr == "SQ" or length % _UNITS.get(vr, 1):
        return "UN"
    return vr


@lru_cache(maxsize=4096)
def _is_known_sequence(tag: int, creator: str) -> bool:
    if not tag >> 16 & 1:
        return _dictionary_vr(tag) == "SQ"
    try:
        return private_dictionary_VR(tag, creator) == "SQ"
    except KeyError:
        return False


def _name(level: _Level) -> str:
    return "An Item" if level.sequence is None else _tag(level.sequence)


def _tag(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
