"""Answer a query from the index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pacs.archive.archive import Archive
from pacs.dicom.identifier import Query


def find(archive: Archive, query: Query) -> Iterator[Mapping[str, str | None]]:
    """The matches of ``query``, streamed; closing the iterator early frees its database cursor.

    Raises:
        IndexUnavailable: the index cannot be read.
    """
    return archive.index.search(query)
