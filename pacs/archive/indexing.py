"""Write the row of a received instance, and see to the files that it makes superfluous or shows to be bad.

What was stored before stays only if it is really there: before the bytes received are thrown away, the stored file
is read and compared with its row. One that is lost or damaged is replaced.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from pacs.archive.archive import Archive
from pacs.archive.condition import NO_GOOD, Condition, condition_of
from pacs.errors import IndexUnavailable, PacsError
from pacs.model.instances import (
    STAYS,
    DuplicatePolicy,
    IngestOutcome,
    IngestResult,
    InstanceRecord,
)

LOGGER = logging.getLogger(__name__)

#: The row of an instance may change between two looks at it.
_LOOKS = 5


def index_record(archive: Archive, record: InstanceRecord, policy: DuplicatePolicy) -> IngestResult:
    """Write the row; that of an instance that is stored already only if its file is no good.

    The bytes that are superfluous then are removed: of the instance received, or of the one that it replaces.

    Raises:
        IndexUnavailable: nothing was stored, unless it says ``may_have_committed``; the file received is still there.
        PacsError: likewise.
    """
    result = archive.index.ingest(record, policy)
    return conclude(archive, record, policy, result)


def conclude(
    archive: Archive, record: InstanceRecord, policy: DuplicatePolicy, result: IngestResult
) -> IngestResult:
    """Do what is left to do when ``result`` came of a record: as ``index_record``."""
    for _ in range(_LOOKS):
        if result.outcome not in STAYS:
            break
        bad = _no_good(archive, record, _is_worse(archive, record, result.outcome))
        if bad is None:
            break
        record = replace(record, in_place_of=bad)
        result = archive.index.ingest(record, policy)
    else:
        raise IndexUnavailable("The instance is changed too fast by other writers.")
    if result.superseded_location is not None:
        if result.superseded_location == record.in_place_of:
            _set_aside(archive, result.superseded_location)
        else:
            remove_unindexed(archive, result.superseded_location)
    if record.header.lacking and result.outcome is IngestOutcome.STORED:
        LOGGER.warning("%s is stored, but %s", record.location, record.header.lacking)
    for note in result.notes:
        LOGGER.warning("%s", note)
    if result.outcome in STAYS:
        remove_unindexed(archive, record.location)
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


def _set_aside(archive: Archive, location: str) -> None:
    """Move a bad file into quarantine, if there is one."""
    try:
        if archive.storage.size(location) is not None:
            archive.storage.set_aside(location)
    except PacsError as error:
        LOGGER.error("cannot set %s aside, which nothing points at: %s", location, error)


def remove_unindexed(archive: Archive, location: str) -> None:
    """Remove bytes that no row points at; failing to is not the sender's concern."""
    try:
        archive.storage.remove(location)
    except PacsError as error:
        LOGGER.error("cannot remove %s, which nothing points at: %s", location, error)
