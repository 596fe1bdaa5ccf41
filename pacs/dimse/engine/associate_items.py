"""What a later edition may have put into an A-ASSOCIATE PDU, left out (PS3.8 9.3.2 and 9.3.3)."""

from __future__ import annotations

import struct

from pynetdicom.pdu_items import PDU_ITEM_TYPES

#: Protocol version, AE titles and reserved bytes come before the items.
_FIXED_BYTES = 68
_VERSION_BYTES = 2
_VERSION_1 = 0x0001
_USER_INFORMATION = 0x50
_ITEM_HEADER = struct.Struct(">BxH")


def of_this_edition(body: bytes) -> bytes:
    """The body of an A-ASSOCIATE-RQ or -AC without the items and user data sub-items that nobody here knows.

    The Standard has added sub-items before; pynetdicom takes one that it does not know for a broken PDU. Of the
    protocol version only bit 0 is left, the one that a receiver shall test (PS3.8 9.3.2).
    """
    version = int.from_bytes(body[:_VERSION_BYTES], "big") & _VERSION_1
    fixed = version.to_bytes(_VERSION_BYTES, "big") + body[_VERSION_BYTES:_FIXED_BYTES]
    return fixed + _known(body[_FIXED_BYTES:]) if len(body) >= _FIXED_BYTES else body


def _known(items: bytes) -> bytes:
    kept, position = b"", 0
    while len(items) - position >= _ITEM_HEADER.size:
        kind, length = _ITEM_HEADER.unpack_from(items, position)
        end = position + _ITEM_HEADER.size + length
        if end > len(items):
            break
        if kind == _USER_INFORMATION:
            value = _known(items[position + _ITEM_HEADER.size : end])
            kept += struct.pack(">BBH", kind, 0, len(value)) + value
        elif kind in PDU_ITEM_TYPES:
            kept += items[position:end]
        position = end
    # What is no item stays, for the decoder to object to.
    return kept + items[position:]
