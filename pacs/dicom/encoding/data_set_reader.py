"""Which bytes, reader and encoding belong to a data set of a transfer syntax (PS3.5 10, A): said only here."""

from __future__ import annotations

from typing import BinaryIO

from pacs.dicom.encoding.byte_source import InflatedBytes, StreamBytes
from pacs.dicom.encoding.element_encoding import Encoding, declared_encoding
from pacs.dicom.encoding.element_headers import MAX_PASSED_ELEMENTS
from pacs.dicom.encoding.element_reader import ElementReader
from pacs.dicom.sop_classes import DEFLATED


def data_set_reader(
    stream: BinaryIO,
    transfer_syntax_uid: str,
    offset: int,
    *,
    most_passed: int = MAX_PASSED_ELEMENTS,
) -> tuple[ElementReader, Encoding]:
    """A reader of the data set that begins at ``offset``, and how its elements are encoded.

    It gives up with InvalidInstance after so many elements within sequences, or fragments.

    Raises:
        InvalidInstance: it is deflated, and damaged already where it begins.
    """
    is_deflated = transfer_syntax_uid in DEFLATED
    source = InflatedBytes(stream, offset) if is_deflated else StreamBytes(stream, offset)
    reader = ElementReader(source, most_passed=most_passed)
    return reader, reader.encoding_at(0, declared_encoding(transfer_syntax_uid))
