"""The DICOMDIR of a medium (PS3.10 8, PS3.3 F): which files its directory records name.

The records are walked one by one in the order of the file, which needs neither their offsets, a usual
victim of tools that edit a DICOMDIR, nor memory for more than one. Their lengths may be wrong too: a record
ends where the next one begins, whatever it claims.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from pacs.dicom.encoding.actual_syntax import HEAD_BYTES, actual_transfer_syntax
from pacs.dicom.encoding.byte_source import StreamBytes
from pacs.dicom.encoding.element_encoding import (
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
    declared_encoding,
)
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.errors import InvalidInstance

#: Media Storage Directory Storage: the SOP Class of a DICOMDIR (PS3.4 I.4).
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_DIRECTORY_RECORDS = 0x00041220
_RECORD_IN_USE = 0x00041410
_REFERENCED_FILE_ID = 0x00041500


def referenced_files(
    stream: BinaryIO, transfer_syntax_uid: str, data_set_offset: int
) -> Iterator[tuple[str, ...]]:
    """The File IDs of the records in use, each as its path components, from the folder of the DICOMDIR.

    The components are what the file says: the caller must not follow them out of that folder. Tools write paths of
    theirs in place of a File ID: ``/`` between the components, a delimiter in front, ``.`` for the folder itself.

    Raises:
        InvalidInstance: the records cannot be read; those before the fault have been yielded.
    """
    source = StreamBytes(stream, data_set_offset)
    syntax = actual_transfer_syntax(source.read_at(0, HEAD_BYTES), transfer_syntax_uid)
    reader = ElementReader(source)
    encoding = reader.encoding_at(0, declared_encoding(syntax))
    # An Item has no VR in any encoding; in the implicit one nothing is taken for one.
    item_encoding = IMPLICIT_BIG if encoding.is_big_endian else IMPLICIT_LITTLE
    position, end = _find_records(reader, encoding)
    overrun = 0
    while end is None or position < end:
        # A reader gives up after so many elements, and each record is to have that many.
        reader = ElementReader(source)
        item = reader.header(position, item_encoding)
        if item.tag == SEQUENCE_DELIMITER:
            return
        if item.tag != ITEM:
            raise InvalidInstance("The DICOMDIR contains something else in place of a record")
        record_end = None if item.length == UNDEFINED_LENGTH else item.value_at + item.length
        record = _read_record(reader, encoding, item.value_at, record_end)
        components = _components(record.file_id) if record.is_in_use else ()
        if components:
            yield components
        overrun += 0 if record_end is None else record_end - record.end
        position = record.end
        is_named = bool(record.file_id) or not record.is_cut
        if is_named and position + overrun == end and not reader.has_bytes(position + 1):
            # The records claim as much more than they have as the file lacks: none is lost.
            return


def _components(file_id: str) -> tuple[str, ...]:
    parts = (part.strip(" \0") for part in file_id.replace("/", "\\").split("\\"))
    return tuple(part for part in parts if part not in {"", "."})


def _find_records(reader: ElementReader, encoding: Encoding) -> tuple[int, int | None]:
    position = 0
    while True:
        header = reader.header(position, encoding)
        if header.tag == _DIRECTORY_RECORDS:
            undefined = header.length == UNDEFINED_LENGTH
            return header.value_at, None if undefined else header.value_at + header.length
        position = reader.skip(header, encoding)


class _Record(NamedTuple):
    is_in_use: bool
    #: Empty if it names no file.
    file_id: str
    #: The position after it.
    end: int
    #: Whether the file ends where this record has room for another element.
    is_cut: bool = False


def _read_record(
    reader: ElementReader, encoding: Encoding, position: int, end: int | None
) -> _Record:
    is_in_use, file_id = True, ""
    while end is None or position < end:
        if not reader.has_bytes(position + 1) and reader.has_bytes(position):
            return _Record(is_in_use, file_id, position, is_cut=True)
        header = reader.header(position, encoding)
        if header.tag in (ITEM, SEQUENCE_DELIMITER):
            # The record claims to be longer than it is.
            break
        if header.tag == ITEM_DELIMITER:
            position = header.value_at
            break
        if header.tag == _RECORD_IN_USE:
            is_in_use = reader.value(header) != b"\0\0"
        elif header.tag == _REFERENCED_FILE_ID:
            file_id = reader.value(header).decode("latin_1").strip(" \0")
        position = reader.skip(header, encoding)
    return _Record(is_in_use, file_id, position)
