"""Acknowledge an instance when it is in a log on the disk; the index follows a moment later, many at a time.

Theory of operation. What makes an instance durable is one write and one flush: its location, and for a small one its
bytes, go to the log of this process (``pacs.storage.segments``), together with those of other associations. A large
one is a durable file of its own before that. A thread takes what is in the log to its places: first the small files,
without waiting for the disk, then their rows, all of a batch in one transaction. That transaction also writes how far
the log is in the index. A second thread makes the files durable, hundreds at a time, and lets the segments go that
held their bytes (``pacs.archive.settler``). Of two instances of one UID the later one stays, whichever is
indexed first, so what another process commits in between does no harm. Which is the later one, their locations tell.

Whoever reads the index in this process waits until all is in it that was acknowledged before
(``Index.before_reads``). Other processes see an instance a moment after its acknowledgement. What was in the log of a
process that was killed goes to its places when another one starts, or notices (``pacs.archive.log_replay``).

When the index or the storage cannot be written, what is in the log stays there and is tried again. Until it has
succeeded, nothing more is accepted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path

from pacs.archive.settler import Settler
from pacs.errors import IndexUnavailable, PacsError, StorageUnavailable
from pacs.index.index import Index
from pacs.index.log_positions import FromLog, LogPosition
from pacs.model.instances import (
    STAYS,
    DuplicatePolicy,
    IngestOutcome,
    IngestResult,
    InstanceRecord,
)
from pacs.storage.durability import make_directories
from pacs.storage.faults import storage_faults
from pacs.storage.process_directory import ProcessDirectory
from pacs.storage.segments import SegmentWriter
from pacs.storage.storage import Storage

LOGGER = logging.getLogger(__name__)

#: Later of two instances stays: rows may be written in another order than the instances came.
POLICY = DuplicatePolicy.LATEST
#: Instances come together for so long before they are indexed, unless somebody waits for them.
_GATHER_SECONDS = 0.03
#: Instances in one transaction.
_BATCH = 500
#: Instances that are not in the index yet, and how old the first may be; beyond, new ones wait.
_MOST_PENDING = 5_000
_OLDEST_SECONDS = 5.0
#: Of small instances that are not at their places yet.
_MOST_BYTES = 64 * 1024 * 1024
#: How long one waits then before it is refused; as long as for the lock of the index.
_PATIENCE_SECONDS = 20.0
#: How long a reader waits for what was acknowledged before.
_READER_SECONDS = 5.0
#: After a failure, if nobody asks again.
_PAUSE_SECONDS = 1.0

#: What is done about the files when the result of a row is known; it returns what came of that.
Conclude = Callable[[InstanceRecord, IngestResult], IngestResult]


class _Entry:
    """One instance on its way into the log and from there to its places."""

    __slots__ = ("at", "content", "error", "is_placed", "is_written", "record", "sequence")

    def __init__(self, record: InstanceRecord, content: bytes | None) -> None:
        self.content = content
        self.record = record
        self.sequence = 0
        self.at = 0.0
        self.error: PacsError | None = None
        self.is_written = False
        self.is_placed = False

    @property
    def size(self) -> int:
        """The bytes that are kept in memory."""
        return 0 if self.content is None else len(self.content)


class InstanceLog:
    """The log of one process; safe to share between threads. Starts threads and makes files when it is used first."""

    def __init__(self, storage: Storage, index: Index, root: Path, conclude: Conclude) -> None:
        """Log under ``root`` what goes to ``storage`` and ``index``.

        Args:
            storage: Where the files belong.
            index: Where the rows belong.
            root: Where the logs of all processes are.
            conclude: What is done when the result of a row is known (``indexing.conclude``).
        """
        self._storage = storage
        self._index = index
        self._root = root
        self._conclude = conclude
        self._directory: ProcessDirectory | None = None
        self._segments: SegmentWriter | None = None
        self._copies = _Copies(storage, index, self._release)
        self._settler = Settler(storage, self._copies, "log settler")
        #: Held by the thread that writes to the log.
        self._writing = threading.Lock()
        #: Guards what follows.
        self._changed = threading.Condition()
        self._unwritten: list[_Entry] = []
        self._pending: deque[_Entry] = deque()
        self._pending_bytes = 0
        self._appended = 0
        self._drained = 0
        #: Up to here somebody waits.
        self._wanted = 0
        self._failure: PacsError | None = None
        #: How often the index was tried.
        self._tries = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def has_room(self) -> bool:
        """Whether the bytes of another instance may wait in memory and in the log: not when the disk falls behind."""
        return self._pending_bytes < _MOST_BYTES and self._settler.has_room

    def append(self, record: InstanceRecord, content: bytes | None) -> None:
        """Write an instance to the log; return when it is on the disk.

        Args:
            record: What is to be indexed, without its content.
            content: The file that belongs at its location; None if that is there, durably.

        Raises:
            StorageFull, StorageUnavailable, IndexUnavailable: it is not accepted, and nothing of it is in the log.
        """
        if self._failure is not None or self._is_behind():
            self._wait_for_room()
        entry = _Entry(record, content)
        with self._changed:
            self._unwritten.append(entry)
        with self._writing:
            # The thread that wrote before may have written this one too.
            if not entry.is_written and entry.error is None:
                self._write()
        if entry.error is not None:
            raise entry.error

    def wait_until_indexed(self) -> None:
        """Return when all is in the index that was acknowledged until now, or when that cannot be had soon."""
        target = self._appended
        if self._drained >= target or threading.current_thread() is self._thread:
            return
        with self._changed:
            self._wanted = max(self._wanted, target)
            self._changed.notify_all()
            is_indexed = self._changed.wait_for(
                lambda: self._drained >= target or self._failure is not None, _READER_SECONDS
            )
        if not is_indexed:
            LOGGER.warning("instances acknowledged before are not in the index yet")

    def flush(self) -> None:
        """Return when everything acknowledged until now is in the index and its files are durable.

        Raises:
            PacsError: it cannot be had now; all of it is in the log.
        """
        self.wait_until_indexed()
        if self._failure is not None:
            raise copy(self._failure)
        self._settler.flush()

    def close(self) -> None:
        """Take everything to its places and remove the log; what cannot be done now, the next start does."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._settler.close()
        directory, segments = self._directory, self._segments
        self._thread, self._directory, self._segments = None, None, None
        self._stopping = False
        if directory is None or segments is None:
            return
        segments.close()
        if self._pending or self._copies.are_needed:
            LOGGER.error(
                "%s holds instances that are not at their places: the next start sees to it",
                directory.path,
            )
            directory.release()
            return
        try:
            directory.remove()
            self._index.log_positions.remove(directory.path.name)
        except (OSError, PacsError) as error:
            LOGGER.warning("the log %s could not be removed: %s", directory.path, error)

    # Appending

    def _is_behind(self) -> bool:
        if len(self._pending) >= _MOST_PENDING:
            return True
        try:
            return time.monotonic() - self._pending[0].at > _OLDEST_SECONDS
        except IndexError:
            return False

    def _wait_for_room(self) -> None:
        with self._changed:
            if self._failure is not None:
                # Somebody may have seen to it: try again at once, and say how that went.
                tries = self._tries
                self._wanted = self._appended
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._failure is None or self._tries > tries, _PATIENCE_SECONDS
                )
                if self._failure is not None:
                    raise copy(self._failure)
            if not self._changed.wait_for(lambda: not self._is_behind(), _PATIENCE_SECONDS):
                raise IndexUnavailable("The index falls behind.")

    def _write(self) -> None:
        """Write all that waits; only the thread that holds ``_writing``."""
        with self._changed:
            entries, self._unwritten = self._unwritten, []
        error: PacsError | None = StorageUnavailable("The log was interrupted.")
        try:
            segments = self._segments or self._open()
            segments.append(self._appended + 1, [_payload(entry) for entry in entries])
            self._hand_over(entries)
            error = None
        except PacsError as failure:
            error = failure
        finally:
            # Also when this thread is interrupted: nobody may take an entry for written that is not.
            for entry in entries:
                if error is None:
                    entry.is_written = True
                else:
                    entry.error = copy(error)

    def _open(self) -> SegmentWriter:
        # Or it would be made below an empty mount point, to be hidden by the volume.
        self._storage.spool.require_there()
        with storage_faults("make the log"):
            make_directories(self._root)
            self._directory = ProcessDirectory.make(self._root)
            self._segments = SegmentWriter(self._directory.path)
        return self._segments

    def _hand_over(self, entries: Sequence[_Entry]) -> None:
        now = time.monotonic()
        with self._changed:
            for entry in entries:
                self._appended += 1
                entry.sequence, entry.at = self._appended, now
                self._pending_bytes += entry.size
            was_idle = not self._pending
            self._pending.extend(entries)
            if self._thread is None:
                self._start()
            elif was_idle:
                self._changed.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="log drainer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread left; the next instance tries again
            LOGGER.error("instances in the log are not indexed yet: %s", error)
        else:
            self._thread = thread

    # Draining

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._stopping)
                if not self._pending:
                    return
                self._changed.wait_for(self._is_urgent, _GATHER_SECONDS)
                batch = [self._pending[i] for i in range(min(_BATCH, len(self._pending)))]
            failure: PacsError | None = None
            try:
                self._drain(batch)
            except PacsError as error:
                failure = error
            except Exception as error:
                # What nobody foresaw: nothing may be lost, and nobody may wait for ever.
                LOGGER.exception("what is in the log cannot be brought to its place")
                failure = IndexUnavailable(detail=str(error))
            self._tell(failure)
            with self._changed:
                self._tries += 1
                self._failure = failure
                if failure is None:
                    for _ in batch:
                        self._pending_bytes -= self._pending.popleft().size
                    self._drained = batch[-1].sequence
                self._changed.notify_all()
                if failure is not None:
                    if self._stopping:
                        return
                    self._wanted = self._drained
                    self._changed.wait_for(self._is_urgent, _PAUSE_SECONDS)

    def _tell(self, failure: PacsError | None) -> None:
        """Log it when the index or the storage begins to fail, and when that has ended."""
        if failure is not None and self._failure is None:
            LOGGER.error("%d instances stay in the log: %s", len(self._pending), failure.message)
        elif failure is None and self._failure is not None:
            LOGGER.warning("what was in the log is brought to its place again")

    def _is_urgent(self) -> bool:
        return self._stopping or self._wanted > self._drained

    def _drain(self, batch: Sequence[_Entry]) -> None:
        for entry in batch:
            if entry.content is not None and not entry.is_placed:
                self._storage.place_content(entry.record.location, entry.content)
                entry.is_placed = True
        for entry, result in zip(batch, self._index_batch(batch), strict=True):
            # Its file stays, whatever could not be indexed.
            stays = result is None or self._concluded(entry.record, result).outcome not in STAYS
            if entry.content is not None and stays:
                self._copies.keep(entry.record.location, entry.sequence, entry.content)
                self._settler.settle_later(entry.record.location, len(entry.content))
        self._copies.drained(batch[-1].sequence)

    def _index_batch(self, batch: Sequence[_Entry]) -> Sequence[IngestResult | None]:
        """What came of each; None for one that cannot be indexed at all."""
        assert self._directory is not None
        reached = LogPosition(
            self._directory.path.name, batch[-1].sequence, self._copies.settled_sequence
        )
        try:
            source = FromLog(reached, self._storage.new_location())
            return self._index.ingest_batch([entry.record for entry in batch], POLICY, source)
        except IndexUnavailable:
            raise
        except Exception:
            if len(batch) > 1:
                # One of them cannot be indexed: find out which, and do the others.
                return [result for entry in batch for result in self._index_batch([entry])]
            LOGGER.exception(
                "%s cannot be indexed; its file stays, see 'pacs check'", batch[0].record.location
            )
            return [None]

    def _concluded(self, record: InstanceRecord, result: IngestResult) -> IngestResult:
        try:
            return self._conclude(record, result)
        except IndexUnavailable:
            raise
        except Exception:
            # At worst a file stays that nothing points at.
            LOGGER.exception("%s is left as it is, see 'pacs check'", record.location)
            return IngestResult(outcome=IngestOutcome.STORED)

    def _release(self, sequence: int) -> None:
        segments = self._segments
        if segments is not None:
            segments.release(sequence)


class _Copies:
    """The bytes of small instances, in memory as in the log, until their files are durable (``settler.Copies``)."""

    def __init__(self, storage: Storage, index: Index, release: Callable[[int], None]) -> None:
        self._storage = storage
        self._index = index
        self._release = release
        self._guard = threading.Lock()
        #: In the order of the log.
        self._kept: dict[str, tuple[int, bytes]] = {}
        self._drained = 0

    @property
    def are_needed(self) -> bool:
        """Whether files are not durable yet."""
        return bool(self._kept)

    def keep(self, location: str, sequence: int, content: bytes) -> None:
        with self._guard:
            self._kept[location] = sequence, content

    def drained(self, sequence: int) -> None:
        """All entries up to this one are in the index, and kept here if they need be."""
        with self._guard:
            self._drained = sequence
            self._release(self._settled())

    def give_up(self, locations: Sequence[str]) -> None:
        with self._guard:
            for location in locations:
                self._kept.pop(location, None)
            self._release(self._settled())

    def write_again(self, locations: Sequence[str]) -> None:
        for location in locations:
            kept = self._kept.get(location)
            # Otherwise it was replaced or removed.
            if kept is not None and self._index.is_location_indexed(location):
                self._storage.restore(location, kept[1])
        self.give_up(locations)

    @property
    def settled_sequence(self) -> int:
        """Up to this one everything is at its place for good."""
        with self._guard:
            return self._settled()

    def _settled(self) -> int:
        first = next(iter(self._kept.values()), None)
        return self._drained if first is None else first[0] - 1


_LOCATION_ENCODING = "ascii"
_LOCATION_END = b"\n"


def _payload(entry: _Entry) -> bytes:
    """A location, and for a small instance the file that belongs there."""
    location = entry.record.location.encode(_LOCATION_ENCODING)
    return location + _LOCATION_END + (entry.content or b"")


def read_payload(payload: bytes) -> tuple[str, bytes | None]:
    """The location that an entry of the log is about, and the file that belongs there if it was small.

    Raises:
        ValueError: it is no entry of an instance.
    """
    location, end, content = payload.partition(_LOCATION_END)
    if not end:
        raise ValueError("the entry has no location")
    return location.decode(_LOCATION_ENCODING), content or None
