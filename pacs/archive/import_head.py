"""The beginning of a file that is imported: enough to know what it is, in memory that no file can make grow.

A source is read once, from start to end, because going back in a zip member means to inflate it again. File Meta
Information may be of any length all the same: private information (0002,0102) in it is passed over, as all of it is
written anew.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from pacs.dicom.encoding.element_encoding import LONG_VRS, UNDEFINED_LENGTH, VRS

#: So much of a file is looked at for its File Meta Information and the first elements of its data set.
HEAD_BYTES = 256 * 1024
#: What of it File Meta Information may take, so that something of the data set is there too.
_MOST_META_BYTES = HEAD_BYTES // 2
_CHUNK_BYTES = 1024 * 1024
_META_GROUP = b"\x02\x00"
#: The last element whose value anybody here wants is (0002,0016).
_LAST_WANTED = 0x0016
_SHORT_HEADER, _LONG = Struct("<HH2sH"), Struct("<L")


def read_head(read: Callable[[int], bytes]) -> bytes:
    """The first bytes of a file, without long elements of its File Meta Information; the group length agrees.

    ``read`` gives the next bytes, up to a number of them. What it gives afterwards follows the bytes returned.
    """
    head = bytearray(read(HEAD_BYTES))
    position = 132 if head[128:132] == b"DICM" else 0
    group_length_at: int | None = None
    while head[position : position + 2] == _META_GROUP and len(head) >= position + 12:
        _, number, vr, length = _SHORT_HEADER.unpack_from(head, position)
        value_at = position + 8
        if vr in LONG_VRS:
            (length,) = _LONG.unpack_from(head, value_at)
            value_at += 4
        if vr not in VRS or length == UNDEFINED_LENGTH:
            break
        if number == 0 and length == _LONG.size:
            group_length_at = value_at
        end = value_at + length
        if end > _MOST_META_BYTES:
            if number <= _LAST_WANTED or vr not in LONG_VRS:
                break
            _pass_over(head, position, end, read)
            _count_less(head, group_length_at, end - position)
        else:
            position = end
    return bytes(head)


def _pass_over(head: bytearray, begin: int, end: int, read: Callable[[int], bytes]) -> None:
    left = end - len(head)
    del head[begin:end]
    while left > 0 and (chunk := read(min(left, _CHUNK_BYTES))):
        left -= len(chunk)
    head += read(HEAD_BYTES - len(head))


def _count_less(head: bytearray, group_length_at: int | None, removed: int) -> None:
    if group_length_at is not None:
        (length,) = _LONG.unpack_from(head, group_length_at)
        if length >= removed:
            _LONG.pack_into(head, group_length_at, length - removed)
