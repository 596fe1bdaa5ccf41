"""Whether a data set is all there: every element of it, to its last byte (PS3.5 7).

A data set has no length of its own and no mark at its end, so one that was cut off shows it only where an element
claims more bytes than there are, lacks its delimiter or part of its header, or where the deflated bytes have not come
to their end. One that was cut between two elements of the top level cannot be told from a whole one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pacs.dicom.encoding.data_set_reader import data_set_reader
from pacs.dicom.encoding.element_headers import MAX_PASSED_ELEMENTS
from pacs.dicom.encoding.plain_elements import Elements, value_of
from pacs.dicom.error_comment import about
from pacs.errors import IncompleteInstance, StorageUnavailable

_NUMBER_OF_FRAMES = 0x00280008
_PIXEL_DATA = 0x7FE00010
_RLE_LOSSLESS = "1.2.840.10008.1.2.5"
#: Number of Frames is an IS: at most twelve characters.
_MAX_DIGITS = 13
#: How JPEG and JPEG 2000 code streams end, before the byte that makes a fragment even.
_CODE_STREAM_END = b"\xff\xd9"
_LACKS_DELIMITER = about(_PIXEL_DATA, "lacks its delimiter")


def check_complete(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    data_set_offset: int,
    *,
    most_passed: int = MAX_PASSED_ELEMENTS,
) -> str | None:
    """Walk the data set that begins at ``data_set_offset`` to its end; return what little it lacks, None if nothing.

    Time and memory are bounded and no Pixel Data is read, except for what is deflated. The stream stays open, at
    any position; a stored file can be checked as well as a spooled one.

    What is returned is a sentence for a warning (at most 64 characters, the Attribute first): all frames are there, and
    only the delimiter behind the last fragment is not. Such an instance may be kept where there is none, and must never
    take the place of one for which this returns None.

    Raises:
        IncompleteInstance: the data set ends too early; the message names the element and how many bytes are missing.
            Such an instance must not be accepted, and one that is stored may always be replaced.
        InvalidInstance: it cannot be read to its end for another reason: it may be whole all the same. One is that it
            has more than ``most_passed`` elements within sequences, or fragments.
        StorageUnavailable: the file cannot be read.
    """
    _, lacking = read_whole(
        stream, transfer_syntax_uid, data_set_offset, frozenset(), most_passed=most_passed
    )
    return lacking


def read_whole(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    data_set_offset: int,
    tags: Container[int],
    *,
    most_passed: int = MAX_PASSED_ELEMENTS,
) -> tuple[Elements, str | None]:
    """``check_complete``, and on the way the elements with one of these tags, wherever they are.

    Raises:
        IncompleteInstance, InvalidInstance, StorageUnavailable: as for ``check_complete``.
    """
    with _readable():
        reader, encoding = data_set_reader(
            stream, transfer_syntax_uid, data_set_offset, most_passed=most_passed
        )
        elements = reader.whole(encoding, tags)
        fragments = reader.fragments_seen
        if fragments is None or fragments.is_ended:
            return elements, None
        frames = _number_of_frames(stream, transfer_syntax_uid, data_set_offset)
        end = data_set_offset + fragments.last_at + fragments.last_bytes
        if not _are_frames(stream, transfer_syntax_uid, fragments.number, end, frames):
            raise IncompleteInstance(about(_PIXEL_DATA, "lacks fragments and its delimiter"))
        return elements, _LACKS_DELIMITER


def _number_of_frames(stream: BinaryIO, transfer_syntax_uid: str, offset: int) -> int:
    reader, encoding = data_set_reader(stream, transfer_syntax_uid, offset)
    element = reader.gathered(encoding, {_NUMBER_OF_FRAMES}, _NUMBER_OF_FRAMES).get(
        _NUMBER_OF_FRAMES
    )
    value = value_of(element) if element else b""
    text = value.strip(b" \0") if isinstance(value, bytes) else b""
    return int(text) if text.isdigit() and len(text) < _MAX_DIGITS else 1


def _are_frames(
    stream: BinaryIO, transfer_syntax_uid: str, fragments: int, end: int, frames: int
) -> bool:
    # Proof is asked for, because a transfer that breaks off does so between two fragments as well.
    if transfer_syntax_uid == _RLE_LOSSLESS:
        return fragments == frames
    stream.seek(end - 3)
    is_ended = stream.read(3).removesuffix(b"\0").endswith(_CODE_STREAM_END)
    return is_ended and fragments > 0 and frames in (1, fragments)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"The file cannot be read: {error.strerror}") from error
