"""The Identifier of a request, decoded in bounded time and memory, and logged when the operator asked for that."""

from __future__ import annotations

import logging
import zlib
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode

from pacs.dicom.encoding.part10 import read_identifier
from pacs.dicom.encoding.plain_values import texts_of
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import FRAME_LEVEL, QUERY_RETRIEVE_LEVEL
from pacs.errors import InvalidIdentifier, InvalidInstance, LimitExceeded
from pacs.wire.dimse import MAX_IDENTIFIER_BYTES

LOGGER = logging.getLogger(__name__)
#: Identifiers contain patient values: they are logged only when the setting ``log_identifiers`` is on.
IDENTIFIERS = logging.getLogger("pacs.identifiers")

_LEVELS = frozenset({*(level.name for level in Level), FRAME_LEVEL})
_UID_LIST_CHARACTERS = b"0123456789.\\"
# Only lists of UIDs are long. The header of each Data Element and Item has at least one byte that is no
# character of a UID list, so this bounds their number whatever a decoder makes of the bytes. pydicom needs
# 45 us and 0.8 KB for each: 8 MB of empty Items took 44 s and 0.8 GB.
_MAX_OTHER_BYTES = 128 * 1024


def identifier_of(event: Any) -> Dataset:
    """Decode the Identifier of a C-FIND, C-MOVE or C-GET request.

    Raises:
        InvalidIdentifier: there is none, it is not a data set, or it is larger than any request needs.
        LimitExceeded: it was too long to be kept.
    """
    encoded = _bounded(event)
    identifier = _decoded(encoded, event)
    if IDENTIFIERS.isEnabledFor(logging.DEBUG):
        syntax = event.context.transfer_syntax
        text = str(decode(BytesIO(encoded), syntax.is_implicit_VR, syntax.is_little_endian))
        IDENTIFIERS.debug("%s Identifier:\n%s", type(event.request).__name__, text)
    return identifier


def unlogged_identifier_of(event: Any) -> Dataset:
    """The same for a record of the request, which has been logged before.

    Raises:
        InvalidIdentifier: there is none, it is not a data set, or it is larger than any request needs.
        LimitExceeded: it was too long to be kept.
    """
    return _decoded(_bounded(event), event)


def _bounded(event: Any) -> bytes:
    require_whole(event.request, "Identifier")
    data = event.request.Identifier
    if data is None or not data.getbuffer().nbytes:
        raise InvalidIdentifier("The request has no Identifier")
    is_deflated = event.context.transfer_syntax.is_deflated
    encoded: bytes = _inflated(data.getvalue()) if is_deflated else data.getvalue()
    if len(encoded.translate(None, _UID_LIST_CHARACTERS)) > _MAX_OTHER_BYTES:
        raise InvalidIdentifier("The Identifier is too large")
    return encoded


def _decoded(encoded: bytes, event: Any) -> Dataset:
    try:
        return read_identifier(encoded, str(event.context.transfer_syntax))
    except InvalidInstance as error:
        raise InvalidIdentifier("The Identifier cannot be decoded") from error


def level_named(identifier: Dataset) -> str:
    """The Query/Retrieve Level that an Identifier names, also if its model has none such; else empty."""
    if QUERY_RETRIEVE_LEVEL not in identifier:
        return ""
    values = texts_of(identifier.get_item(QUERY_RETRIEVE_LEVEL))
    return values[0] if len(values) == 1 and values[0] in _LEVELS else ""


def require_whole(request: Any, name: str) -> None:
    """Refuse a request whose data set, called ``name``, was dropped while it was received.

    Raises:
        LimitExceeded: it was.
    """
    if request.is_oversized:
        raise LimitExceeded(f"{name} is longer than {MAX_IDENTIFIER_BYTES >> 20} MiB")


def _inflated(deflated: bytes) -> bytes:
    # A deflate bomb grows a thousandfold: no further than an Identifier may be long.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        encoded = inflater.decompress(deflated, MAX_IDENTIFIER_BYTES + 1)
    except zlib.error as error:
        raise InvalidIdentifier("The Identifier cannot be decoded") from error
    if len(encoded) > MAX_IDENTIFIER_BYTES:
        raise InvalidIdentifier("The Identifier is too large")
    if not inflater.eof:
        raise InvalidIdentifier("The Identifier cannot be decoded")
    return encoded
