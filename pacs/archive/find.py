"""Answer a query from the index, and from stored headers where the index does not have an Attribute."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.dicom.header_values import HeaderValues, read_header_values
from pacs.dicom.identifier import Query
from pacs.errors import IndexUnavailable, PacsError
from pacs.index.records import HeaderFile

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """One match."""

    #: Keyword to index text.
    record: Mapping[str, str | None]
    #: What the stored header has of the query's header keys.
    header: Dataset | None = None
    #: Whether the header has answered all of them.
    is_complete: bool = True


def find(archive: Archive, query: Query) -> Iterator[Found]:
    """The matches of ``query``, streamed; closing the iterator early frees its database cursor.

    With header keys one file is read for each match, when it is its turn. One that is missing or cannot be read
    leaves them out of its match.

    Raises:
        IndexUnavailable: the index cannot be read.
    """
    if not query.header_keys:
        for record in archive.index.search(query):
            yield Found(record)
        return
    failed = 0
    for record, file in archive.index.search_with_file(query):
        values = None
        try:
            values = _header(archive, query, file)
        except IndexUnavailable:
            raise
        except PacsError as error:
            failed += 1
            if failed == 1:
                LOGGER.warning("C-FIND answers without the header of %s: %s", file.location, error)
        if values is None:
            yield Found(record, is_complete=False)
        else:
            yield Found(record, values.data_set, values.is_complete)
    if failed > 1:
        LOGGER.warning("C-FIND answered %d matches without their headers", failed)


def _header(archive: Archive, query: Query, file: HeaderFile) -> HeaderValues | None:
    if file.location is None or file.transfer_syntax_uid is None or file.data_set_offset is None:
        return None
    with archive.storage.open(file.location) as stream:
        return read_header_values(
            stream, file.transfer_syntax_uid, file.data_set_offset, query.header_keys
        )
