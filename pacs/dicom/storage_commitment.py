"""The data sets of Storage Commitment: Action Information read, Event Information written (PS3.4 J.3.2, J.3.3).

Read and written by hand because a request may reference tens of thousands of SOP Instances: pydicom takes 3 ms and
0.2 MB for a hundred of them, in one go.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from io import BytesIO
from typing import NamedTuple

from pacs.dicom.encoding.byte_source import ByteSource, InflatedBytes, StreamBytes
from pacs.dicom.encoding.element_encoding import (
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
)
from pacs.dicom.encoding.element_headers import ElementHeader
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.encoding.element_writer import element_header, item_header, padded
from pacs.dicom.uids import MAX_UID_CHARACTERS, is_uid, uid_text
from pacs.errors import InvalidActionInformation, InvalidInstance, TooManyReferences

SOP_CLASS_UID = "1.2.840.10008.1.20.1"
#: The well-known SOP Instance that every request names (PS3.4 J.3.5).
SOP_INSTANCE_UID = "1.2.840.10008.1.20.1.1"
#: Request Storage Commitment, the only Action Type (PS3.4 Table J.3-1).
REQUEST_ACTION = 1

#: References of one request: more than any study has, and 20 MB in the index.
MAX_REFERENCES = 50_000

_RETRIEVE_AE_TITLE = 0x00080054
_SOP_CLASS = 0x00081150
_SOP_INSTANCE = 0x00081155
_TRANSACTION_UID = 0x00081195
_FAILURE_REASON = 0x00081197
_FAILED_SEQUENCE = 0x00081198
_REFERENCED_SEQUENCE = 0x00081199


class EventType(IntEnum):
    """What an N-EVENT-REPORT says of all references together (PS3.4 Table J.3-2)."""

    SUCCESSFUL = 1
    FAILURES_EXIST = 2


class FailureReason(IntEnum):
    """Why an instance is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION_UID = 0x0131


class Reference(NamedTuple):
    """A SOP Instance that is to be committed."""

    sop_class_uid: str
    sop_instance_uid: str


class Result(NamedTuple):
    """What became of one reference."""

    reference: Reference
    #: None: it is committed.
    failure_reason: int | None


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """How a data set is encoded, as far as it matters here."""

    is_implicit: bool
    is_big_endian: bool = False
    is_deflated: bool = False
    encoding: Encoding = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", Encoding(self.is_implicit, self.is_big_endian))


@dataclass(frozen=True, slots=True)
class ActionInformation:
    """What a storage commitment request asks for."""

    transaction_uid: str
    #: Each SOP Instance once, in the order of the request.
    references: tuple[Reference, ...]


# Reading


def read_action_information(data: bytes, syntax: TransferSyntax) -> ActionInformation:
    """Read the Action Information of a storage commitment request (PS3.4 Table J.3-1).

    Raises:
        InvalidActionInformation: it is not a data set, or an Attribute of type 1 is missing or not valid.
        TooManyReferences: it has more than ``MAX_REFERENCES`` Items.
    """
    try:
        source: ByteSource = (
            InflatedBytes(BytesIO(data), 0) if syntax.is_deflated else StreamBytes(BytesIO(data), 0)
        )
        return _ActionReader(source).read(syntax.encoding)
    except InvalidInstance as error:
        raise InvalidActionInformation(f"Action Information: {error.message}") from error


class _ActionReader:
    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._reader = ElementReader(source)
        self._references: dict[Reference, None] = {}
        self._items = 0

    def read(self, encoding: Encoding) -> ActionInformation:
        transaction_uid, position = "", 0
        while self._source.reaches(position + 1):
            header = self._reader.header(position, encoding)
            if header.tag == _TRANSACTION_UID:
                transaction_uid = self._uid(header, "Transaction UID (0008,1195)")
            if header.tag == _REFERENCED_SEQUENCE:
                position = self._read_sequence(header, encoding)
            else:
                position = self._reader.skip(header, encoding)
        if not self._source.reaches(position):
            raise InvalidInstance("an element is longer than the data set")
        if not transaction_uid:
            raise InvalidActionInformation("Transaction UID (0008,1195) is missing or empty")
        if not self._references:
            raise InvalidActionInformation("Referenced SOP Sequence (0008,1199) has no Item")
        return ActionInformation(transaction_uid, tuple(self._references))

    def _read_sequence(self, header: ElementHeader, encoding: Encoding) -> int:
        if header.vr not in ("", "SQ"):
            raise InvalidActionInformation("Referenced SOP Sequence (0008,1199) is no sequence")
        position, end = header.value_at, _end_of(header)
        while end is None or position < end:
            item = self._item_header(position, encoding)
            if item.tag == SEQUENCE_DELIMITER:
                return item.value_at
            if item.tag != ITEM:
                raise InvalidInstance("Referenced SOP Sequence has something other than Items")
            self._items += 1
            if self._items > MAX_REFERENCES:
                raise TooManyReferences(f"More than {MAX_REFERENCES} references in a request")
            position = self._read_item(item, encoding)
        return _exactly(position, end)

    def _item_header(self, position: int, encoding: Encoding) -> ElementHeader:
        # Items and delimiters have no VR in any encoding (PS3.5 7.5).
        return self._reader.header(position, Encoding(True, encoding.is_big_endian))

    def _read_item(self, item: ElementHeader, encoding: Encoding) -> int:
        found: dict[int, str] = {}
        position, end = item.value_at, _end_of(item)
        while end is None or position < end:
            header = self._reader.header(position, encoding)
            if header.tag == ITEM_DELIMITER:
                position = header.value_at
                break
            if header.tag in _UID_NAMES:
                found[header.tag] = self._uid(header, self._name(header.tag))
            position = self._reader.skip(header, encoding)
        for tag in _UID_NAMES:
            if not found.get(tag):
                raise InvalidActionInformation(f"{self._name(tag)} missing or empty")
        self._references[Reference(found[_SOP_CLASS], found[_SOP_INSTANCE])] = None
        return _exactly(position, end)

    def _name(self, tag: int) -> str:
        return f"Item {self._items}: {_UID_NAMES[tag]}"

    def _uid(self, header: ElementHeader, name: str) -> str:
        if header.length > MAX_UID_CHARACTERS or header.vr not in ("", "UI"):
            raise InvalidActionInformation(f"{name} is no UID")
        text = uid_text(self._reader.value(header))
        # As tolerant as C-STORE is: what could be stored can be committed.
        if text and not is_uid(text):
            raise InvalidActionInformation(f"{name} is no UID")
        return text


_UID_NAMES = {
    _SOP_CLASS: "Referenced SOP Class UID",
    _SOP_INSTANCE: "Referenced SOP Instance UID",
}


def _end_of(header: ElementHeader) -> int | None:
    return None if header.length == UNDEFINED_LENGTH else header.value_at + header.length


def _exactly(position: int, end: int | None) -> int:
    if end is not None and position != end:
        raise InvalidInstance("a sequence or Item is shorter than what it contains")
    return position


# Writing


def write_event_information(
    transaction_uid: str,
    results: Iterable[Result],
    retrieve_ae_title: str,
    syntax: TransferSyntax,
) -> tuple[EventType, bytes]:
    """Make the Event Type and the Event Information that report these results (PS3.4 Table J.3-2)."""
    encoding = syntax.encoding
    committed, failed = bytearray(), bytearray()
    for reference, reason in results:
        item = b"".join(_reference_elements(reference, reason, encoding))
        items = committed if reason is None else failed
        items += item_header(ITEM, len(item), encoding) + item
    parts = [_element(_TRANSACTION_UID, "UI", transaction_uid.encode(), encoding)]
    if committed:
        title = retrieve_ae_title.encode()
        parts.insert(0, _element(_RETRIEVE_AE_TITLE, "AE", title, encoding))
    if failed:
        parts.append(_element(_FAILED_SEQUENCE, "SQ", bytes(failed), encoding))
    if committed:
        parts.append(_element(_REFERENCED_SEQUENCE, "SQ", bytes(committed), encoding))
    event = EventType.FAILURES_EXIST if failed else EventType.SUCCESSFUL
    data = b"".join(parts)
    return event, _deflated(data) if syntax.is_deflated else data


def _reference_elements(
    reference: Reference, reason: int | None, encoding: Encoding
) -> Iterator[bytes]:
    yield _element(_SOP_CLASS, "UI", reference.sop_class_uid.encode(), encoding)
    yield _element(_SOP_INSTANCE, "UI", reference.sop_instance_uid.encode(), encoding)
    if reason is not None:
        value = reason.to_bytes(2, "big" if encoding.is_big_endian else "little")
        yield _element(_FAILURE_REASON, "US", value, encoding)


def _element(tag: int, vr: str, value: bytes, encoding: Encoding) -> bytes:
    value = padded(vr, value)
    return element_header(tag, vr, len(value), encoding) + value


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(data) + deflater.flush()
    return deflated + b"\0" * (len(deflated) % 2)
