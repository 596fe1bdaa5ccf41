"""Write every row again from the stored files: after the attribute table has grown, or the index was lost.

Files are taken in the order of receipt, so that the rules for instances and parents that contradict each other
(the latest wins) come to what they came to when the instances were received. Only headers are read; where there is
no row yet, the data set too, for its digest. A file without a row that another process may be about to index is left
to that process. Nothing is removed, neither rows nor bytes: that is
``pacs check --repair``. Running it again, after an interruption or for any other reason, does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from pacs.archive.archive import Archive
from pacs.archive.check import DEFAULT_GRACE
from pacs.archive.log_replay import recover
from pacs.archive.mounted import learn_storage, require_own_storage
from pacs.archive.stored_files import Entry, entries, read_record
from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dicom.uids import shown_uid
from pacs.errors import IndexUnavailable, InvalidInstance, PacsError, StorageUnavailable
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceRecord
from pacs.storage.base import StoredFile

#: Instances in one transaction.
_BATCH_INSTANCES = 200


class Finding(Enum):
    """What became of one location."""

    #: The row was written again.
    REWRITTEN = "rewritten"
    #: There was no row; there is one now.
    ADOPTED = "indexed"
    #: Another file of the same instance is indexed.
    SUPERFLUOUS = "not indexed: another file has this instance"
    #: The file cannot be read; its row, if it has one, stays as it was.
    UNREADABLE = "unreadable"
    #: Stored within the grace period by a process that may be about to index it.
    IN_FLIGHT = "in flight"
    #: There is a row and no file.
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindexed:
    """One location after it was dealt with."""

    finding: Finding
    location: str
    size_bytes: int = 0
    sop_instance_uid: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Work:
    """A record to write; None as policy: into the row that points at it."""

    policy: DuplicatePolicy | None
    record: InstanceRecord


def reindex(archive: Archive, grace: timedelta = DEFAULT_GRACE) -> Iterator[Reindexed]:
    """Write all rows again, a batch at a time; what is yielded is committed.

    When the iterator is exhausted, the index is marked as written with this release's attribute table.

    Args:
        archive: The archive.
        grace: While another process receives instances, younger files without a row are left alone: it may have
            placed them and not come to its commit yet, or come to find that it cannot commit and remove the file.

    Raises:
        IndexUnavailable: the index cannot be read or written.
        StorageUnavailable: the storage cannot be listed, or is not that of the index.
    """
    require_own_storage(archive.storage, archive.index)
    learn_storage(archive.storage, archive.index)
    recover(archive)
    pending: list[_Work] = []
    for entry in entries(archive):
        step = _read(archive, entry, grace)
        if step is None:
            continue
        if isinstance(step, Reindexed):
            yield step
            continue
        # One kind of write at a time keeps the order of receipt.
        if pending and (pending[0].policy is not step.policy or len(pending) == _BATCH_INSTANCES):
            yield from _write(archive, pending)
            pending = []
        pending.append(step)
    yield from _write(archive, pending)
    archive.index.set_attribute_set_version(ATTRIBUTE_SET_VERSION)


def _read(archive: Archive, entry: Entry, grace: timedelta) -> _Work | Reindexed | None:
    row, file = entry.row, entry.file
    uid = row.sop_instance_uid if row else ""
    if file is None:
        return _without_file(archive, entry.location, uid)
    is_young = row is None and file.stored_at > datetime.now(UTC) - grace
    if is_young and archive.storage.spool.has_other_users():
        # Nothing is known of it but its name: whoever stores it goes on to index it.
        return _in_flight(archive, file)
    try:
        record = read_record(archive.storage, file, row)
    except (InvalidInstance, StorageUnavailable) as error:
        return _unreadable(entry.location, uid, error.message)
    if row is None:
        # A file this young may have been stored under a policy by which it was not to take the place of another.
        return _Work(DuplicatePolicy.KEEP if is_young else DuplicatePolicy.LATEST, record)
    if record.header.sop_instance_uid != uid:
        found = record.header.sop_instance_uid
        return _unreadable(
            entry.location, uid, f"the file holds another instance, {shown_uid(found)}"
        )
    return _Work(None, record)


def _in_flight(archive: Archive, file: StoredFile) -> Reindexed | None:
    if archive.index.is_location_indexed(file.location):
        # Since the page of rows was read, and so with all that this release knows.
        return None
    return Reindexed(finding=Finding.IN_FLIGHT, location=file.location, size_bytes=file.size_bytes)


def _without_file(archive: Archive, location: str, uid: str) -> Reindexed | None:
    try:
        if archive.storage.size(location) is not None:
            # Stored while this ran, and so with all that this release knows.
            return None
    except StorageUnavailable as error:
        return _unreadable(location, uid, error.message)
    if not archive.index.is_location_indexed(location):
        return None
    return Reindexed(
        finding=Finding.MISSING,
        location=location,
        sop_instance_uid=uid,
        detail="the file is missing",
    )


def _unreadable(location: str, uid: str, detail: str) -> Reindexed:
    return Reindexed(
        finding=Finding.UNREADABLE, location=location, sop_instance_uid=uid, detail=detail
    )


def _write(archive: Archive, batch: Sequence[_Work]) -> Iterator[Reindexed]:
    if not batch:
        return
    records = [work.record for work in batch]
    try:
        findings = _write_records(archive, batch[0].policy, records)
    except IndexUnavailable:
        raise
    except PacsError as error:
        if len(batch) == 1:
            uid = records[0].header.sop_instance_uid
            yield _unreadable(records[0].location, uid, error.message)
            return
        # One of them cannot be indexed: find out which, and do the others.
        for work in batch:
            yield from _write(archive, [work])
        return
    for record, finding in zip(records, findings, strict=True):
        if finding is not None:
            yield Reindexed(
                finding=finding,
                location=record.location,
                size_bytes=record.data_set_offset + record.data_set_size,
                sop_instance_uid=record.header.sop_instance_uid,
            )


def _write_records(
    archive: Archive, policy: DuplicatePolicy | None, records: Sequence[InstanceRecord]
) -> list[Finding | None]:
    if policy is None:
        rewritten = archive.index.rewrite(records)
        # The rows of the others were replaced or removed meanwhile.
        return [Finding.REWRITTEN if r.location in rewritten else None for r in records]
    # Whoever placed them may not have made them durable, and a row must not point at what a power loss takes.
    gone = set(archive.storage.settle([record.location for record in records]))
    present = [record for record in records if record.location not in gone]
    results = archive.index.ingest_batch(present, policy)
    adopted = (IngestOutcome.STORED, IngestOutcome.REPLACED)
    found = {
        record.location: Finding.ADOPTED if result.outcome in adopted else Finding.SUPERFLUOUS
        for record, result in zip(present, results, strict=True)
    }
    return [found.get(record.location) for record in records]
