"""Store one received SOP Instance: bytes first, index second, and an undo for each step.

The whole durable act is ``store``. There are two ways. With a log (``pacs.archive.instance_log``) the instance is
written there, and the index follows. Without one, and where the answer to the sender depends on what is stored
already, the row is written before the answer. A crash between the steps of that leaves either a spool file,
which the next start-up sweeps, or a stored file that no row points at, which ``pacs check`` reports and adopts.
It never leaves a row without bytes: those of a large instance are synced before its row is written, those of a
small one are written with its row (``pacs.archive.redo``).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from pacs.archive.archive import Archive
from pacs.archive.indexing import index_record, remove_unindexed
from pacs.archive.instance_log import InstanceLog
from pacs.archive.irregularities import (
    notes_of,
    require_regular_uids,
    syntax_of,
    under_its_own_names,
)
from pacs.dicom.encoding.part10 import check_identity, read_header
from pacs.dicom.instance import InstanceHeader
from pacs.errors import DuplicateInstance, IndexUnavailable, PacsError
from pacs.model.instances import (
    STAYS,
    DuplicatePolicy,
    IngestOutcome,
    InstanceRecord,
    Origin,
    StoreOutcome,
)
from pacs.storage.base import Spooled
from pacs.storage.faults import storage_faults

LOGGER = logging.getLogger(__name__)


def store(archive: Archive, spooled: Spooled, origin: Origin) -> StoreOutcome:
    """Make a spooled instance durable and findable; the spooled file is gone afterwards, whatever happens.

    Raises:
        IncompleteInstance: the data set was cut off.
        InvalidInstance: the data set cannot be read, lacks a UID, or has one that is none.
        InstanceMismatch: the data set is not the instance that was announced.
        DuplicateInstance: a different one is stored and the policy is to refuse.
        StorageFull, StorageUnavailable, IndexUnavailable: nothing was stored.
    """
    try:
        header = _read(archive, spooled, origin)
        if not _is_as_announced(header, origin):
            spooled = under_its_own_names(archive.storage.spool, spooled, header, origin.source_ae)
        log = _log_for(archive, header)
        has_room = (log or archive.redo).has_room
        content = spooled.content if has_room else None
        if content is None:
            location = archive.storage.put(spooled)
        elif log is None:
            location = archive.storage.place(spooled)
        else:
            location = archive.storage.new_location()
            archive.storage.spool.discard(spooled)
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
        content=content if log is None else None,
    )
    outcome = _index(archive, record) if log is None else _log(archive, log, record, content)
    archive.whole.add(record.digest, header.transfer_syntax_uid)
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
    if origin.is_announced:
        check_identity(header, origin.sop_class_uid, origin.sop_instance_uid)
    return header


def _is_as_announced(header: InstanceHeader, origin: Origin) -> bool:
    # A longer UID than the Standard allows is announced cut.
    return header.transfer_syntax_uid == origin.transfer_syntax_uid and origin.sop_instance_uid in (
        "",
        header.sop_instance_uid,
    )


def _log_for(archive: Archive, header: InstanceHeader) -> InstanceLog | None:
    """The log, if this instance may be acknowledged before the index knows of it.

    What is cut off does not take the place of what is whole, and other policies than to replace ask what is stored
    already: then the answer to the sender depends on the index.
    """
    log = archive.log
    if log is None:
        return None
    if archive.duplicates is DuplicatePolicy.REPLACE and not header.lacking:
        return log
    # What was acknowledged before this instance is what it meets.
    log.wait_until_indexed()
    return None


def _log(
    archive: Archive, log: InstanceLog, record: InstanceRecord, content: bytes | None
) -> StoreOutcome:
    try:
        log.append(record, content)
    except PacsError:
        if content is None:
            remove_unindexed(archive, record.location)
        raise
    return StoreOutcome(IngestOutcome.ACCEPTED, record.header, record.data_set_size)


def _index(archive: Archive, record: InstanceRecord) -> StoreOutcome:
    try:
        result = index_record(archive, record, archive.duplicates)
    except IndexUnavailable as error:
        if error.may_have_committed:
            # The row may be there: removing the bytes could leave it pointing at nothing.
            LOGGER.error("%s may be an orphan; 'pacs check' will tell", record.location)
            _settle_later(archive, record)
        else:
            remove_unindexed(archive, record.location)
        raise
    except PacsError:
        remove_unindexed(archive, record.location)
        raise
    if result.outcome is IngestOutcome.REFUSED:
        raise DuplicateInstance
    if result.outcome not in STAYS:
        _settle_later(archive, record)
    return StoreOutcome(result.outcome, record.header, record.data_set_size)


def _settle_later(archive: Archive, record: InstanceRecord) -> None:
    if record.content is not None:
        archive.redo.settle_later(record.location, len(record.content))
