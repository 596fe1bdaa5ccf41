"""Match and read the header keys of a query in a stored instance (PS3.4 C.2.2.2, C.4.1.1.3.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag

from pacs.dicom.encoding.element_reader import MAX_VALUE_BYTES
from pacs.dicom.encoding.part10 import SOP_INSTANCE_UID, read_elements
from pacs.dicom.encoding.plain_elements import as_element
from pacs.dicom.encoding.plain_values import (
    MATCHED_VRS,
    NUMBER_FORMATS,
    SPECIFIC_CHARACTER_SET,
    Element,
    character_set_terms,
    item_codecs,
    items_of,
    json_items,
    may_have_several,
    texts_of,
    vr_of,
)
from pacs.dicom.query.header_keys import HeaderKey, creator_of, is_private_creator
from pacs.dicom.query.matching import EmptyValue, SequenceMatch, item_matches, matches
from pacs.dicom.query.response import text_element
from pacs.dicom.text.character_sets import codecs_of
from pacs.dicom.text.values import index_value
from pacs.errors import InvalidInstance

_PIXEL_REPRESENTATION = 0x00280103
# What one response may take; each value and each sequence has a limit of its own (element_reader).
_MAXIMUM_BYTES = 1 << 20
# What an element counts for without its value: many Items times many Item keys is a large product.
_ELEMENT_BYTES = 32


@dataclass(frozen=True, slots=True)
class HeaderValues:
    """What a header has of the keys; those without a value are there with zero length."""

    data_set: Dataset
    #: Whether a value was left out: bulk data, or larger than a response should be. Such a value is not matched either.
    is_complete: bool
    #: Whether the header matches the keys; then only has it values.
    is_match: bool = True


class _Wanted:
    """The tags to read: those of the keys, and for private ones that of any block and creator."""

    def __init__(self, keys: Iterable[HeaderKey]) -> None:
        self.exact = {SPECIFIC_CHARACTER_SET, SOP_INSTANCE_UID, _PIXEL_REPRESENTATION}
        self._private: dict[int, set[int]] = {}
        for key in keys:
            if key.creator:
                self._private.setdefault(key.tag >> 16, set()).add(key.tag & 0xFF)
            else:
                self.exact.add(key.tag)
        self.last = max(*self.exact, *(group << 16 | 0xFFFF for group in self._private), 0)

    def __contains__(self, tag: object) -> bool:
        if tag in self.exact:
            return True
        if not isinstance(tag, int) or (tag >> 16) not in self._private:
            return False
        number = tag & 0xFFFF
        return is_private_creator(tag) or (
            number > 0xFF and (number & 0xFF) in self._private[tag >> 16]
        )


def read_header_values(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    data_set_offset: int,
    keys: Sequence[HeaderKey],
    *,
    unknown_matches: bool = False,
) -> HeaderValues:
    """Read from a file in bounded memory; nothing behind the last key is read.

    Raises:
        InvalidInstance: the data set cannot be read so far.
        StorageUnavailable: the file cannot be read.
    """
    wanted = _Wanted(keys)
    elements, dropped = read_elements(
        stream, transfer_syntax_uid, data_set_offset, wanted, wanted.last
    )
    if SOP_INSTANCE_UID not in elements:
        raise InvalidInstance("The stored file does not contain the instance")
    source = Dataset({BaseTag(tag): as_element(tag, one) for tag, one in elements.items()})
    reader = _Reader(dropped)
    codecs = codecs_of(character_set_terms(source))
    conditions = [key for key in keys if key.is_condition and key.tag not in dropped]
    if not all(holds(key, source, codecs, or_unknown=unknown_matches) for key in conditions):
        return HeaderValues(Dataset(), is_complete=True, is_match=False)
    return HeaderValues(reader.returned(source, keys, codecs), reader.is_complete)


def holds(key: HeaderKey, source: Dataset, codecs: Sequence[str], *, or_unknown: bool) -> bool:
    """Whether a header matches one key (PS3.4 C.2.2.2); so does a sequence that cannot be looked into."""
    element = source.get_item(key.tag) if key.tag in source else None
    if isinstance(key.match, SequenceMatch):
        items = [] if element is None else json_items(element, codecs)
        if not items:
            return items is None or or_unknown
        return any(item_matches(key.match, item) for item in items)
    text = None if element is None else index_value(element, codecs)
    if text is None and or_unknown and not isinstance(key.match, EmptyValue):
        return True
    return matches(key.vr, key.match, text, several=may_have_several(key.tag))


class _Reader:
    """Makes elements of a response; remembers how much it gave and whether anything was left out."""

    def __init__(self, dropped: frozenset[int]) -> None:
        self.is_complete = True
        self._dropped = dropped
        self._budget = _MAXIMUM_BYTES

    def returned(
        self, source: Dataset, keys: Sequence[HeaderKey], codecs: Sequence[str]
    ) -> Dataset:
        """The keys, from a data set or Item, each with its value or with zero length."""
        self._budget -= _ELEMENT_BYTES * (len(keys) + 1)
        blocks = _blocks(source, codecs)
        is_signed = _is_signed(source)
        found = Dataset()
        for key in keys:
            if key.is_creator:
                found[key.tag] = text_element(key.tag, "LO", key.creator)
                continue
            tag = _tag_in(blocks, key)
            if tag in self._dropped:
                self.is_complete = False
                continue
            if tag is None or tag not in source:
                vr = "LO" if key.vr == "UN" and not key.creator else key.vr
                found[key.tag] = DataElement(BaseTag(key.tag), vr, [] if vr == "SQ" else None)
                continue
            element = self._element(source.get_item(tag), key, codecs, is_signed=is_signed)
            if element is None:
                self.is_complete = False
            else:
                found[key.tag] = element
        return found

    def _element(
        self, element: Element, key: HeaderKey, codecs: Sequence[str], *, is_signed: bool
    ) -> DataElement | None:
        vr = _vr(element, key.creator, is_signed=is_signed)
        if vr == "SQ":
            return self._sequence(element, key, codecs)
        value = element.value
        size = len(value) if isinstance(value, bytes) else 0
        self._budget -= size
        # A value of that length was cut by the reader, or would be longer in UTF-8 than a VR can be.
        if size >= MAX_VALUE_BYTES or self._budget < 0:
            return None
        return _plain(element, BaseTag(key.tag), vr, codecs)

    def _sequence(
        self, element: Element, key: HeaderKey, codecs: Sequence[str]
    ) -> DataElement | None:
        items = items_of(element, codecs)
        if items is None:
            return None
        if isinstance(key.match, SequenceMatch):  # the matching Items (PS3.4 C.2.2.2.6)
            plain = json_items(element, codecs)
            if plain is None:
                return None
            pairs = zip(items, plain, strict=True)
            items = [item for item, one in pairs if item_matches(key.match, one)]
        returned = []
        for item in items:
            if self._budget < 0:
                return None
            keys = key.items or _all_of(item)
            returned.append(self.returned(item, keys, item_codecs(item, codecs)))
        return DataElement(BaseTag(key.tag), "SQ", DicomSequence(returned))


def _all_of(item: Dataset) -> list[HeaderKey]:
    # Private ones are left out: their blocks would have to be reserved in the response as well.
    tags = [tag for tag in sorted(item.keys()) if tag.element and not tag.is_private]
    return [
        HeaderKey(int(tag), vr_of(item.get_item(tag)))
        for tag in tags
        if tag != SPECIFIC_CHARACTER_SET
    ]


def _blocks(source: Dataset, codecs: Sequence[str]) -> Mapping[tuple[int, str], list[int]]:
    blocks: dict[tuple[int, str], list[int]] = {}
    for tag in sorted(source.keys()):
        if is_private_creator(tag):
            creator = creator_of(source.get_item(tag), codecs)
            blocks.setdefault((tag.group, creator), []).append(tag.element)
    return blocks


def _tag_in(blocks: Mapping[tuple[int, str], list[int]], key: HeaderKey) -> int | None:
    if not key.creator:
        return key.tag
    found = blocks.get((key.tag >> 16, key.creator))
    return None if not found else (key.tag & 0xFFFF0000) | found[0] << 8 | (key.tag & 0xFF)


def _is_signed(source: Dataset) -> bool:
    if _PIXEL_REPRESENTATION not in source:
        return False
    return texts_of(source.get_item(_PIXEL_REPRESENTATION))[:1] == ["1"]


def _vr(element: Element, creator: str, *, is_signed: bool) -> str:
    stated = str(element.VR or "UN")
    if creator:
        return _private_vr(element, creator) if stated == "UN" else stated
    vr = vr_of(element)
    if element.tag.is_private or " or " not in _dictionary_vr(element):
        return vr
    # Several VRs are possible (US or SS): what the instance says, else what its pixels are (PS3.5 A.1).
    return "SS" if stated in {"US", "UN"} and is_signed else vr if stated == "UN" else stated


def _dictionary_vr(element: Element) -> str:
    try:
        return dictionary_VR(element.tag)
    except KeyError:
        return ""


def _private_vr(element: Element, creator: str) -> str:
    try:
        vr = private_dictionary_VR(element.tag, creator)
    except KeyError:
        return "UN"
    return vr if vr in MATCHED_VRS and vr != "SQ" else "UN"


def _plain(element: Element, tag: BaseTag, vr: str, codecs: Sequence[str]) -> DataElement | None:
    value = element.value
    if vr == "AT" and isinstance(value, bytes):
        tags = list(_tags(value, is_little_endian=getattr(element, "is_little_endian", True)))
        return DataElement(tag, "AT", tags[0] if len(tags) == 1 else tags or None)
    if vr in {"OB", "UN"} and isinstance(value, bytes):
        return DataElement(tag, vr, value, already_converted=True)
    if vr not in MATCHED_VRS:
        return None
    text = "\\".join(
        texts_of(element._replace(VR=vr) if isinstance(element, tuple) else element, codecs)
    )
    is_short = vr not in {"UC", "UR", "UT"} and vr not in NUMBER_FORMATS
    # The character set of the response is not known yet: code extensions take twice the room of UTF-8, and more.
    limit = MAX_VALUE_BYTES if text.isascii() else MAX_VALUE_BYTES // 4
    if is_short and len(text.encode()) >= limit:
        return None
    return text_element(int(tag), vr, text)


def _tags(value: bytes, *, is_little_endian: bool) -> Iterator[int]:
    order = "<" if is_little_endian else ">"
    whole = len(value) - len(value) % 4
    for group, number in struct.iter_unpack(f"{order}HH", value[:whole]):
        yield group << 16 | number
