"""Encoded Data Elements (PS3.5 7): find them, skip them, take out the few that are wanted.

Values are handed out as bytes, in pydicom's containers; ``pacs.dicom.values`` makes texts of them.
Written by hand rather than on pydicom's reader because every SOP Instance received passes here:
pydicom's reader allocates what a length field claims, recurses as deep as the sender nests, reports
trouble through ``warnings``, which belong to the process and not to the thread, and is slower.

Theory of operation. A data set is walked forward, element by element, up to the first tag after the
last wanted one. Runs of plain elements that are in memory are walked in one tight loop, which leaves
everything that needs a second look to the methods below it. Elements of defined length that are not
wanted are skipped by arithmetic. Those of undefined length have to be walked, which is done with an
explicit stack, so depth costs nothing. Wanted sequences are the only place of recursion, and it is
bounded. So is the number of elements, hence the time.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from struct import Struct
from typing import NamedTuple

from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from pacs.dicom.byte_source import ByteSource
from pacs.dicom.encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITER,
    LONG_VRS,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
)
from pacs.dicom.plain_elements import Elements, PlainElement
from pacs.dicom.plain_values import Element, dictionary_facts
from pacs.errors import InvalidInstance

# About 0.5 s of walking. The largest structured reports have some ten thousands of elements.
MAX_ELEMENTS = 500_000
# Wanted sequences are code and request sequences; the Standard nests them three deep.
MAX_DEPTH = 16
# The index keeps at most 10,240 characters of a text, each of at most four bytes in most encodings.
MAX_VALUE_BYTES = 64 * 1024
# The index keeps at most 65,536 characters for a sequence, so no more can be of use.
MAX_SEQUENCE_BYTES = 512 * 1024
_HEADER_BYTES = 8

_VRS = {str(vr).encode(): str(vr) for vr in VR if len(str(vr)) == 2}

# The bytes of an element's header by VR, little endian (PS3.5 7.1.2).
_HEADER_SIZES = {vr: 12 if vr in LONG_VRS else 8 for vr in _VRS}
_EXPLICIT_HEADER = Struct("<HH2sH").unpack_from
_IMPLICIT_HEADER = Struct("<HHL").unpack_from
_LONG_LENGTH = Struct("<L").unpack_from


class ElementHeader(NamedTuple):
    """Tag, VR and length of one Data Element; VR is empty where the encoding does not tell."""

    tag: int
    vr: str
    length: int
    value_at: int


class ElementReader:
    """Walks the Data Elements of one data set.

    Raises:
        InvalidInstance: from every method, if the bytes are not what PS3.5 7 allows.
    """

    def __init__(self, source: ByteSource, maximum_value_bytes: int = MAX_VALUE_BYTES) -> None:
        self._source = source
        self._maximum_value_bytes = maximum_value_bytes
        self._elements = 0
        self._sequence_bytes = 0
        #: The tags that ``wanted`` found but did not take.
        self.left_out: set[int] = set()

    def encoding_at(self, position: int, declared: Encoding) -> Encoding:
        """How the elements from here on are encoded, by the first one, in the declared byte order.

        A file that declares one kind of VR and contains the other is a known fault of some writers,
        and Items within UN are implicit by rule but not by habit (PS3.5 6.2.2). Two letters that
        are a VR would be an implicit length of more than 16 KB, which no first element of a data
        set or Item has.
        """
        head = self._source.read_at(position, _HEADER_BYTES)
        if len(head) < _HEADER_BYTES or head[:4] in _DELIMITER_BYTES:
            return declared
        is_implicit = not _is_two_capitals(head[4:6])
        if declared.is_big_endian:
            return IMPLICIT_BIG if is_implicit else EXPLICIT_BIG
        return IMPLICIT_LITTLE if is_implicit else EXPLICIT_LITTLE

    def wanted(self, encoding: Encoding, tags: Container[int], last: int) -> Elements:
        """The elements with one of these tags, up to ``last``; of duplicates, the last one."""
        found: Elements = {}
        position = 0
        header: ElementHeader | None = None
        while True:
            position = self._take_plain(position, encoding, tags, last, found)
            if not self._has_element(position, header):
                break
            header = self.header(position, encoding)
            if header.tag > last:
                break
            if header.tag not in tags:
                position = self.skip(header, encoding)
                continue
            self._sequence_bytes = 0
            element, position = self._take(header, encoding, depth=0)
            if element is not None and self._sequence_bytes <= MAX_SEQUENCE_BYTES:
                found[header.tag] = element
            else:
                self.left_out.add(header.tag)
        return found

    def every(self, encoding: Encoding) -> Dataset:
        """All elements, none left out: an Identifier must not lose a key.

        Raises:
            InvalidInstance: also if there is an element that ``wanted`` would pass over.
        """
        elements: dict[BaseTag, Element] = {}
        position = 0
        header: ElementHeader | None = None
        while self._has_element(position, header):
            header = self.header(position, encoding)
            self._sequence_bytes = 0
            element, position = self._take(header, encoding, depth=0)
            if element is None or self._sequence_bytes > MAX_SEQUENCE_BYTES:
                raise InvalidInstance(f"{_name(header.tag)} cannot be read")
            elements[element.tag] = element
        return Dataset(elements)

    def _take_plain(
        self, position: int, encoding: Encoding, tags: Container[int], last: int, found: Elements
    ) -> int:
        """Take what is wanted of a run of plain elements; return where the first other one is.

        Plain is an element with a known VR that lies in memory whole. It is all that most headers
        have, and each goes through here in a third of the time.
        """
        if encoding.is_big_endian:
            return position
        window, begin = self._source.at_hand(position)
        at, is_implicit = begin, encoding.is_implicit
        size = len(window)
        while at + 12 <= size:
            if is_implicit:
                group, number, length = _IMPLICIT_HEADER(window, at)
                vr, value_at = b"", at + 8
            else:
                group, number, vr, length = _EXPLICIT_HEADER(window, at)
                value_at = at + _HEADER_SIZES.get(vr, size + 1)
                if value_at == at + 12:
                    (length,) = _LONG_LENGTH(window, at + 8)
            tag, end = group << 16 | number, value_at + length
            if tag > last or end > size:
                break
            if tag in tags:
                plain = _plain_element(tag, vr, window[value_at:end])
                if plain is None:
                    break
                found[tag] = plain
            at = end
            self._elements += 1
        return position + at - begin

    def header(self, position: int, encoding: Encoding) -> ElementHeader:
        """The header of the element at this position."""
        self._count()
        head = self._source.read_at(position, 12)
        if len(head) < _HEADER_BYTES:
            raise InvalidInstance(f"The data set ends within an element header at byte {position}")
        vr_bytes = head[4:6]
        vr = _VRS.get(vr_bytes)
        if encoding.is_implicit or not (vr or _is_two_capitals(vr_bytes)):
            # Some writers of explicit VR go implicit in between; delimiters have no VR either way.
            group, number, length = encoding.tag_and_length.unpack_from(head)
            return ElementHeader(group << 16 | number, "", length, position + 8)
        group, number, _, length = encoding.tag_and_short_length.unpack_from(head)
        if vr and vr_bytes not in LONG_VRS:
            return ElementHeader(group << 16 | number, vr, length, position + 8)
        # A VR that is not known has the long form, as every new one will have (PS3.5 6.2).
        if len(head) < 12:
            raise InvalidInstance(f"The data set ends within an element header at byte {position}")
        (length,) = encoding.long_length.unpack_from(head, 8)
        return ElementHeader(group << 16 | number, vr or "UN", length, position + 12)

    def elements(
        self, encoding: Encoding, stop: Container[int]
    ) -> Iterator[tuple[ElementHeader, int, int]]:
        """The elements of the data set, each with where it begins and ends, up to one of ``stop``.

        The content of that last one is not walked: it ends where its value begins.
        """
        position = 0
        header: ElementHeader | None = None
        while self._has_element(position, header):
            header = self.header(position, encoding)
            begin = position
            if header.tag in stop:
                yield header, begin, header.value_at
                return
            position = self.skip(header, encoding)
            yield header, begin, position

    def items(self, header: ElementHeader, encoding: Encoding) -> Iterator[tuple[int, int, int]]:
        """The Items of a sequence: where each begins, where its content does, and where it ends."""
        undefined = header.length == UNDEFINED_LENGTH
        position, end = header.value_at, None if undefined else header.value_at + header.length
        while end is None or position < end:
            begin = position
            tag, length, position = self._item_header(begin, encoding, header.tag)
            if tag == SEQUENCE_DELIMITER:
                return
            content = position
            if length == UNDEFINED_LENGTH:
                position = self._walk(
                    [encoding, self.encoding_at(content, encoding)], content, ITEM
                )
            else:
                position += length
            if end is not None and position > end:
                raise InvalidInstance(f"{_name(header.tag)} is shorter than what it contains")
            yield begin, content, position

    def find(
        self, tags: Container[int], begin: int, end: int, encoding: Encoding
    ) -> Iterator[ElementHeader]:
        """The headers of the elements with one of these tags, between two positions within an Item."""
        position = begin
        while position < end:
            header = self.header(position, encoding)
            if header.tag == ITEM_DELIMITER:
                return
            if header.tag in tags:
                yield header
            position = self.skip(header, encoding)

    def has_bytes(self, position: int) -> bool:
        """Whether the data set has at least ``position`` bytes."""
        return self._source.reaches(position)

    def value(self, header: ElementHeader) -> bytes:
        """The first bytes of a value of defined length, at most ``maximum_value_bytes``."""
        value = self._source.read_at(header.value_at, min(header.length, self._maximum_value_bytes))
        self._end(header)
        return value

    def _count(self) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise InvalidInstance(
                f"The header of the data set has more than {MAX_ELEMENTS} elements"
            )

    def _has_element(self, position: int, previous: ElementHeader | None) -> bool:
        head = self._source.read_at(position, _HEADER_BYTES)
        if len(head) == _HEADER_BYTES:
            return True
        if previous is not None and not self._source.reaches(position):
            raise _ends_within(previous)
        # Some writers pad the data set with NUL; a header cut short raises where it is read.
        return bool(head.strip(b"\0"))

    def _end(self, header: ElementHeader) -> int:
        end = header.value_at + header.length
        if not self._source.reaches(end):
            raise _ends_within(header)
        return end

    def _take(
        self, header: ElementHeader, encoding: Encoding, depth: int
    ) -> tuple[Element | None, int]:
        # The element and the position after it; no element if it cannot be of use to the index.
        facts = dictionary_facts(header.tag)
        dictionary_vr = facts[0] if facts else "UN"
        vr = dictionary_vr if header.vr in ("", "UN") else header.vr
        if vr == "SQ" or (header.length == UNDEFINED_LENGTH and vr == "UN"):
            return self._take_sequence(header, encoding, depth)
        if header.length == UNDEFINED_LENGTH or dictionary_vr == "SQ":
            return None, self.skip(header, encoding)
        if depth == 0:
            value = self.value(header)
        elif self._is_within_budget(header.length + _HEADER_BYTES):
            value = self._source.read_at(header.value_at, header.length)
        else:
            return None, self._end(header)
        element = RawDataElement(
            BaseTag(header.tag),
            vr,
            len(value),
            value,
            header.value_at,
            encoding.is_implicit,
            not encoding.is_big_endian,
        )
        return element, self._end(header)

    def _is_within_budget(self, size: int) -> bool:
        self._sequence_bytes += size
        return self._sequence_bytes <= MAX_SEQUENCE_BYTES

    def _take_sequence(
        self, header: ElementHeader, encoding: Encoding, depth: int
    ) -> tuple[DataElement | None, int]:
        if depth > MAX_DEPTH:
            raise InvalidInstance(f"{_name(header.tag)} is nested more than {MAX_DEPTH} deep")
        if header.vr == "UN":
            encoding = IMPLICIT_LITTLE
        end = None if header.length == UNDEFINED_LENGTH else header.value_at + header.length
        if end is not None and header.length > MAX_SEQUENCE_BYTES:
            self._sequence_bytes += header.length
            return None, self._end(header)
        items: list[Dataset] = []
        position = header.value_at
        while end is None or position < end:
            tag, length, position = self._item_header(position, encoding, header.tag)
            if tag == SEQUENCE_DELIMITER:
                break
            elements, position = self._take_item(position, length, encoding, depth)
            if self._is_within_budget(_HEADER_BYTES):
                items.append(Dataset(elements))
        element = DataElement(
            BaseTag(header.tag),
            "SQ",
            Sequence(items),
            already_converted=True,
            validation_mode=config.IGNORE,
        )
        return element, _closed(position, end, header.tag)

    def _take_item(
        self, position: int, length: int, encoding: Encoding, depth: int
    ) -> tuple[dict[BaseTag, Element], int]:
        end = None if length == UNDEFINED_LENGTH else position + length
        encoding = self.encoding_at(position, encoding)
        elements: dict[BaseTag, Element] = {}
        while end is None or position < end:
            header = self.header(position, encoding)
            if header.tag == ITEM_DELIMITER:
                position = header.value_at
                break
            element, position = self._take(header, encoding, depth + 1)
            if element is not None:
                elements[element.tag] = element
        return elements, _closed(position, end, ITEM)

    def _item_header(self, position: int, encoding: Encoding, within: int) -> tuple[int, int, int]:
        self._count()
        head = self._source.read_at(position, _HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            raise InvalidInstance(f"The data set ends within {_name(within)}")
        group, number, length = encoding.tag_and_length.unpack(head)
        tag = group << 16 | number
        if tag not in (ITEM, SEQUENCE_DELIMITER):
            raise InvalidInstance(f"{_name(within)} contains {_name(tag)} in place of an Item")
        return tag, length, position + _HEADER_BYTES

    def skip(self, header: ElementHeader, encoding: Encoding) -> int:
        """The position after an element; its content is walked only if its length is undefined."""
        if header.length != UNDEFINED_LENGTH:
            # Whether the data set reaches that far shows when the next element is read.
            return header.value_at + header.length
        within = IMPLICIT_LITTLE if header.vr == "UN" else encoding
        return self._walk([within], header.value_at, header.tag)

    def _walk(self, open_encodings: list[Encoding], position: int, within: int) -> int:
        # One entry for each open sequence and Item, alternating: how its content is encoded. Ends with the
        # last of them: the sequence, or the Item of a sequence that stays open.
        open_before = len(open_encodings) - 1
        while len(open_encodings) > open_before:
            if len(open_encodings) % 2:
                position = self._step_in_sequence(position, open_encodings, within)
            else:
                position = self._step_in_item(position, open_encodings)
        return position

    def _step_in_sequence(self, position: int, open_encodings: list[Encoding], within: int) -> int:
        encoding = open_encodings[-1]
        tag, length, position = self._item_header(position, encoding, within)
        if tag == SEQUENCE_DELIMITER:
            open_encodings.pop()
        elif length == UNDEFINED_LENGTH:
            open_encodings.append(self.encoding_at(position, encoding))
        else:
            position += length
        return position

    def _step_in_item(self, position: int, open_encodings: list[Encoding]) -> int:
        encoding = open_encodings[-1]
        header = self.header(position, encoding)
        if header.tag == ITEM_DELIMITER:
            open_encodings.pop()
        elif header.length == UNDEFINED_LENGTH:
            open_encodings.append(IMPLICIT_LITTLE if header.vr == "UN" else encoding)
        else:
            return header.value_at + header.length
        return header.value_at


_DELIMITER_BYTES = frozenset(
    order.pack(0xFFFE, number)
    for order in (Struct("<HH"), Struct(">HH"))
    for number in (0xE00D, 0xE0DD)
)


def _plain_element(tag: int, vr_bytes: bytes, value: bytes) -> PlainElement | None:
    """An element as it is; None if it is not plain after all."""
    facts = dictionary_facts(tag)
    dictionary_vr = facts[0] if facts else "UN"
    vr = _VRS[vr_bytes] if vr_bytes and vr_bytes != b"UN" else dictionary_vr
    if vr == "SQ" or dictionary_vr == "SQ" or len(value) > MAX_VALUE_BYTES:
        return None
    return vr, value


def _closed(position: int, end: int | None, tag: int) -> int:
    # Where a sequence or Item ends, given where its content does.
    if end is None:
        return position
    if position > end:
        raise InvalidInstance(f"{_name(tag)} is shorter than what it contains")
    return end


def _ends_within(header: ElementHeader) -> InvalidInstance:
    claim = f"which claims {header.length} bytes"
    return InvalidInstance(f"The data set ends within {_name(header.tag)}, {claim}")


def _is_two_capitals(vr: bytes) -> bool:
    return vr.isalpha() and vr.isupper()


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
