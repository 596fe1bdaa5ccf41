"""Take to its places what is in the logs of processes that have ended (``pacs.archive.instance_log``).

Each entry was acknowledged. What the index has of a log already is not indexed again, because it may have been replaced
or removed since; only its file is written again if a row still points there and the file may not have been on the
disk. So this may be cut off anywhere and begun again. A log has one process at a time that works on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from pacs.archive.archive import Archive
from pacs.archive.indexing import conclude
from pacs.archive.instance_log import POLICY, read_payload
from pacs.archive.mounted import require_own_storage
from pacs.archive.stored_files import read_record
from pacs.errors import IndexUnavailable, InvalidInstance, PacsError, StorageUnavailable
from pacs.index.log_positions import FromLog, LogPosition
from pacs.model.instances import InstanceRecord
from pacs.storage.faults import storage_faults
from pacs.storage.process_directory import ProcessDirectory
from pacs.storage.segments import LogEntry, read_segments

LOGGER = logging.getLogger(__name__)

#: Instances in one transaction.
_BATCH = 200

#: The record of an instance that is to be indexed, if there is one, and how far the log is with it.
_Step = tuple[InstanceRecord | None, int]


def recover(archive: Archive) -> None:
    """Bring to its places what ended processes had acknowledged; any number of processes may do so at any time.

    Raises:
        StorageUnavailable: the storage is not that of the index, or holds nothing at all.
        PacsError: storage or index fail; what is left is done by the next call.
    """
    archive.redo.recover()
    replay_abandoned(archive)


def replay_abandoned(archive: Archive) -> int:
    """Replay the logs of processes that have ended; return how many instances were not in the index.

    Raises:
        PacsError: as for ``recover``.
    """
    root, count = archive.storage.log_directory, 0
    for directory in _abandoned(root):
        try:
            require_own_storage(archive.storage, archive.index)
            count += _replay(archive, directory.path)
            with storage_faults("remove a log"):
                directory.remove()
        finally:
            directory.release()
        archive.index.log_positions.remove(directory.path.name)
    if count:
        LOGGER.warning("instances of an ended process indexed from its log: %d", count)
    return count


def _abandoned(root: Path) -> Iterator[ProcessDirectory]:
    with storage_faults("look for logs"):
        yield from ProcessDirectory.claim_abandoned(root)


def _replay(archive: Archive, directory: Path) -> int:
    reached = archive.index.log_positions.read(directory.name)
    count, batch = 0, list[InstanceRecord]()
    sequence = reached.position
    for record, sequence in _steps(archive, directory, reached):
        if record is not None:
            batch.append(record)
            count += 1
        if len(batch) == _BATCH:
            _index(archive, batch, LogPosition(reached.log, sequence, reached.settled))
            batch = []
    if batch:
        _index(archive, batch, LogPosition(reached.log, sequence, reached.settled))
    return count


def _steps(archive: Archive, directory: Path, reached: LogPosition) -> Iterator[_Step]:
    for entry in read_segments(directory):
        if entry.sequence > reached.position:
            yield _record(archive, entry), entry.sequence
        elif entry.sequence > reached.settled:
            location, content = _location(entry)
            if content is not None and archive.index.is_location_indexed(location):
                archive.storage.restore(location, content)


def _location(entry: LogEntry) -> tuple[str, bytes | None]:
    try:
        return read_payload(entry.payload)
    except ValueError as error:
        # Its checksum is right, so another release wrote it: nothing may be thrown away.
        raise StorageUnavailable(f"This release cannot read the log: {error}") from error


def _record(archive: Archive, entry: LogEntry) -> InstanceRecord | None:
    location, content = _location(entry)
    if content is not None:
        archive.storage.restore(location, content)
    file = archive.storage.stored_file(location)
    if file is None:
        LOGGER.error("%s was acknowledged and its file is gone", location)
        return None
    try:
        return read_record(archive.storage, file)
    except InvalidInstance as error:
        LOGGER.error("%s was acknowledged and cannot be indexed: %s", location, error.message)
        return None


def _index(archive: Archive, batch: Sequence[InstanceRecord], reached: LogPosition | None) -> None:
    try:
        source = FromLog(reached, archive.storage.new_location())
        results = archive.index.ingest_batch(batch, POLICY, source)
    except IndexUnavailable:
        raise
    except PacsError as error:
        if len(batch) > 1:
            # One of them cannot be indexed: the log is as far as this only with the last one.
            for record in batch:
                _index(archive, [record], reached if record is batch[-1] else None)
            return
        LOGGER.error("%s cannot be indexed: %s", batch[0].location, error.message)
        return
    for record, result in zip(batch, results, strict=True):
        conclude(archive, record, POLICY, result)
