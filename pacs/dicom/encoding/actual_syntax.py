"""In which transfer syntax a data set really is (PS3.5 10, A), told by its first elements.

Writers name the wrong one often enough. Kept so, the instance can be indexed, but no peer can read what it is sent.
Only the transfer syntaxes that differ in how elements are encoded, and in nothing else, can be told apart: of one that
says how Pixel Data are compressed, and of a private one, the name is all there is to go by.
"""

from __future__ import annotations

import zlib

from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    LONG_VRS,
    UNDEFINED_LENGTH,
    VRS,
    Encoding,
)
from pacs.dicom.sop_classes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

#: So much of a data set decides.
HEAD_BYTES = 4096
#: Elements that are looked at: one may deceive, as a length that spells a VR does.
_LOOKED_AT = 4
#: Groups that a data set may begin with, in either byte order. The other order makes 0800 of 0008.
_LAST_FIRST_GROUP = 0x0010

_PLAIN = {
    EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
}


def actual_transfer_syntax(head: bytes, declared: str) -> str:
    """The transfer syntax of the data set that begins so: ``declared``, unless it is surely another one.

    ``head`` is the whole data set, or at least ``HEAD_BYTES`` of it.
    """
    if declared == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return declared if _inflated(head) else _plain(head) or declared
    if declared not in _PLAIN or _is_in(head, _PLAIN[declared]):
        return declared
    found = _plain(head)
    if found is None and _is_in(_inflated(head), EXPLICIT_LITTLE):
        found = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    return found or declared


def is_data_set(head: bytes) -> bool:
    """Whether bytes without File Meta Information begin like a data set that is not deflated."""
    return _plain(head) is not None


def _plain(head: bytes) -> str | None:
    return next((uid for uid, encoding in _PLAIN.items() if _is_in(head, encoding)), None)


def _inflated(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _is_in(head: bytes, encoding: Encoding) -> bool:
    # Explicit: each element has a VR. Implicit, where nothing but tags and lengths is to be seen: some elements in
    # ascending order, none of which has a VR, each beginning where the one before ends.
    position = previous = count = 0
    while count < _LOOKED_AT and position + 12 <= len(head):
        group, number, length = encoding.tag_and_length.unpack_from(head, position)
        vr = head[position + 4 : position + 6]
        tag = group << 16 | number
        if (vr in VRS) is encoding.is_implicit or tag <= previous:
            return False
        if not count and group > _LAST_FIRST_GROUP:
            return False
        value_at = position + 8
        if not encoding.is_implicit and vr in LONG_VRS:
            (length,) = encoding.long_length.unpack_from(head, position + 8)
            value_at += 4
        elif not encoding.is_implicit:
            _, _, _, length = encoding.tag_and_short_length.unpack_from(head, position)
        count, previous = count + 1, tag
        if length == UNDEFINED_LENGTH:
            break
        position = value_at + length
    is_followed = count > 1 or position == len(head)
    return count > 0 and (is_followed or not encoding.is_implicit)
