"""Query/Retrieve FIND SCP (PS3.4 C.4.1)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, tzinfo
from functools import partial
from typing import Any

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.archive.find import Found, find, is_answered_by_index
from pacs.dicom.encoding.element_encoding import IMPLICIT_LITTLE, Encoding, declared_encoding
from pacs.dicom.information_model import model_of
from pacs.dicom.query.identifier import Query, parse_find
from pacs.dicom.query.response import encode_response
from pacs.dicom.query.response_writer import ResponseWriter
from pacs.dimse.extended_negotiation import options_of_request
from pacs.dimse.find_responses import EncodedIdentifier
from pacs.dimse.negotiation import rights_of
from pacs.dimse.request_identifier import identifier_of, level_named
from pacs.dimse.status import DimseService, Status, status_dataset, status_of
from pacs.errors import PacsError
from pacs.model.remote_ae import Service

LOGGER = logging.getLogger(__name__)

_Response = tuple[int | Dataset, Dataset | EncodedIdentifier | None]


def handle_find(
    event: Any,
    archive: Archive,
    ae_title: str,
    limit: int = 0,
    match_unknown: bool = False,
    header_limit: int = 0,
    timezone: tzinfo = UTC,
    *,
    as_data_sets: bool = False,
) -> Iterator[_Response]:
    """Handle ``evt.EVT_C_FIND``: yield (status, Identifier) for each match.

    With a ``limit``, a query with more matches ends with 0xA700 after that many, never silently; so does one that
    needs more stored headers than ``header_limit`` to know its matches. ``timezone`` is that of instances that do
    not say theirs. An Identifier may be yielded as it goes on the wire, unless ``as_data_sets``.
    """
    started = time.monotonic()
    rights = rights_of(event)
    count = 0
    final: int | Dataset = Status.SUCCESS
    level = "?"
    try:
        rights.require(Service.FIND)
        model = model_of(str(event.request.AffectedSOPClassUID))
        identifier = identifier_of(event)
        level = level_named(identifier) or level
        query = parse_find(
            identifier, model, options_of_request(event), match_unknown=match_unknown
        )
        level = query.level.name
        encoding = None if as_data_sets else _encoding_of(event)
        if encoding is not None and is_answered_by_index(query):
            responses = _encoded_responses(event, archive, ae_title, query, limit, encoding)
        else:
            check = partial(_check_cancelled, event)
            found = find(archive, query, header_limit, check, timezone, limit=limit)
            responses = _responses(event, found, ae_title, query)
        for response in responses:
            if limit and count == limit:
                final = status_dataset(
                    Status.OUT_OF_RESOURCES, f"Limit of {limit} matches reached: narrow the query"
                )
                break
            count += 1
            yield response
    except _Cancelled:
        final = Status.CANCEL
    except PacsError as error:
        final = status_of(error, DimseService.FIND)
        LOGGER.log(error.log_level, "%s: C-FIND refused: %s", rights, error.message)
    code = int(final.Status) if isinstance(final, Dataset) else int(final)
    LOGGER.info(
        "%s: C-FIND %s: %d match%s in %.3f s, status %04X",
        rights,
        level,
        count,
        "" if count == 1 else "es",
        time.monotonic() - started,
        code,
    )
    if code != Status.SUCCESS:
        yield final, None


class _Cancelled(Exception):
    """The peer sent a C-CANCEL."""


def _check_cancelled(event: Any) -> None:
    if event.is_cancelled:
        raise _Cancelled


def _status(query: Query, *, is_complete: bool = True) -> Status:
    """That of a match (PS3.4 C.4.1.1.4): 0xFF01 says that an optional key is not supported, 0xFF00 that all are."""
    is_supported = is_complete and not query.unsupported
    return Status.PENDING if is_supported else Status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED


def _responses(
    event: Any, matches: Iterator[Found], ae_title: str, query: Query
) -> Iterator[_Response]:
    for found in matches:
        _check_cancelled(event)
        yield (
            _status(query, is_complete=found.is_complete),
            encode_response(query, found.record, retrieve_ae_title=ae_title, header=found.header),
        )


def _encoding_of(event: Any) -> Encoding | None:
    """What an Identifier is to be written in; None for what is deflated, which is left to the library."""
    syntax = event.context.transfer_syntax
    if syntax.is_deflated:
        return None
    return IMPLICIT_LITTLE if syntax.is_implicit_VR else declared_encoding(str(syntax))


def _encoded_responses(
    event: Any, archive: Archive, ae_title: str, query: Query, limit: int, encoding: Encoding
) -> Iterator[_Response]:
    """The responses to a query that the index answers."""
    status = _status(query)
    matches = archive.index.matches(query, limit)
    writer = ResponseWriter(query, matches.keywords, encoding, retrieve_ae_title=ae_title)
    for rows in matches.pages:
        last = len(rows) - 1
        for number, row in enumerate(rows):
            _check_cancelled(event)
            data = writer.write(row)
            if data is not None:
                yield status, EncodedIdentifier(data, more_at_hand=number < last)
                continue
            record = dict(zip(matches.keywords, row, strict=False))
            yield status, encode_response(query, record, retrieve_ae_title=ae_title)
        del rows  # before there are two
