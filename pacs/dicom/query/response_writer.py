"""A matched row becomes the bytes of a response Identifier, without a data set in between (PS3.4 C.4.1.1.3.2).

``response`` is the reference: what is written here is what pydicom writes of its data sets, byte for byte
(``tests/dicom/query/test_response_writer.py``). What is not plain text of the index is left to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct

from pacs.dicom.attributes import Attribute
from pacs.dicom.encoding.element_encoding import LONG_VRS, Encoding
from pacs.dicom.encoding.element_writer import MAX_SHORT_LENGTH, element_header, padded
from pacs.dicom.encoding.plain_values import (
    CHARACTER_SET_VRS,
    NUMBER_FORMATS,
    SINGLE_VALUED_VRS,
    SPECIFIC_CHARACTER_SET,
)
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.response import constant_texts
from pacs.dicom.text.character_sets import encode, response_terms

#: Texts that pydicom writes as they are. Of others it makes something of its own (it strips white space from a UID,
#: empty component groups from a name), and it writes a number as the one that it has read.
_PLAIN: dict[str, re.Pattern[str]] = {
    "UI": re.compile(r"[0-9.\\]+"),
    "IS": re.compile(r"[+-]?[0-9]{1,12}"),
    "DS": re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"),
    "PN": re.compile(r"(?!=)[^\\=]*(?:=[^\\=]+){0,2}"),
}
_NO_VALUE = re.compile(r"(?!)")
_UNSIGNED_SHORT = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Field:
    """How one Attribute is written."""

    position: int
    #: Tag and VR, and what is reserved.
    head: bytes
    length: Struct
    longest: int
    #: The whole element, without a value.
    empty: bytes
    padding: bytes
    #: What a text has to be so that it can be written here; None for any.
    is_plain: Callable[[str], object] | None
    #: Whether Specific Character Set applies.
    is_encoded: bool
    is_name: bool
    is_one_value: bool
    #: Of a number; None for a text.
    number: Struct | None


class ResponseWriter:
    """Writes the Identifiers of the responses to one query, in one encoding; what they have in common is made once."""

    def __init__(
        self, query: Query, keywords: Sequence[str], encoding: Encoding, *, retrieve_ae_title: str
    ) -> None:
        """Rows will have the index texts of ``keywords``, in that order; nothing comes from stored headers."""
        self._requested = query.character_sets
        self._encoding = encoding
        position = {keyword: number for number, keyword in enumerate(keywords)}
        written: dict[int, bytes | _Field] = {
            one.tag: _field(one, position[one.keyword], encoding) for one in query.returns
        }
        for tag, vr, text in constant_texts(query, retrieve_ae_title):
            written[tag] = _element(tag, vr, text.encode("ascii", "replace"), encoding)
        in_order = [written[tag] for tag in sorted(written)]
        self._elements = in_order
        self._texts = [
            one.position for one in in_order if isinstance(one, _Field) and one.is_encoded
        ]
        self._character_sets: dict[tuple[str, ...], bytes] = {(): b""}

    def write(self, row: Sequence[str | None]) -> bytes | None:
        """The Identifier of one response; None if the reference has to make it."""
        foreign = [text for at in self._texts if (text := row[at]) and not text.isascii()]
        terms = response_terms(foreign, self._requested) if foreign else ()
        parts = [self._character_set(terms)]
        for element in self._elements:
            if isinstance(element, bytes):
                parts.append(element)
                continue
            text = row[element.position]
            if not text:
                parts.append(element.empty)
                continue
            if element.is_plain is not None and not element.is_plain(text):
                return None
            value = _value(element, text, terms)
            length = len(value)
            if length & 1:
                value += element.padding
                length += 1
            if length > element.longest:
                return None
            parts += (element.head, element.length.pack(length), value)
        return b"".join(parts)

    def _character_set(self, terms: tuple[str, ...]) -> bytes:
        """The element that says what the texts are in; none for the default repertoire."""
        if terms not in self._character_sets:
            value = "\\".join(terms).encode()
            self._character_sets[terms] = _element(
                SPECIFIC_CHARACTER_SET, "CS", value, self._encoding
            )
        return self._character_sets[terms]


def _value(element: _Field, text: str, terms: tuple[str, ...]) -> bytes:
    if element.number is not None:
        return element.number.pack(int(text))
    if not element.is_encoded or text.isascii():
        return text.encode("ascii", "replace")
    value = encode(text, terms, is_name=element.is_name, is_one_value=element.is_one_value)
    assert value is not None, "the character set was chosen for this text"
    return value


def _element(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    value = padded(vr, value)
    return element_header(tag, vr, len(value), encoding) + value


def _field(attribute: Attribute, position: int, encoding: Encoding) -> _Field:
    vr = attribute.vr
    empty = element_header(attribute.tag, vr, 0, encoding)
    is_long = encoding.is_implicit or vr.encode() in LONG_VRS
    order = ">" if encoding.is_big_endian else "<"
    length = Struct(f"{order}{'L' if is_long else 'H'}")
    return _Field(
        position=position,
        head=empty[: -length.size],
        length=length,
        longest=0xFFFFFFFE if is_long else MAX_SHORT_LENGTH,
        empty=empty,
        padding=padded(vr, b"x")[1:],
        is_plain=_plain(vr),
        is_encoded=vr in CHARACTER_SET_VRS,
        is_name=vr == "PN",
        is_one_value=vr in SINGLE_VALUED_VRS,
        number=Struct(f"{order}H") if vr == "US" else None,
    )


def _plain(vr: str) -> Callable[[str], object] | None:
    if vr == "US":
        return _is_unsigned_short
    if vr == "SQ" or vr in NUMBER_FORMATS:  # Items, and numbers that the table has none of
        return _NO_VALUE.match
    return _PLAIN[vr].fullmatch if vr in _PLAIN else None


def _is_unsigned_short(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= _UNSIGNED_SHORT
