"""Answer a query from the index, and from stored headers where the index does not have an Attribute."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo

from pydicom.dataset import Dataset

from pacs.archive.archive import Archive
from pacs.dicom.query.header_values import HeaderValues, read_header_values
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.timezone_adjustment import TimezoneAdjustment
from pacs.errors import IndexUnavailable, LimitExceeded, PacsError, StorageUnavailable
from pacs.model.instances import HeaderFile
from pacs.storage.faults import is_missing

LOGGER = logging.getLogger(__name__)

#: An instance may be replaced between two looks at it.
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """One match."""

    #: Keyword to index text.
    record: Mapping[str, str | None]
    #: What the stored header has of the query's header keys.
    header: Dataset | None = None
    #: Whether the header has answered all of them.
    is_complete: bool = True


def is_answered_by_index(query: Query) -> bool:
    """Whether no stored header is needed, so that ``archive.index.matches`` has all that ``find`` would."""
    return not query.header_keys and not query.timezone_offset


def _nothing() -> None:
    """Do nothing."""


def find(
    archive: Archive,
    query: Query,
    header_limit: int = 0,
    before_each: Callable[[], None] = _nothing,
    timezone: tzinfo = UTC,
    *,
    limit: int = 0,
) -> Iterator[Found]:
    """The matches of ``query``, as ``Search.search`` has them: nothing of the database is held between two of them.

    With header keys one file is read for each match, when it is its turn. One that is missing or cannot be read
    leaves them out of its match. Keys that have to be matched in the header are so after all that the index can
    say, in at most ``header_limit`` files (0 is no limit); ``before_each`` is called before each. A query in a time
    zone of its own reads a file for each candidate; ``timezone`` is that of instances that do not say theirs.
    With a ``limit``, further matches need not be found to know that there are some.

    Raises:
        IndexUnavailable: the index cannot be read.
        LimitExceeded: more files would have to be read to know all matches, or there are more than ``limit``; the
            latter is not always noticed.
    """
    adjustment = TimezoneAdjustment.of(query, timezone)
    restricts = query.header_conditions or (adjustment is not None and adjustment.restricts)
    if restricts:
        limit = 0  # of candidates there may be many more than matches
    headers = header_limit if restricts else 0
    if adjustment is None:
        yield from _candidates(archive, query, headers, before_each, limit)
        return
    for found in _candidates(archive, adjustment.superset, headers, before_each, limit):
        if (adjusted := adjustment.adjusted(found.record, found.header)) is not None:
            record, header = adjusted
            yield replace(found, record=record, header=header)


def _candidates(
    archive: Archive, query: Query, headers: int, before_each: Callable[[], None], limit: int
) -> Iterator[Found]:
    """What the index finds, and its header does not rule out."""
    if not query.header_keys:
        for record in archive.index.search(query, limit):
            yield Found(record)
        return
    failed = 0
    at_most = headers + 1 if headers else limit
    for number, (record, file) in enumerate(archive.index.search_with_file(query, at_most)):
        before_each()
        if headers and number == headers:
            raise LimitExceeded(f"Limit of {headers} headers to match in: narrow the query")
        try:
            found = _in_header(archive, query, record, file)
        except IndexUnavailable:
            raise
        except PacsError as error:
            failed += 1
            if failed == 1:
                LOGGER.warning("C-FIND answers without the header of %s: %s", file.location, error)
            found = Found(record, is_complete=False)
        if found is not None:
            yield found
    if failed > 1:
        LOGGER.warning("C-FIND answered %d matches without their headers", failed)


def _in_header(
    archive: Archive, query: Query, record: Mapping[str, str | None], file: HeaderFile
) -> Found | None:
    """What the header adds to a record; None if it does not match."""
    values = _header(archive, query, file)
    if values is None:
        return Found(record, is_complete=False)
    return Found(record, values.data_set, values.is_complete) if values.is_match else None


def _header(archive: Archive, query: Query, file: HeaderFile) -> HeaderValues | None:
    for _ in range(_LOOKS):
        if file.location is None or file.key is None:
            return None
        try:
            return _read(archive, query, file)
        except StorageUnavailable as error:
            now = archive.index.instances([file.key]) if is_missing(error) else []
            if not now or now[0].location == file.location:
                raise
            # Replaced since the row was read.
            one = now[0]
            file = HeaderFile(one.transfer_syntax_uid, one.location, one.data_set_offset, one.key)
    return None


def _read(archive: Archive, query: Query, file: HeaderFile) -> HeaderValues:
    assert file.location is not None
    assert file.transfer_syntax_uid is not None
    assert file.data_set_offset is not None
    with archive.storage.open(file.location) as stream:
        return read_header_values(
            stream,
            file.transfer_syntax_uid,
            file.data_set_offset,
            query.header_keys,
            unknown_matches=query.unknown_matches,
        )
