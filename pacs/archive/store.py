"""Store one received SOP Instance: bytes first, index second, and an undo for each step.

The whole durable act is ``store``. A crash between its steps leaves either a spool file, which the next
start-up sweeps, or a stored file that no row points at, which ``pacs check`` reports and adopts. It never
leaves a row without bytes: those of a large instance are synced before its row is written, those of a small
one are written with its row (``pacs.archive.redo``).

What was stored before stays only if it is really there: before the bytes received are thrown away, the stored file
is read and compared with its row. One that is lost or damaged is replaced, in the same three steps.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

from pacs.archive.archive import Archive
from pacs.archive.condition import NO_GOOD, Condition, condition_of
from pacs.archive.irregularities import (
    notes_of,
    require_regular_uids,
    syntax_of,
    under_its_own_names,
)
from pacs.archive.stored_files import size_at
from pacs.dicom.encoding.part10 import check_identity, read_header
from pacs.dicom.instance import InstanceHeader
from pacs.errors import DuplicateInstance, IndexUnavailable, PacsError
from pacs.model.instances import (
    DuplicatePolicy,
    IngestOutcome,
    IngestResult,
    InstanceRecord,
    Origin,
    StoreOutcome,
)
from pacs.storage.base import Spooled
from pacs.storage.faults import storage_faults
from pacs.storage.quarantine import quarantine

LOGGER = logging.getLogger(__name__)

#: What was stored before stays, and the file received is superfluous.
_STAYS = frozenset({IngestOutcome.IDENTICAL, IngestOutcome.KEPT, IngestOutcome.REFUSED})
#: The row of an instance may change between two looks at it.
_LOOKS = 5


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


def _index(archive: Archive, record: InstanceRecord) -> StoreOutcome:
    try:
        result = _ingest(archive, record)
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
    if record.header.lacking and result.outcome is IngestOutcome.STORED:
        LOGGER.warning("%s is stored, but %s", record.location, record.header.lacking)
    for note in result.notes:
        LOGGER.warning("%s", note)
    if result.outcome in _STAYS:
        _remove(archive, record.location)
    if result.outcome is IngestOutcome.REFUSED:
        raise DuplicateInstance
    if result.outcome not in _STAYS:
        _settle_later(archive, record)
    return StoreOutcome(result.outcome, record.header, record.data_set_size)


def _ingest(archive: Archive, record: InstanceRecord) -> IngestResult:
    """Write the row; that of an instance that is stored already only if its file is no good."""
    for _ in range(_LOOKS):
        result = archive.index.ingest(record, archive.duplicates)
        if result.outcome not in _STAYS:
            break
        bad = _no_good(archive, record, _is_worse(archive, record, result.outcome))
        if bad is None:
            break
        record = replace(record, in_place_of=bad)
    else:
        raise IndexUnavailable("The instance is changed too fast by other writers.")
    if result.superseded_location is None:
        return result
    if result.superseded_location == record.in_place_of:
        _set_aside(archive, result.superseded_location)
    else:
        _remove(archive, result.superseded_location)
    return result


def _is_worse(
    archive: Archive, record: InstanceRecord, outcome: IngestOutcome
) -> frozenset[Condition]:
    """What has to give way to an instance received."""
    is_latest_wanted = archive.duplicates is DuplicatePolicy.REPLACE
    if outcome is not IngestOutcome.IDENTICAL and (is_latest_wanted or not record.header.lacking):
        return NO_GOOD | {Condition.LACKING}
    return NO_GOOD


def _no_good(archive: Archive, record: InstanceRecord, worse: frozenset[Condition]) -> str | None:
    """Where the stored file of an instance should be, if it is worse; empty if the instance is gone meanwhile."""
    suspect, sop_instance_uid = None, record.header.sop_instance_uid
    for _ in range(_LOOKS):
        stored = archive.index.find_by_uid(sop_instance_uid)
        if stored is None:
            return ""
        condition = condition_of(archive.storage, stored)
        if condition not in worse:
            return None
        if stored.location == suspect:
            LOGGER.warning(
                "the stored file of %s is %s: what was received takes its place",
                sop_instance_uid,
                condition.value,
            )
            return suspect
        # Bytes that the index has are as good as a file, if they are all there. Without them look twice: another
        # writer may have replaced the instance, or written its file again, since its row was read.
        is_whole = condition in (Condition.LOST, Condition.DAMAGED)
        if not (is_whole and archive.redo.restore(stored.location)):
            suspect = stored.location
    return ""


def _settle_later(archive: Archive, record: InstanceRecord) -> None:
    if record.content is not None:
        archive.redo.settle_later(record.location, len(record.content))


def _set_aside(archive: Archive, location: str) -> None:
    """Move a bad file into quarantine, if there is one."""
    try:
        if size_at(archive.storage, location) is not None:
            quarantine(archive.storage, location)
    except PacsError as error:
        LOGGER.error("cannot set %s aside, which nothing points at: %s", location, error)


def _remove(archive: Archive, location: str) -> None:
    """Remove bytes that no row points at; failing to is not the sender's concern."""
    try:
        archive.storage.remove(location)
    except PacsError as error:
        LOGGER.error("cannot remove %s, which nothing points at: %s", location, error)
