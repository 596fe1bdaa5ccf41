"""Headers of Data Elements (PS3.5 7.1): read them one by one, find out how they are encoded, and where they end.

Nothing here takes a value. Elements of defined length are passed by arithmetic. Those of undefined length have to be
walked, which is done with an explicit stack, so depth costs nothing; what is in memory is walked in one tight loop.
The number of elements is bounded, hence the time.

What the field writes and the Standard does not allow is read as DCMTK, GDCM and pydicom read it: implicit VR within
explicit, VRs that are none. It is decided by what comes next, because either reading of a length leads somewhere.
"""

from __future__ import annotations

from enum import Enum, auto
from struct import Struct
from typing import NamedTuple

from pacs.dicom.encoding.byte_source import ByteSource
from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITER,
    LONG_VRS,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    VRS,
    Encoding,
)
from pacs.dicom.encoding.plain_values import dictionary_facts
from pacs.dicom.error_comment import about
from pacs.errors import IncompleteInstance, InvalidInstance

# About 0.5 s, and 5 s if each takes a second look, also within sequences (big endian, a VR that is none, UN).
# The largest structured reports have some ten thousands of elements.
MAX_ELEMENTS = 500_000
# Passed over within sequences, about 2 s: 20,000 frames with 200 elements each in their functional groups.
MAX_PASSED_ELEMENTS = 4_000_000
_HEADER_BYTES = 8
_LONG_HEADER_BYTES = 12
# Fragments of fewer bytes are walked in memory rather than read one header at a time.
_SMALL_FRAGMENT_BYTES = 2048
# As many Items without content are looked behind for the first element of a sequence.
_EMPTY_ITEMS = 16

#: The bytes of an element's header by VR, little endian (PS3.5 7.1.2).
HEADER_SIZES = {vr: 12 if vr in LONG_VRS else 8 for vr in VRS}
EXPLICIT_HEADER = Struct("<HH2sH").unpack_from
IMPLICIT_HEADER = Struct("<HHL").unpack_from
LONG_LENGTH = Struct("<L").unpack_from
_LONG_HEADER = Struct("<HH2sHL").unpack_from
DELIMITERS = frozenset({ITEM_DELIMITER, SEQUENCE_DELIMITER})
_ITEM_TAGS = DELIMITERS | {ITEM}
_DELIMITER_GROUP = 0xFFFE
_DELIMITER_GROUP_BYTES = b"\xfe\xff"
_ITEM_NUMBER, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD


class ElementHeader(NamedTuple):
    """Tag, VR and length of one Data Element; VR is empty where the encoding does not tell."""

    tag: int
    vr: str
    length: int
    value_at: int


class Fragments(NamedTuple):
    """What there is of encapsulated Pixel Data."""

    #: Without the Basic Offset Table; -1 if not even that is there.
    number: int
    last_at: int
    last_bytes: int
    #: The position after it.
    end: int
    #: Whether the Sequence Delimitation Item is there.
    is_ended: bool


class _After(Enum):
    """What a reading of a header leads to."""

    #: The end of the data set or Item, or the next Item.
    END = auto()
    #: An element with a VR.
    VR = auto()
    #: What can be an element without.
    IMPLICIT = auto()
    #: Too far away to look, or a length that is undefined.
    UNKNOWN = auto()
    #: No element, or beyond the end of the data set.
    NOTHING = auto()


class ElementHeaders:
    """Reads the headers of one data set.

    Raises:
        IncompleteInstance: from every method, if an element runs past the end of the data set.
        InvalidInstance: from every method, if the bytes are not what PS3.5 7 allows.
    """

    def __init__(self, source: ByteSource, most_passed: int = MAX_PASSED_ELEMENTS) -> None:
        self._source = source
        self._most_passed = most_passed
        self._elements = 0
        self._passed = 0

    def encoding_at(self, position: int, declared: Encoding) -> Encoding:
        """How the elements from here on are encoded, by the first one, in the declared byte order.

        ``declared`` is that of the data set, or of what an Item is in. A file that declares one kind of VR and contains
        the other is a known fault of some writers. What is within implicit VR is implicit: there the length of an
        element may spell a VR (0x5455 is "UT"). Where a data set begins it does not: such a length is above 16 KB.
        """
        head = self._source.read_at(position, _LONG_HEADER_BYTES)
        if (
            declared.is_implicit
            or len(head) < _HEADER_BYTES
            or head[4:6] in VRS
            or _group(head, declared) == _DELIMITER_GROUP
        ):
            return declared
        if not _is_two_capitals(head[4:6]):
            implicit = _implicit_header(position, head, declared)
            after = self._after(implicit, _implicit(declared))
            if after is not _After.NOTHING:
                # One element without VR does not make those implicit that follow.
                return declared if after is _After.VR else _implicit(declared)
        if self._explicit_header(position, head, declared) is not None:
            return declared
        return _implicit(declared)

    def within_un(self, sequence: ElementHeader) -> Encoding:
        """How the elements of a sequence whose VR is UN are encoded.

        By rule they have implicit VR, little endian (PS3.5 6.2.2), by habit some have explicit VR.
        """
        position = sequence.value_at
        end = None if sequence.length == UNDEFINED_LENGTH else position + sequence.length
        for _ in range(_EMPTY_ITEMS):
            head = self._source.read_at(position, _HEADER_BYTES + _LONG_HEADER_BYTES)
            position += _HEADER_BYTES
            if len(head) < 2 * _HEADER_BYTES or _group(head, IMPLICIT_LITTLE) != _DELIMITER_GROUP:
                break
            (length,) = LONG_LENGTH(head, 4)
            first = head[_HEADER_BYTES:]
            if length and _group(first, IMPLICIT_LITTLE) != _DELIMITER_GROUP:
                end = end if length == UNDEFINED_LENGTH else position + length
                return self._kind_of_first(position, first, end)
        return IMPLICIT_LITTLE

    def _kind_of_first(self, position: int, head: bytes, end: int | None) -> Encoding:
        if head[4:6] not in VRS:
            return IMPLICIT_LITTLE
        implicit = _implicit_header(position, head, IMPLICIT_LITTLE)
        facts = dictionary_facts(implicit.tag)
        if end is not None and implicit.value_at + implicit.length > end:
            # Two letters and a length are a large number.
            is_explicit = True
        elif facts is not None:
            # What VR an Attribute has is known; that of a private one shows in what follows.
            is_explicit = VRS[head[4:6]] in (facts[0], "UN")
        else:
            is_explicit = self._after(implicit, IMPLICIT_LITTLE) is _After.NOTHING
        return EXPLICIT_LITTLE if is_explicit else IMPLICIT_LITTLE

    def header(self, position: int, encoding: Encoding) -> ElementHeader:
        """The header of the element at this position."""
        self._count()
        head = self._source.read_at(position, _LONG_HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            raise _cut_header(position, head, encoding)
        if encoding.is_implicit or _group(head, encoding) == _DELIMITER_GROUP:
            return _implicit_header(position, head, encoding)
        vr_bytes = head[4:6]
        vr = VRS.get(vr_bytes)
        if vr is None:
            return self._header_without_vr(position, head, encoding)
        group, number, _, length = encoding.tag_and_short_length.unpack_from(head)
        if vr_bytes not in LONG_VRS:
            return ElementHeader(group << 16 | number, vr, length, position + _HEADER_BYTES)
        if len(head) < _LONG_HEADER_BYTES:
            raise _cut_header(position, head, encoding)
        (length,) = encoding.long_length.unpack_from(head, 8)
        return ElementHeader(group << 16 | number, vr, length, position + _LONG_HEADER_BYTES)

    def _header_without_vr(self, position: int, head: bytes, encoding: Encoding) -> ElementHeader:
        # Some writers of explicit VR go implicit in between, others leave the VR blank. Which length is meant shows in
        # where it leads to.
        implicit = _implicit_header(position, head, encoding)
        is_capitals = _is_two_capitals(head[4:6])
        if not is_capitals and self._after(implicit, encoding) is not _After.NOTHING:
            return implicit
        explicit = self._explicit_header(position, head, encoding)
        if explicit is None and is_capitals and len(head) == _LONG_HEADER_BYTES:
            explicit = _long_header(position, head, encoding)
        if explicit is None:
            two_bytes = head[4:6].hex().upper()
            raise InvalidInstance(about(implicit.tag, f"has an unreadable VR (0x{two_bytes})"))
        return explicit

    def _explicit_header(
        self, position: int, head: bytes, encoding: Encoding
    ) -> ElementHeader | None:
        # A VR that is not known has the long form, as every new one will have (PS3.5 6.2); what can never be a VR has
        # the short one, as in DCMTK.
        forms: list[ElementHeader] = []
        if _is_two_capitals(head[4:6]) and len(head) == _LONG_HEADER_BYTES:
            forms.append(_long_header(position, head, encoding))
        group, number, _, length = encoding.tag_and_short_length.unpack_from(head)
        forms.append(ElementHeader(group << 16 | number, "UN", length, position + _HEADER_BYTES))
        for form in forms:
            after = self._after(form, encoding)
            # An implicit element that was cut behind its header looks like an empty one.
            if after is _After.VR or (after is _After.END and form.length):
                return form
        return None

    def _after(self, header: ElementHeader, encoding: Encoding) -> _After:
        """What follows an element if this is its header."""
        end = header.value_at + header.length
        after = (
            None
            if header.length == UNDEFINED_LENGTH
            else self._source.peek(end, _LONG_HEADER_BYTES)
        )
        if after is None:
            return _After.UNKNOWN
        if len(after) < _HEADER_BYTES:
            is_end = not after.strip(b"\0") and self._source.peek(end - 1, 1)
            return _After.END if is_end else _After.NOTHING
        following = _implicit_header(end, after, encoding)
        if following.tag >> 16 == _DELIMITER_GROUP:
            return _After.END if following.tag in _ITEM_TAGS else _After.NOTHING
        if not encoding.is_implicit and after[4:6] in VRS:
            return _After.VR
        if following.tag <= header.tag:
            return _After.NOTHING
        if following.length == UNDEFINED_LENGTH:
            return _After.IMPLICIT
        last = self._source.peek(following.value_at + following.length - 1, 1)
        return _After.NOTHING if last == b"" else _After.IMPLICIT

    def skip(self, header: ElementHeader, encoding: Encoding) -> int:
        """The position after an element; its content is walked only if its length is undefined."""
        if header.length != UNDEFINED_LENGTH:
            # Whether the data set reaches that far shows when the next element is read.
            return header.value_at + header.length
        return self._walk([self._content(header, encoding)], header.value_at, header.tag)

    def _content(self, header: ElementHeader, encoding: Encoding) -> Encoding:
        return self.within_un(header) if header.vr == "UN" else encoding

    def _count(self) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise InvalidInstance(
                f"The header of the data set has more than {MAX_ELEMENTS} elements"
            )

    def _pass(self, elements: int, within: int) -> None:
        self._passed += elements
        if self._passed > self._most_passed:
            raise InvalidInstance(about(within, f"has over {self._most_passed} elements"))

    def _item_header(self, position: int, encoding: Encoding, within: int) -> tuple[int, int, int]:
        head = self._source.read_at(position, _HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            raise self._unended(position, within)
        group, number, length = encoding.tag_and_length.unpack(head)
        tag = group << 16 | number
        if tag not in (ITEM, SEQUENCE_DELIMITER):
            raise InvalidInstance(about(within, f"contains {number_of(tag)} in place of an Item"))
        return tag, length, position + _HEADER_BYTES

    def _walk(self, open_encodings: list[Encoding], position: int, within: int) -> int:
        # One entry for each open sequence and Item, alternating: how its content is encoded. Ends with the last of
        # them: the sequence, or the Item of a sequence that stays open.
        open_before = len(open_encodings) - 1
        while len(open_encodings) > open_before:
            if not open_encodings[-1].is_big_endian:
                position = self._walk_in_memory(position, open_encodings, open_before)
                if len(open_encodings) == open_before:
                    break
            self._pass(1, within)
            if len(open_encodings) % 2:
                position = self._step_in_sequence(position, open_encodings, within)
            else:
                position = self._step_in_item(position, open_encodings, within)
        return position

    def _walk_in_memory(
        self, position: int, open_encodings: list[Encoding], open_before: int
    ) -> int:
        """Pass over what lies in memory and needs no second look; return where something else is."""
        window, begin = self._source.at_hand(position)
        at, last_at = begin, len(window) - _LONG_HEADER_BYTES
        is_implicit, passed, sizes = open_encodings[-1].is_implicit, 0, HEADER_SIZES
        is_in_item = len(open_encodings) % 2 == 0
        while at <= last_at:
            passed += 1
            group, number, vr, length, long_length = _LONG_HEADER(window, at)
            if group == _DELIMITER_GROUP:
                after = _behind_delimiter(window, at, number, open_encodings)
                at = after or at
                # Beyond a UN, which is little endian in all surroundings, it may go on in big endian.
                if (
                    not after
                    or len(open_encodings) == open_before
                    or open_encodings[-1].is_big_endian
                ):
                    break
                is_implicit = open_encodings[-1].is_implicit
                is_in_item = len(open_encodings) % 2 == 0
                continue
            header_size = 8 if is_implicit else sizes.get(vr, 0)
            if header_size == 0 or not is_in_item:
                break
            if header_size == _LONG_HEADER_BYTES:
                length = long_length
            elif is_implicit:
                (length,) = LONG_LENGTH(window, at + 4)
            if length != UNDEFINED_LENGTH:
                at += header_size + length
            elif vr == b"UN" and not is_implicit:
                break
            else:
                open_encodings.append(open_encodings[-1])
                is_in_item = False
                at += header_size
        self._passed += passed
        return position + at - begin

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

    def _step_in_item(self, position: int, open_encodings: list[Encoding], within: int) -> int:
        encoding = open_encodings[-1]
        if not self._source.reaches(position + 1):
            raise self._unended(position, within)
        header = self.header(position, encoding)
        if header.tag == ITEM_DELIMITER:
            open_encodings.pop()
        elif header.length == UNDEFINED_LENGTH:
            open_encodings.append(self._content(header, encoding))
        else:
            return header.value_at + header.length
        return header.value_at

    def fragments(self, header: ElementHeader, encoding: Encoding) -> Fragments:
        """Pass over encapsulated Pixel Data (PS3.5 A.4), reading no more than the headers of its fragments."""
        source, unpack, peek = self._source, encoding.tag_and_length.unpack, self._source.peek
        position, count, last_at, last_bytes = header.value_at, -1, 0, 0
        most = self._most_passed - self._passed
        while True:
            head = peek(position, 8) if last_bytes > _SMALL_FRAGMENT_BYTES else None
            if head is None:
                head = source.read_at(position, _HEADER_BYTES)
            if len(head) < _HEADER_BYTES:
                if head or not source.reaches(position):
                    raise self._unended(position, header.tag)
                return Fragments(count, last_at, last_bytes, position, is_ended=False)
            group, number, length = unpack(head)
            if number != _ITEM_NUMBER or group != _DELIMITER_GROUP or length == UNDEFINED_LENGTH:
                break
            count += 1
            if count > most:
                self._pass(count, header.tag)
            last_at, last_bytes = position + 8, length
            position = last_at + length
        self._pass(count, header.tag)
        if (group, number) != (_DELIMITER_GROUP, _SEQUENCE_END):
            # Items of undefined length, or none at all: whatever it is, it may still have an end.
            position = self._walk([encoding], position, header.tag)
        else:
            position += _HEADER_BYTES
        return Fragments(count, last_at, last_bytes, position, is_ended=True)

    def _unended(self, position: int, tag: int) -> IncompleteInstance:
        self._source.reaches(position)
        missing = position - self._source.end
        what = f"lacks {missing} bytes and its end" if missing > 0 else "lacks its end"
        return IncompleteInstance(about(tag, what))


def _behind_delimiter(
    window: bytes, at: int, number: int, open_encodings: list[Encoding]
) -> int | None:
    # Open or close what an Item or delimiter opens or closes; None if it is not that simple.
    is_in_item = len(open_encodings) % 2 == 0
    if number == (_ITEM_END if is_in_item else _SEQUENCE_END):
        open_encodings.pop()
        return at + 8
    if number != _ITEM_NUMBER or is_in_item:
        return None
    length: int
    (length,) = LONG_LENGTH(window, at + 4)
    if length != UNDEFINED_LENGTH:
        return at + 8 + length
    encoding = open_encodings[-1]
    is_empty = window[at + 8 : at + 10] == _DELIMITER_GROUP_BYTES
    if not encoding.is_implicit and not is_empty and window[at + 12 : at + 14] not in VRS:
        return None
    open_encodings.append(encoding)
    return at + 8


def ends_within(header: ElementHeader, end: int) -> IncompleteInstance:
    """The error that a value runs past the end of the data set."""
    missing = header.value_at + header.length - end
    return IncompleteInstance(about(header.tag, f"lacks {missing} of {header.length} bytes"))


def number_of(tag: int) -> str:
    """A tag as the Standard writes it."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _cut_header(position: int, head: bytes, encoding: Encoding) -> IncompleteInstance:
    if len(head) < 4:
        return IncompleteInstance(f"The data set ends within a tag, at byte {position}")
    group, number = encoding.tag.unpack_from(head)
    return IncompleteInstance(about(group << 16 | number, "is cut within its header"))


def _implicit_header(position: int, head: bytes, encoding: Encoding) -> ElementHeader:
    group, number, length = encoding.tag_and_length.unpack_from(head)
    return ElementHeader(group << 16 | number, "", length, position + _HEADER_BYTES)


def _long_header(position: int, head: bytes, encoding: Encoding) -> ElementHeader:
    group, number, _, _ = encoding.tag_and_short_length.unpack_from(head)
    (length,) = encoding.long_length.unpack_from(head, 8)
    return ElementHeader(group << 16 | number, "UN", length, position + _LONG_HEADER_BYTES)


def _implicit(encoding: Encoding) -> Encoding:
    return IMPLICIT_BIG if encoding.is_big_endian else IMPLICIT_LITTLE


def _group(head: bytes, encoding: Encoding) -> int:
    return int.from_bytes(head[:2], "big" if encoding.is_big_endian else "little")


def _is_two_capitals(vr: bytes) -> bool:
    return vr.isalpha() and vr.isupper()
