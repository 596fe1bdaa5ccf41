"""A-ASSOCIATE PDUs as pynetdicom can decode them (PS3.8 9.3.2 and 9.3.3).

What a later edition may have put in is left out. What the Standard has a rejection for, and pynetdicom takes for a
broken PDU, is replaced, and told: a broken PDU is answered with an abort, which does not say what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pynetdicom.pdu_items import PDU_ITEM_TYPES

from pacs.dicom.ae_titles import normalised_ae_title
from pacs.foreign_text import visible

#: Protocol version, AE titles and reserved bytes come before the items.
_FIXED_BYTES = 68
_VERSION_BYTES = 2
_VERSION_1 = 0x0001
#: Where the called and the calling AE title begin.
_CALLED_AT, _CALLING_AT, _TITLE_BYTES = 4, 20, 16
_APPLICATION_CONTEXT = 0x10
_APPLICATION_CONTEXT_NAME = b"1.2.840.10008.3.1.1.1"
_LONGEST_NAME = 64
#: PS3.8 9.3.4, all permanent. By the service user: which name or title; by the provider: protocol version.
_APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
_CALLING_AE_NOT_RECOGNISED, _CALLED_AE_NOT_RECOGNISED = (1, 1, 3), (1, 1, 7)
_PROTOCOL_VERSION_NOT_SUPPORTED = (1, 2, 2)
_USER_INFORMATION = 0x50
_PRESENTATION_CONTEXT = 0x20
#: Of a presentation context item, before its syntaxes: ID, result, reserved.
_CONTEXT_BYTES = 4
_ITEM_HEADER = struct.Struct(">BxH")
#: Sub-items of the user information (PS3.7 D.3.3, PS3.8 D.1) have types of their own, and none has items within.
_SUB_ITEMS = frozenset(kind for kind in PDU_ITEM_TYPES if kind > _USER_INFORMATION)
_ITEMS = frozenset(PDU_ITEM_TYPES) - _SUB_ITEMS
#: 128 presentation contexts with all 60 transfer syntaxes, and a role and an extended negotiation for each, are 8,200.
_MAXIMUM_ITEMS = 10_000
#: Of one presentation context: pynetdicom compares each with all before.
_MAXIMUM_SYNTAXES = 256


class TooManyItems(ValueError):
    """An A-ASSOCIATE PDU has more items than anybody who wants an association."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an association that is asked for is rejected, whoever asks."""

    #: Result, source and reason (PS3.8 9.3.4).
    codes: tuple[int, int, int]
    #: In words, on one line.
    reason: str
    #: The titles as they were sent.
    called_ae: str
    calling_ae: str


def readable(body: bytes) -> tuple[bytes, Refusal | None]:
    """The body of an A-ASSOCIATE-RQ with what the Standard has a rejection for replaced, and the rejection.

    AE titles may be filled up with NUL in place of spaces, as C programs do.
    """
    if len(body) < _FIXED_BYTES:
        return body, None
    called = _title(body, _CALLED_AT)
    calling = _title(body, _CALLING_AT)
    items, name = _with_our_name(body[_FIXED_BYTES:])
    version = int.from_bytes(body[:_VERSION_BYTES], "big")
    codes, reason = None, ""
    if not version & _VERSION_1:
        codes, reason = _PROTOCOL_VERSION_NOT_SUPPORTED, f"protocol version {version:#06x}"
        # Of another version nobody knows what is in it.
        body, items = _VERSION_1.to_bytes(_VERSION_BYTES, "big") + body[_VERSION_BYTES:], b""
    elif name is not None:
        shown = visible(_text(name), _LONGEST_NAME)
        codes, reason = _APPLICATION_CONTEXT_NOT_SUPPORTED, f'application context "{shown}"'
    elif normalised_ae_title(calling) is None:
        codes, reason = _CALLING_AE_NOT_RECOGNISED, _no_title("calling", calling)
    elif normalised_ae_title(called) is None:
        codes, reason = _CALLED_AE_NOT_RECOGNISED, _no_title("called", called)
    titles = b"".join(_stand_in(title) for title in (called, calling))
    rest = body[_CALLING_AT + _TITLE_BYTES : _FIXED_BYTES]
    whole = body[:_CALLED_AT] + titles + rest + items
    return whole, None if codes is None else Refusal(codes, reason, called, calling)


def _title(body: bytes, at: int) -> str:
    return _text(body[at : at + _TITLE_BYTES].rstrip(b"\0 "))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin_1")


def _no_title(which: str, title: str) -> str:
    if not title.strip(" "):
        return f"the {which} AE title is blank"
    return f'the {which} AE title "{visible(title)}" cannot be one (PS3.5 6.2)'


def _stand_in(title: str) -> bytes:
    known = (normalised_ae_title(title) or "?").encode()
    return known.ljust(_TITLE_BYTES)


def _with_our_name(items: bytes) -> tuple[bytes, bytes | None]:
    """The items with an application context name that can be decoded, and the one that cannot."""
    position = 0
    for kind, item in _items(items, _Budget(_MAXIMUM_ITEMS)):
        name = item[_ITEM_HEADER.size :]
        if kind == _APPLICATION_CONTEXT and not (name.isascii() and len(name) <= _LONGEST_NAME):
            header = _ITEM_HEADER.pack(kind, len(_APPLICATION_CONTEXT_NAME))
            before, after = items[:position], items[position + len(item) :]
            return before + header + _APPLICATION_CONTEXT_NAME + after, name
        position += len(item)
    return items, None


def of_this_edition(body: bytes) -> bytes:
    """The body of an A-ASSOCIATE-RQ or -AC without the items and user data sub-items that nobody here knows.

    The Standard has added sub-items before; pynetdicom takes one that it does not know for a broken PDU. Of the
    protocol version only bit 0 is left, the one that a receiver shall test (PS3.8 9.3.2).

    Raises:
        TooManyItems: decoding them would take long, for somebody of whom nothing is known yet.
    """
    if len(body) < _FIXED_BYTES:
        return body
    version = int.from_bytes(body[:_VERSION_BYTES], "big") & _VERSION_1
    kept = [version.to_bytes(_VERSION_BYTES, "big"), body[_VERSION_BYTES:_FIXED_BYTES]]
    budget = _Budget(_MAXIMUM_ITEMS)
    for kind, item in _items(body[_FIXED_BYTES:], budget):
        if kind == _USER_INFORMATION:
            kept += _user_information(item[_ITEM_HEADER.size :], budget)
        elif kind == _PRESENTATION_CONTEXT:
            _count_syntaxes(item[_ITEM_HEADER.size + _CONTEXT_BYTES :], budget)
            kept.append(item)
        elif kind in _ITEMS or kind is None:
            kept.append(item)
    return b"".join(kept)


class _Budget:
    """How many more items there may be."""

    def __init__(self, items: int) -> None:
        self._left = items

    def take(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyItems(f"an A-ASSOCIATE PDU of more than {_MAXIMUM_ITEMS} items")


def _items(items: bytes, budget: _Budget) -> Iterator[tuple[int | None, bytes]]:
    """Each item with its type. What is no item stays, without one, for the decoder to object to."""
    position = 0
    while len(items) - position >= _ITEM_HEADER.size:
        budget.take()
        kind, length = _ITEM_HEADER.unpack_from(items, position)
        end = position + _ITEM_HEADER.size + length
        if end > len(items):
            break
        yield kind, items[position:end]
        position = end
    if position < len(items):
        yield None, items[position:]


def _user_information(value: bytes, budget: _Budget) -> list[bytes]:
    known = [item for kind, item in _items(value, budget) if kind in _SUB_ITEMS or kind is None]
    size = sum(map(len, known))
    return [struct.pack(">BBH", _USER_INFORMATION, 0, size), *known]


def _count_syntaxes(value: bytes, budget: _Budget) -> None:
    """Look at the abstract and transfer syntaxes of a presentation context."""
    most = _Budget(_MAXIMUM_SYNTAXES)
    for _ in _items(value, budget):
        most.take()
