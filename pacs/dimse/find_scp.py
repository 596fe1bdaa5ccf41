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
from pacs.archive.find import Found, find
from pacs.dicom.information_model import model_of
from pacs.dicom.query.identifier import Query, parse_find
from pacs.dicom.query.response import encode_response
from pacs.dimse.extended_negotiation import options_of_request
from pacs.dimse.negotiation import rights_of
from pacs.dimse.request_identifier import identifier_of, level_named
from pacs.dimse.status import DimseService, Status, status_dataset, status_of
from pacs.errors import PacsError
from pacs.model.remote_ae import Service

LOGGER = logging.getLogger(__name__)

_Response = tuple[int | Dataset, Dataset | None]


def handle_find(
    event: Any,
    archive: Archive,
    ae_title: str,
    limit: int = 0,
    match_unknown: bool = False,
    header_limit: int = 0,
    timezone: tzinfo = UTC,
) -> Iterator[_Response]:
    """Handle ``evt.EVT_C_FIND``: yield (status, Identifier) for each match.

    With a ``limit``, a query with more matches ends with 0xA700 after that many, never silently; so does one that
    needs more stored headers than ``header_limit`` to know its matches. ``timezone`` is that of instances that do
    not say theirs.
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
        found = find(
            archive, query, header_limit, partial(_check_cancelled, event), timezone, limit=limit
        )
        for response in _responses(event, found, ae_title, query):
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


def _responses(
    event: Any, matches: Iterator[Found], ae_title: str, query: Query
) -> Iterator[_Response]:
    for found in matches:
        _check_cancelled(event)
        # PS3.4 C.4.1.1.4: 0xFF01 says that an optional key asked for is not supported, FF00 that all are.
        is_supported = found.is_complete and not query.unsupported
        pending = Status.PENDING if is_supported else Status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED
        yield (
            pending,
            encode_response(query, found.record, retrieve_ae_title=ae_title, header=found.header),
        )
