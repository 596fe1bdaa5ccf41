"""Encoded Data Elements (PS3.5 7): find them, skip them, take out the few that are wanted.

Values are handed out as bytes, in pydicom's containers; ``pacs.dicom.text.values`` makes texts of them.
Written by hand rather than on pydicom's reader because every SOP Instance received passes here:
pydicom's reader allocates what a length field claims, recurses as deep as the sender nests, reports
trouble through ``warnings``, which belong to the process and not to the thread, and is slower.

Theory of operation. A data set is walked forward, element by element, up to its end or to the first tag after the last
wanted one. Runs of plain elements that are in memory are walked in one tight loop, which leaves everything that needs a
second look to the methods below it, and to ``element_headers`` where an element ends. Wanted sequences are the only
place of recursion, and it is bounded.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from pacs.dicom.encoding.byte_source import ByteSource
from pacs.dicom.encoding.element_encoding import (
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    VRS,
    Encoding,
)
from pacs.dicom.encoding.element_headers import (
    DELIMITERS,
    EXPLICIT_HEADER,
    HEADER_SIZES,
    IMPLICIT_HEADER,
    LONG_LENGTH,
    MAX_PASSED_ELEMENTS,
    ElementHeader,
    ElementHeaders,
    Fragments,
    ends_within,
)
from pacs.dicom.encoding.plain_elements import Elements, PlainElement
from pacs.dicom.encoding.plain_values import Element, dictionary_facts
from pacs.dicom.error_comment import about
from pacs.errors import IncompleteInstance, InvalidInstance

# Wanted sequences are code and request sequences; the Standard nests them three deep.
MAX_DEPTH = 16
# The index keeps at most 10,240 characters of a text, each of at most four bytes in most encodings.
MAX_VALUE_BYTES = 64 * 1024
# The index keeps at most 65,536 characters for a sequence, so no more can be of use.
MAX_SEQUENCE_BYTES = 512 * 1024
_HEADER_BYTES = 8

_PIXEL_DATA = 0x7FE00010
#: What a data set may be filled up with behind its last element.
_FILLERS = (b"\0", b" ", b"\xff")
_FILLER_BYTES = 64 * 1024
#: The fragments of an image that is no multi-frame, with the Basic Offset Table.
_FEW_FRAGMENTS = 16
#: Above every tag.
_NO_TAG = 1 << 32


class ElementReader(ElementHeaders):
    """Walks the Data Elements of one data set.

    Raises:
        IncompleteInstance: from every method, if an element that it comes to runs past the end of the data set.
        InvalidInstance: from every method, if the bytes are not what PS3.5 7 allows.
    """

    def __init__(
        self,
        source: ByteSource,
        maximum_value_bytes: int = MAX_VALUE_BYTES,
        most_passed: int = MAX_PASSED_ELEMENTS,
    ) -> None:
        super().__init__(source, most_passed)
        self._maximum_value_bytes = maximum_value_bytes
        self._sequence_bytes = 0
        self._highest = 0  # of the tags passed
        #: The tags that ``wanted`` found but did not take.
        self.left_out: set[int] = set()
        #: Encapsulated Pixel Data that ``whole`` came by.
        self.fragments_seen: Fragments | None = None

    def wanted(self, encoding: Encoding, tags: Container[int], last: int) -> Elements:
        """The elements with one of these tags, up to the first tag after ``last``; of duplicates, the last one."""
        found: Elements = {}
        for _ in self._steps(encoding, tags, last, found):
            pass
        return found

    def gathered(self, encoding: Encoding, tags: Container[int], last: int) -> Elements:
        """As ``wanted``, also those behind ``last``, if reading on to them is cheap.

        Not more than a few fragments are walked, and what is wrong behind ``last`` is not looked at: a data set that
        was cut in its Pixel Data has the rest of its elements.
        """
        found: Elements = {}
        try:
            for header in self._steps(encoding, tags, _NO_TAG, found):
                self._highest = max(self._highest, header.tag)
                if header.tag == _PIXEL_DATA and header.length == UNDEFINED_LENGTH:
                    # Each fragment could be a read of the disk.
                    self._most_passed = min(self._most_passed, self._passed + _FEW_FRAGMENTS)
        except InvalidInstance:
            if self._highest <= last:
                raise
        return found

    def whole(self, encoding: Encoding, tags: Container[int]) -> Elements:
        """The elements with one of these tags, wherever they are; every element is there to its last byte.

        Encapsulated Pixel Data may lack its delimiter: see ``fragments_seen``.
        """
        found: Elements = {}
        for _ in self._steps(encoding, tags, _NO_TAG, found):
            pass
        if not self._source.is_whole():
            raise IncompleteInstance(
                f"The deflated data set breaks off, {self._source.end} bytes inflated"
            )
        return found

    def _steps(
        self, encoding: Encoding, tags: Container[int], last: int, found: Elements
    ) -> Iterator[ElementHeader]:
        """Walk to the end or the first tag after ``last``, take what is wanted, and yield what needed a second look."""
        position = 0
        header: ElementHeader | None = None
        while True:
            position = self._take_plain(position, encoding, tags, last, found)
            if not self._has_element(position, header, encoding):
                break
            if (behind := self._behind_filler(position)) != position:
                position, header = behind, None
                continue
            header = self.header(position, encoding)
            if header.tag in DELIMITERS:
                # Of what, nobody knows. DCMTK and pydicom stop there, and lose what is behind it.
                position = header.value_at
                continue
            if header.tag > last:
                break
            yield header
            position = self._step(header, encoding, tags, found)

    def _step(
        self, header: ElementHeader, encoding: Encoding, tags: Container[int], found: Elements
    ) -> int:
        if header.tag not in tags:
            if header.tag == _PIXEL_DATA and header.length == UNDEFINED_LENGTH:
                self.fragments_seen = self.fragments(header, encoding)
                return self.fragments_seen.end
            return self.skip(header, encoding)
        self._sequence_bytes = 0
        element, position = self._take(header, encoding, depth=0)
        if element is not None and self._sequence_bytes <= MAX_SEQUENCE_BYTES:
            found[header.tag] = element
        else:
            self.left_out.add(header.tag)
        return position

    def every(self, encoding: Encoding) -> Dataset:
        """All elements, none left out: an Identifier must not lose a key.

        Raises:
            InvalidInstance: also if there is an element that ``wanted`` would pass over.
        """
        elements: dict[BaseTag, Element] = {}
        position = 0
        header: ElementHeader | None = None
        while self._has_element(position, header, encoding):
            header = self.header(position, encoding)
            self._sequence_bytes = 0
            element, position = self._take(header, encoding, depth=0)
            if element is None or self._sequence_bytes > MAX_SEQUENCE_BYTES:
                raise InvalidInstance(about(header.tag, "cannot be read"))
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
        size, taken = len(window), 0
        while at + 12 <= size:
            if is_implicit:
                group, number, length = IMPLICIT_HEADER(window, at)
                vr, value_at = b"", at + 8
            else:
                group, number, vr, length = EXPLICIT_HEADER(window, at)
                value_at = at + HEADER_SIZES.get(vr, size + 1)
                if value_at == at + 12:
                    (length,) = LONG_LENGTH(window, at + 8)
            tag, end = group << 16 | number, value_at + length
            if tag > last or end > size:
                break
            if tag in tags:
                plain = _plain_element(tag, vr, window[value_at:end])
                if plain is None:
                    break
                found[tag] = plain
            at, taken = end, tag
            self._elements += 1
        self._highest = max(self._highest, taken)
        return position + at - begin

    def elements(
        self, encoding: Encoding, stop: Container[int]
    ) -> Iterator[tuple[ElementHeader, int, int]]:
        """The elements of the data set, each with where it begins and ends, up to one of ``stop``.

        The content of that last one is not walked: it ends where its value begins.
        """
        position = 0
        header: ElementHeader | None = None
        while self._has_element(position, header, encoding):
            header = self.header(position, encoding)
            begin = position
            if header.tag in DELIMITERS:
                # As in ``_steps``; no element.
                position = header.value_at
                continue
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
            self._count()
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
                raise InvalidInstance(about(header.tag, "is shorter than what it contains"))
            yield begin, content, position

    def find(
        self, tags: Container[int], begin: int, end: int, encoding: Encoding
    ) -> Iterator[ElementHeader]:
        """The headers of the elements with one of these tags, between two positions of a data set or Item."""
        position = begin
        while position < end and self._has_element(position, None, encoding):
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

    def _has_element(
        self, position: int, previous: ElementHeader | None, encoding: Encoding
    ) -> bool:
        head = self._source.read_at(position, _HEADER_BYTES)
        if len(head) == _HEADER_BYTES:
            return True
        if previous is not None and not self._source.reaches(position):
            raise ends_within(previous, self._source.end)
        # Some writers fill up the data set; a header cut short raises where it is read. In big endian it begins with
        # NUL, as does the byte that is missing from a value of odd length.
        if len(head) == 1 and encoding.is_big_endian and position % 2 == 0:
            return True
        return not _is_filler(head)

    def _behind_filler(self, position: int) -> int:
        """Where the bytes end that some writers fill up a data set with, in steps of eight; most have none."""
        head = self._source.read_at(position, _HEADER_BYTES)
        if head[:1] not in _FILLERS or head.strip(head[:1]) or len(head) < _HEADER_BYTES:
            return position
        # So much at a time as there was before: a few bytes of it between many elements must not cost a read each.
        size = _HEADER_BYTES
        while True:
            piece = self._source.read_at(position, size)
            filled = len(piece) - len(piece.lstrip(head[:1]))
            if not piece or filled < len(piece):
                return position + filled - filled % _HEADER_BYTES
            position += filled
            size = min(2 * size, _FILLER_BYTES)

    def _end(self, header: ElementHeader) -> int:
        end = header.value_at + header.length
        if not self._source.reaches(end):
            raise ends_within(header, self._source.end)
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
            raise InvalidInstance(about(header.tag, f"is nested more than {MAX_DEPTH} deep"))
        encoding = self._content(header, encoding)
        end = None if header.length == UNDEFINED_LENGTH else header.value_at + header.length
        if end is not None and header.length > MAX_SEQUENCE_BYTES:
            self._sequence_bytes += header.length
            return None, self._end(header)
        items: list[Dataset] = []
        position = header.value_at
        while end is None or position < end:
            self._count()
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


def _plain_element(tag: int, vr_bytes: bytes, value: bytes) -> PlainElement | None:
    """An element as it is; None if it is not plain after all."""
    facts = dictionary_facts(tag)
    dictionary_vr = facts[0] if facts else "UN"
    vr = VRS[vr_bytes] if vr_bytes and vr_bytes != b"UN" else dictionary_vr
    if vr == "SQ" or dictionary_vr == "SQ" or len(value) > MAX_VALUE_BYTES:
        return None
    return vr, value


def _closed(position: int, end: int | None, tag: int) -> int:
    # Where a sequence or Item ends, given where its content does.
    if end is None:
        return position
    if position > end:
        raise InvalidInstance(about(tag, "is shorter than what it contains"))
    return end


def _is_filler(rest: bytes) -> bool:
    # Less than a header. A single space can be the first byte of a tag, two cannot.
    return not rest.strip(b"\0") or not rest.strip(b"\xff") or (len(rest) > 1 and not rest.strip())
