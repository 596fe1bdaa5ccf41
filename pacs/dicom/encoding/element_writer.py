"""How a Data Element or Item begins in an encoding (PS3.5 7.1, 7.5); the values are written by others."""

from __future__ import annotations

from pacs.dicom.encoding.element_encoding import LONG_VRS, Encoding

#: The longest value of an explicit VR whose length has two bytes; values have an even length.
MAX_SHORT_LENGTH = 0xFFFE


def has_room(vr: str, length: int, encoding: Encoding) -> bool:
    """Whether an element of this VR can have a value of ``length`` bytes."""
    return encoding.is_implicit or vr.encode() in LONG_VRS or length <= MAX_SHORT_LENGTH


def element_header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Tag, VR and length of an element; see ``has_room``."""
    group, number, vr_bytes = tag >> 16, tag & 0xFFFF, vr.encode()
    if encoding.is_implicit:
        return encoding.tag_and_length.pack(group, number, length)
    if vr_bytes in LONG_VRS:
        head = encoding.tag_and_short_length.pack(group, number, vr_bytes, 0)
        return head + encoding.long_length.pack(length)
    return encoding.tag_and_short_length.pack(group, number, vr_bytes, length)


def item_header(tag: int, length: int, encoding: Encoding) -> bytes:
    """Tag and length of an Item or delimiter, which have no VR in any encoding."""
    return encoding.tag_and_length.pack(tag >> 16, tag & 0xFFFF, length)


def padded(vr: str, value: bytes) -> bytes:
    """The value with an even length (PS3.5 6.2)."""
    padding = b"\0" if vr in {"UI", "OB", "UN"} else b" "
    return value + padding * (len(value) % 2)
