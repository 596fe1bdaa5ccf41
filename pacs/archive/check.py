"""Compare index and storage, and mend what a crash, a full disk or a lost file left behind.

What can be found, and what a repair does:

* a row whose file is missing: the bytes are lost; the row is removed so that no query promises them. That is done at
  the end, once the volume has been seen to be there, and only if not many are missing: many are more likely
  a volume that went away than files that did;
* a file no row points at, an orphan, as a crash between storing and indexing leaves it: it is indexed. If its
  instance is indexed already, the indexed file stays, provided its bytes are verified to be good: an identical
  orphan is removed, a different one is moved into quarantine. If the indexed file is lost or damaged, the
  orphan takes its place. An orphan that cannot be read goes into quarantine;
* a file whose size, or SHA-256 when looking deeply, is not that of its row, or that was cut off before it was
  received: reported, never touched.

The server may run meanwhile. A file that is not indexed yet may be on its way to being so and is left alone
until it is older than the grace period; and whatever looks missing is looked at again before it is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from pacs.archive.archive import Archive
from pacs.archive.condition import NO_GOOD, condition_of, missing_end
from pacs.archive.log_replay import recover
from pacs.archive.mounted import require_files, require_own_storage
from pacs.archive.stored_files import Entry, digest_of, entries, read_record
from pacs.errors import IncompleteInstance, InvalidInstance, StorageUnavailable
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceLocation, InstanceRecord
from pacs.storage.base import StoredFile
from pacs.storage.faults import is_missing

DEFAULT_GRACE = timedelta(minutes=10)
#: More missing files than this, and than this share, are more likely a volume that is not there.
_FEW = 10
_PERCENT = 1
#: Rows removed in one transaction; others may write before the next one.
_REMOVED_AT_ONCE = 100
_TOO_MANY = "the file is missing; its row stays, for too many are missing"


class Finding(Enum):
    """What is the case at one location."""

    SOUND = "sound"
    #: Stored within the grace period and not indexed yet.
    IN_FLIGHT = "in flight"
    MISSING = "missing"
    ORPHAN = "orphan"
    DAMAGED = "damaged"
    #: Missing or damaged, but the index has the bytes and the next start, or a repair, writes them again.
    KEPT = "kept in the index"


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
    #: Remove the rows of missing files however many there are.
    remove_many: bool = False


def check(archive: Archive, options: Options) -> Iterator[Checked]:
    """Check every location in the order of receipt, and repair it if asked to, before it is yielded.

    Without a repair nothing is changed. With one, what a power loss took and the index kept is written again first; and
    what is missing is yielded last, when it has been removed, or has not because it is too much.

    Raises:
        IndexUnavailable: the index cannot be read or written.
        StorageUnavailable: the storage cannot be listed or written, is not that of the index, or a repair would
            empty the index because the storage holds nothing at all, or any more.
    """
    require_own_storage(archive.storage, archive.index)
    if options.repair:
        require_files(archive.storage, archive.index)
        recover(archive)
    missing = _Missing(archive, options)
    for entry in entries(archive):
        checked = _check(archive, entry, options)
        if checked is None:
            continue
        if checked.finding is Finding.MISSING and options.repair:
            yield from missing.add(checked)
        else:
            yield checked
    yield from missing.finish()


class _Missing:
    """The rows without a file that a repair has found: how many they are decides what is done."""

    def __init__(self, archive: Archive, options: Options) -> None:
        self._archive = archive
        self._is_any_number = options.remove_many
        self._most = most_removed(archive.index.stats().instances)
        self._waiting: list[Checked] = []

    def add(self, checked: Checked) -> Iterator[Checked]:
        """Note one; yield what is decided."""
        self._waiting.append(checked)
        if self._is_any_number:
            if len(self._waiting) == _REMOVED_AT_ONCE:
                yield from self.finish()
        elif len(self._waiting) > self._most + 1:
            # One more than may be removed is kept, as a mark.
            yield replace(self._waiting.pop(), detail=_TOO_MANY)

    def finish(self) -> Iterator[Checked]:
        """Remove those that wait, or leave them all."""
        waiting, self._waiting = self._waiting, []
        if not self._is_any_number and len(waiting) > self._most:
            yield from (replace(one, detail=_TOO_MANY) for one in waiting)
            return
        for first in range(0, len(waiting), _REMOVED_AT_ONCE):
            yield from _remove_rows(self._archive, waiting[first : first + _REMOVED_AT_ONCE])


def most_removed(instances: int) -> int:
    """So many rows of missing files a repair removes without being told that it may be more."""
    return max(_FEW, instances * _PERCENT // 100)


def _remove_rows(archive: Archive, missing: list[Checked]) -> Iterator[Checked]:
    """Remove rows whose files are missing, after another look at them and then at the volume."""
    still = [one for one in missing if archive.storage.size(one.location) is None]
    # In this order: if the volume is there now, it was there when the files were not.
    require_own_storage(archive.storage, archive.index)
    require_files(archive.storage, archive.index)
    archive.index.remove_all([(one.sop_instance_uid, one.location) for one in still])
    for one in still:
        yield replace(one, repair=Repair.ROW_REMOVED)


def _check(archive: Archive, entry: Entry, options: Options) -> Checked | None:
    if entry.row is None:
        assert entry.file is not None
        return _check_orphan(archive, entry.file, options)
    if entry.file is None:
        checked = _check_row(archive, entry.row, options)
    else:
        checked = _compare(archive, entry.row, entry.file.size_bytes, options)
    if (
        checked is not None
        and checked.finding in (Finding.MISSING, Finding.DAMAGED)
        and archive.index.redo.read([checked.location])
    ):
        return replace(checked, finding=Finding.KEPT)
    return checked


def _check_row(archive: Archive, row: InstanceLocation, options: Options) -> Checked | None:
    try:
        size = archive.storage.size(row.location)
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
    return _about(row, Finding.MISSING, "the file is missing")


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
                if digest == row.digest:
                    # What changed on the disk may look cut off as well.
                    missing_end(stream, row)
        except IncompleteInstance as error:
            return _about(row, Finding.DAMAGED, error.message, size_bytes)
        except StorageUnavailable as error:
            if is_missing(error):
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
) -> Checked:
    return Checked(
        finding=finding,
        location=row.location,
        size_bytes=size_bytes,
        sop_instance_uid=row.sop_instance_uid,
        detail=detail,
    )


def _check_orphan(archive: Archive, file: StoredFile, options: Options) -> Checked | None:
    if file.stored_at > datetime.now(UTC) - options.grace:
        # A row may have come since the page of rows was read; then this is the usual case.
        is_sound = archive.index.is_location_indexed(file.location)
        finding = Finding.SOUND if is_sound else Finding.IN_FLIGHT
        return Checked(finding=finding, location=file.location, size_bytes=file.size_bytes)
    if archive.index.is_location_indexed(file.location):
        return Checked(finding=Finding.SOUND, location=file.location, size_bytes=file.size_bytes)
    if archive.storage.size(file.location) is None:
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
        archive.storage.set_aside(file.location)
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
        and condition_of(archive.storage, indexed) in NO_GOOD
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
            archive.storage.set_aside(file.location)
            return uid, "a different instance with this UID is indexed", Repair.QUARANTINED


def _adopt(archive: Archive, record: InstanceRecord) -> IngestOutcome:
    return archive.index.ingest(record, DuplicatePolicy.KEEP).outcome
