"""Store one received SOP Instance: bytes first, index second, and an undo for each step.

The whole durable act is ``store``. A crash between its steps leaves either a spool file, which the next
start-up sweeps, or a stored file that no row points at, which ``pacs check`` reports and adopts. It never
leaves a row without bytes: those of a large instance are synced before its row is written, those of a small
one are written with its row (``pacs.archive.redo``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pacs.archive.archive import Archive
from pacs.archive.irregularities import (
    in_its_syntax,
    notes_of,
    require_regular_uids,
    syntax_of,
)
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.part10 import check_identity, read_header
from pacs.errors import DuplicateInstance, IndexUnavailable, PacsError
from pacs.index.records import IngestOutcome, InstanceRecord
from pacs.storage.base import Spooled
from pacs.storage.faults import storage_faults

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """What became of an instance that was accepted."""

    outcome: IngestOutcome
    header: InstanceHeader
    size_bytes: int
    #: What is irregular about it (``pacs.archive.irregularities``).
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an instance came from and what it was announced as."""

    source_ae: str
    transfer_syntax_uid: str
    #: Affected SOP Class and Instance UID of the C-STORE command; None when there was no command.
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None


def store(archive: Archive, spooled: Spooled, origin: Origin) -> StoreOutcome:
    """Make a spooled instance durable and findable; the spooled file is gone afterwards, whatever happens.

    Raises:
        InvalidInstance: the data set cannot be read, lacks a UID, or has one that is none.
        InstanceMismatch: the data set is not the instance that was announced.
        DuplicateInstance: a different one is stored and the policy is to refuse.
        StorageFull, StorageUnavailable, IndexUnavailable: nothing was stored.
    """
    try:
        header = _read(archive, spooled, origin)
        if header.transfer_syntax_uid != origin.transfer_syntax_uid:
            spooled = in_its_syntax(archive.storage.spool, spooled, header, origin.source_ae)
        content = spooled.content if archive.redo.has_room else None
        put = archive.storage.put if content is None else archive.storage.place
        location = put(spooled)
    except BaseException:
        # Whatever it was: nothing of an instance that was not accepted may stay.
        archive.storage.spool.discard(spooled)
        raise
    record = InstanceRecord(
        header=header,
        location=location,
        data_set_offset=spooled.data_set_offset,
        data_set_size=spooled.data_set_size,
        digest=spooled.digest,
        received_at=datetime.now(UTC),
        source_ae=origin.source_ae,
        content=content,
    )
    outcome = _index(archive, record)
    notes = notes_of(header, origin.transfer_syntax_uid)
    for note in notes:
        if archive.said.is_new(origin.source_ae, note):
            LOGGER.warning("from %s: %s; this is said once", origin.source_ae, note)
    return replace(outcome, notes=notes) if notes else outcome


def _read(archive: Archive, spooled: Spooled, origin: Origin) -> InstanceHeader:
    # A data set in another transfer syntax than was said could be stored as it is, and never sent to anybody.
    syntax = syntax_of(spooled, origin.transfer_syntax_uid)
    with storage_faults("read the spool"), spooled.open() as stream:
        header = read_header(stream, syntax, spooled.data_set_offset)
    if archive.strict_uids:
        require_regular_uids(header)
    if origin.sop_instance_uid is not None and origin.sop_class_uid is not None:
        check_identity(header, origin.sop_class_uid, origin.sop_instance_uid)
    return header


def _index(archive: Archive, record: InstanceRecord) -> StoreOutcome:
    try:
        result = archive.index.ingest(record, archive.duplicates)
    except IndexUnavailable as error:
        if error.may_have_committed:
            # The row may be there: removing the bytes could leave it pointing at nothing.
            LOGGER.error("%s may be an orphan; 'pacs check' will tell", record.location)
            _settle_later(archive, record)
        else:
            _remove(archive, record.location)
        raise
    except PacsError:
        _remove(archive, record.location)
        raise
    for note in result.notes:
        LOGGER.warning("%s", note)
    if result.superseded_location is not None:
        _remove(archive, result.superseded_location)
    if result.outcome in (IngestOutcome.IDENTICAL, IngestOutcome.KEPT, IngestOutcome.REFUSED):
        _remove(archive, record.location)
    if result.outcome is IngestOutcome.REFUSED:
        raise DuplicateInstance
    if result.outcome in (IngestOutcome.STORED, IngestOutcome.REPLACED):
        _settle_later(archive, record)
    return StoreOutcome(result.outcome, record.header, record.data_set_size)


def _settle_later(archive: Archive, record: InstanceRecord) -> None:
    if record.content is not None:
        archive.redo.settle_later(record.location, len(record.content))


def _remove(archive: Archive, location: str) -> None:
    """Remove bytes that no row points at; failing to is not the sender's concern."""
    try:
        archive.storage.remove(location)
    except PacsError as error:
        LOGGER.error("cannot remove %s, which nothing points at: %s", location, error)
