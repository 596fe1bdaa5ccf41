"""The DICOMDIR of a medium (PS3.10 8, PS3.3 F): which files its directory records name.

The records are walked one by one in the order of the file, which needs neither their offsets, a usual
victim of tools that edit a DICOMDIR, nor memory for more than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pacs.dicom.byte_source import StreamBytes
from pacs.dicom.element_reader import ElementReader
from pacs.dicom.encoding import (
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    UNDEFINED_LENGTH,
    Encoding,
)
from pacs.errors import InvalidInstance

#: Media Storage Directory Storage: the SOP Class of a DICOMDIR (PS3.4 I.4).
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"

_DIRECTORY_RECORDS = 0x00041220
_RECORD_IN_USE = 0x00041410
_REFERENCED_FILE_ID = 0x00041500


def referenced_files(stream: BinaryIO, data_set_offset: int) -> Iterator[tuple[str, ...]]:
    """The File IDs of the records in use, each as its path components, from the folder of the DICOMDIR.

    The components are what the file says: the caller must not follow them out of that folder.

    Raises:
        InvalidInstance: the records cannot be read; those before the fault have been yielded.
    """
    source = StreamBytes(stream, data_set_offset)
    reader = ElementReader(source)
    encoding = reader.encoding_at(0, EXPLICIT_LITTLE)
    position, end = _find_records(reader, encoding)
    while end is None or position < end:
        # A reader gives up after so many elements, and each record is to have that many.
        reader = ElementReader(source)
        # An Item has no VR in any encoding; in the implicit one nothing is taken for one.
        item = reader.header(position, IMPLICIT_LITTLE)
        if item.tag == SEQUENCE_DELIMITER:
            return
        if item.tag != ITEM:
            raise InvalidInstance("The DICOMDIR contains something else in place of a record")
        record_end = None if item.length == UNDEFINED_LENGTH else item.value_at + item.length
        file_id, position = _read_record(reader, encoding, item.value_at, record_end)
        if file_id:
            yield tuple(component.strip(" \0") for component in file_id.split("\\"))


def _find_records(reader: ElementReader, encoding: Encoding) -> tuple[int, int | None]:
    position = 0
    while True:
        header = reader.header(position, encoding)
        if header.tag == _DIRECTORY_RECORDS:
            undefined = header.length == UNDEFINED_LENGTH
            return header.value_at, None if undefined else header.value_at + header.length
        position = reader.skip(header, encoding)


def _read_record(
    reader: ElementReader, encoding: Encoding, position: int, end: int | None
) -> tuple[str, int]:
    # The File ID, empty if the record names no file or is not in use, and the position after it.
    is_in_use, file_id = True, ""
    while end is None or position < end:
        header = reader.header(position, encoding)
        if header.tag == ITEM_DELIMITER:
            position = header.value_at
            break
        if header.tag == _RECORD_IN_USE:
            is_in_use = reader.value(header) != b"\0\0"
        elif header.tag == _REFERENCED_FILE_ID:
            file_id = reader.value(header).decode("latin_1").strip(" \0")
        position = reader.skip(header, encoding)
    return (file_id if is_in_use else ""), position
