"""Stored files beside the rows that point at them: what ``check`` and ``reindex`` walk through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pacs.archive.archive import Archive
from pacs.dicom.encoding.part10 import read_file_meta, read_header
from pacs.errors import InvalidInstance
from pacs.index.index import Index
from pacs.model.instances import InstanceLocation, InstanceRecord
from pacs.storage.base import StoredFile
from pacs.storage.faults import storage_faults
from pacs.storage.storage import Storage

#: Rows fetched in one transaction. Hashing terabytes may take days: a reader open for so long would keep SQLite's
#: log from shrinking, and PostgreSQL would end it.
_PAGE_ROWS = 1000
#: Read at a time for a digest.
_DIGESTED_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """What index and storage say of one location; at least one of them says something."""

    location: str
    row: InstanceLocation | None
    file: StoredFile | None


def entries(archive: Archive) -> Iterator[Entry]:
    """Every location that has a row or a file, in the order of receipt, in flat memory.

    Both sides come sorted by location and are merged. The archive may change meanwhile: an entry with only one
    side tells what was so when that side was read, so look again before acting on it.

    Raises:
        IndexUnavailable: the index cannot be read.
        StorageUnavailable: the storage cannot be listed.
    """
    rows, files = _rows(archive.index), archive.storage.files()
    row, file = next(rows, None), next(files, None)
    while row is not None or file is not None:
        if file is None or (row is not None and row.location < file.location):
            assert row is not None
            yield Entry(row.location, row, None)
            row = next(rows, None)
        elif row is None or file.location < row.location:
            yield Entry(file.location, None, file)
            file = next(files, None)
        else:
            yield Entry(row.location, row, file)
            row, file = next(rows, None), next(files, None)


def read_record(
    storage: Storage, file: StoredFile, known: InstanceLocation | None = None
) -> InstanceRecord:
    """Make the record of a stored file, without a row from the file alone.

    The data set is read up to the last indexed Attribute, and to its end for the digest where there is no row. What
    the row knows (where the data set begins, its size, digest and transfer syntax) was so when the bytes were
    received, and is not found out again: what the bytes say now may come of damage.

    Raises:
        IncompleteInstance: nothing is ``known``, and the data set ends too early.
        InvalidInstance: the file holds no instance that can be read, or has another size than ``known`` says.
        StorageUnavailable: the file is gone or cannot be read.
    """
    if known is not None and file.size_bytes != known.size:
        raise InvalidInstance(f"has {file.size_bytes} bytes, should have {known.size}")
    with storage.open(file.location) as stream:
        # Whatever is in the storage was written there by this archive.
        meta = read_file_meta(stream, is_ours=True)
        syntax = known.transfer_syntax_uid if known else meta.transfer_syntax_uid
        offset = known.data_set_offset if known else meta.data_set_offset
        # A row that is there from before the end of a data set was looked at is not given up.
        header = read_header(stream, syntax, offset, may_be_cut=known is not None)
        digest = known.digest if known else digest_of(stream, offset)
    return InstanceRecord(
        header=header,
        location=file.location,
        data_set_offset=offset,
        data_set_size=file.size_bytes - offset,
        digest=digest,
        received_at=file.stored_at,
        source_ae=meta.source_ae,
    )


def digest_of(stream: BinaryIO, data_set_offset: int) -> str:
    """SHA-256 of the data set of a stored file, lower-case hexadecimal.

    Raises:
        StorageUnavailable: the file cannot be read to its end.
    """
    digest = hashlib.sha256()
    with storage_faults("read a stored file"):
        stream.seek(data_set_offset)
        # Not hashlib.file_digest: of a stream in memory that takes all, also what is before the data set.
        while data := stream.read(_DIGESTED_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _rows(index: Index) -> Iterator[InstanceLocation]:
    after = ""
    while page := list(index.locations(after, _PAGE_ROWS)):
        yield from page
        after = page[-1].location
