"""Compare index and storage, and mend what a crash, a full disk or a lost file left behind.

What can be found, and what a repair does:

* a row whose file is missing: the bytes are lost; the row is removed so that no query promises them;
* a file no row points at, an orphan, as a crash between storing and indexing leaves it: it is indexed. If its
  instance is indexed already, the indexed file stays, provided its bytes are verified to be good: an identical
  orphan is removed, a different one is moved into quarantine. If the indexed file is lost or damaged, the
  orphan takes its place. An orphan that cannot be read goes into quarantine;
* a file whose size, or SHA-256 when looking deeply, is not that of its row: reported, never touched.

The server may run meanwhile. A file that is not indexed yet may be on its way to being so and is left alone
until it is older than the grace period; and whatever looks missing is looked at again before it is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from pacs.archive.archive import Archive
from pacs.archive.condition import Condition, condition_of
from pacs.archive.mounted import require_files, require_own_storage
from pacs.archive.stored_files import Entry, digest_of, entries, read_record, size_at
from pacs.errors import InvalidInstance, StorageUnavailable
from pacs.index.records import (
    DuplicatePolicy,
    IngestOutcome,
    InstanceLocation,
    InstanceRecord,
)
from pacs.storage.base import StoredFile
from pacs.storage.quarantine import quarantine

DEFAULT_GRACE = timedelta(minutes=10)


class Finding(Enum):
    """What is the case at one location."""

    SOUND = "sound"
    #: Stored within the grace period and not indexed yet.
    IN_FLIGHT = "in flight"
    MISSING = "missing"
    ORPHAN = "orphan"
    DAMAGED = "damaged"


class Repair(Enum):
    """What was done about it."""

    ROW_REMOVED = "removed from the index"
    ADOPTED = "indexed"
    DUPLICATE_REMOVED = "removed: the same bytes are indexed"
    QUARANTINED = "moved into quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One location after the check."""

    finding: Finding
    location: str
    size_bytes: int = 0
    #: Empty for an orphan that was not read.
    sop_instance_uid: str = ""
    detail: str = ""
    repair: Repair | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to check."""

    repair: bool = False
    #: Read every data set and compare its SHA-256.
    deep: bool = False
    #: Younger files that are not indexed are left alone.
    grace: timedelta = DEFAULT_GRACE


def check(archive: Archive, options: Options) -> Iterator[Checked]:
    """Check every location in the order of receipt, and repair it if asked to, before it is yielded.

    What a power loss took and the index kept is written again first, also without being asked to repair.

    Raises:
        IndexUnavailable: the index cannot be read or written.
        StorageUnavailable: the storage cannot be listed or written, is not that of the index, or a repair would
            empty the index because the storage holds nothing at all.
    """
    require_own_storage(archive.storage, archive.index)
    if options.repair:
        require_files(archive.storage, archive.index)
    # What a power loss took and the index kept is neither missing nor damaged.
    archive.redo.recover()
    for entry in entries(archive):
        checked = _check(archive, entry, options)
        if checked is not None:
            yield checked


def _check(archive: Archive, entry: Entry, options: Options) -> Checked | None:
    if entry.row is None:
        assert entry.file is not None
        return _check_orphan(archive, entry.file, options)
    if entry.file is None:
        return _check_row(archive, entry.row, options)
    return _compare(archive, entry.row, entry.file.size_bytes, options)


def _check_row(archive: Archive, row: InstanceLocation, options: Options) -> Checked | None:
    try:
        size = size_at(archive.storage, row.location)
    except StorageUnavailable as error:
        return _about(row, Finding.DAMAGED, str(error))
    if size is not None:
        # Stored after its directory was listed.
        return _compare(archive, row, size, options)
    current = archive.index.find_by_uid(row.sop_instance_uid)
    if current is None or current.location != row.location:
        # Replaced or removed since the row was read: its bytes went after it did. Bytes come before their row
        # and go after it, so a row read *after* they were found missing is proof.
        return None
    repair = None
    if options.repair:
        archive.index.remove(row.sop_instance_uid, location=row.location)
        repair = Repair.ROW_REMOVED
    return _about(row, Finding.MISSING, "the file is missing", repair=repair)


def _compare(
    archive: Archive, row: InstanceLocation, size_bytes: int, options: Options
) -> Checked | None:
    if size_bytes != row.size:
        detail = f"has {size_bytes} bytes, should have {row.size}"
        return _about(row, Finding.DAMAGED, detail, size_bytes)
    if options.deep:
        try:
            with archive.storage.open(row.location) as stream:
                digest = digest_of(stream, row.data_set_offset)
        except StorageUnavailable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return _check_row(archive, row, options)
            return _about(row, Finding.DAMAGED, str(error), size_bytes)
        if digest != row.digest:
            return _about(
                row, Finding.DAMAGED, "the SHA-256 is not the one it was stored with", size_bytes
            )
    return _about(row, Finding.SOUND, size_bytes=size_bytes)


def _about(
    row: InstanceLocation,
    finding: Finding,
    detail: str = "",
    size_bytes: int = 0,
    repair: Repair | None = None,
) -> Checked:
    return Checked(
        finding=finding,
        location=row.location,
        size_bytes=size_bytes,
        sop_instance_uid=row.sop_instance_uid,
        detail=detail,
        repair=repair,
    )


def _check_orphan(archive: Archive, file: StoredFile, options: Options) -> Checked | None:
    if file.stored_at > datetime.now(UTC) - options.grace:
        # A row may have come since the page of rows was read; then this is the usual case.
        is_sound = archive.index.is_location_indexed(file.location)
        finding = Finding.SOUND if is_sound else Finding.IN_FLIGHT
        return Checked(finding=finding, location=file.location, size_bytes=file.size_bytes)
    if archive.index.is_location_indexed(file.location):
        return Checked(finding=Finding.SOUND, location=file.location, size_bytes=file.size_bytes)
    if size_at(archive.storage, file.location) is None:
        # What it was replaced by is indexed; whoever did that has removed it by now.
        return None
    uid, detail, repair = "", "no row points at it", None
    if options.repair:
        uid, detail, repair = _settle(archive, file)
    return Checked(
        finding=Finding.ORPHAN,
        location=file.location,
        size_bytes=file.size_bytes,
        sop_instance_uid=uid,
        detail=detail,
        repair=repair,
    )


def _settle(archive: Archive, file: StoredFile) -> tuple[str, str, Repair | None]:
    # SOP Instance UID, detail, what was done.
    try:
        record = read_record(archive.storage, file)
    except InvalidInstance as error:
        quarantine(archive.storage, file.location)
        return "", error.message, Repair.QUARANTINED
    except StorageUnavailable as error:
        return "", error.message, None
    uid = record.header.sop_instance_uid
    if archive.storage.settle([file.location]):
        return uid, "the file is gone", None
    outcome = _adopt(archive, record)
    if outcome is IngestOutcome.STORED:
        return uid, "no row pointed at it", Repair.ADOPTED
    indexed = archive.index.find_by_uid(uid)
    if (
        indexed is not None
        and condition_of(archive.storage, indexed) is not Condition.SOUND
        and not archive.redo.restore(indexed.location)
    ):
        outcome = _adopt(archive, replace(record, in_place_of=indexed.location))
    match outcome:
        case IngestOutcome.STORED | IngestOutcome.REPLACED:
            return uid, "the indexed file of this instance is lost or damaged", Repair.ADOPTED
        case IngestOutcome.IDENTICAL:
            archive.storage.remove(file.location)
            return uid, "the same instance is indexed elsewhere", Repair.DUPLICATE_REMOVED
        case _:
            quarantine(archive.storage, file.location)
            return uid, "a different instance with this UID is indexed", Repair.QUARANTINED


def _adopt(archive: Archive, record: InstanceRecord) -> IngestOutcome:
    return archive.index.ingest(record, DuplicatePolicy.KEEP).outcome
