"""What a later edition may have put into an A-ASSOCIATE PDU, left out (PS3.8 9.3.2 and 9.3.3)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pynetdicom.pdu_items import PDU_ITEM_TYPES

#: Protocol version, AE titles and reserved bytes come before the items.
_FIXED_BYTES = 68
_VERSION_BYTES = 2
_VERSION_1 = 0x0001
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
