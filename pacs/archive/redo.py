"""Make small files durable together, a moment after they were acknowledged.

Theory of operation. To sync a file of 3 KB and the name it got takes longer than everything else that is done with it.
So the bytes of a small instance are written to the index in the transaction that indexes it, whose commit is on the
disk before the instance is acknowledged; the file itself gets its name and its content, but is not waited for. A
thread then syncs such files, many at a time, and removes the copies. After a power loss ``recover`` writes those
files again whose copy is still there. A process that is only killed leaves files that are sound and copies that are
superfluous.

Only one rule has to be kept by others: whoever removes an instance from the index, or lets its row point elsewhere,
removes the copy in the same transaction, before the file goes (``pacs.index``).
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from pacs.archive.mounted import require_files, require_own_storage
from pacs.errors import PacsError
from pacs.index.index import Index
from pacs.storage.base import Storage

LOGGER = logging.getLogger(__name__)

#: Files come together for so long before they are synced.
_GATHER_SECONDS = 0.25
#: After a failure.
_PAUSE_SECONDS = 5.0
#: Files synced, and copies removed, at a time: bounds how long the index's writer is kept.
_BATCH = 500
#: Files of this process that wait; beyond, instances are synced before they are acknowledged.
_MOST_FILES = 10_000
_MOST_BYTES = 64 * 1024 * 1024
_ROWS_IN_MEMORY = 50


class Redo:
    """The files that one process has placed and not yet made durable; safe to share between threads."""

    def __init__(self, storage: Storage, index: Index) -> None:
        """Settle files of ``storage``, whose copies are in ``index``; starts no thread before there are any."""
        self._storage = storage
        self._index = index
        self._changed = threading.Condition()
        self._settling = threading.Lock()
        self._waiting: deque[tuple[str, int]] = deque()
        self._waiting_bytes = 0
        self._stopping = False
        #: Whether a sync has failed since the files that wait were placed.
        self._has_failed = False
        self._thread: threading.Thread | None = None

    @property
    def has_room(self) -> bool:
        """Whether another file may wait: not when the disk falls behind."""
        return len(self._waiting) < _MOST_FILES and self._waiting_bytes < _MOST_BYTES

    def settle_later(self, location: str, size: int) -> None:
        """Make a file durable soon, whose copy of ``size`` bytes is committed to the index; never raises."""
        with self._changed:
            self._waiting.append((location, size))
            self._waiting_bytes += size
            if self._thread is None:
                self._start()
            elif len(self._waiting) == 1:
                self._changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="settler", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread left; the next file tries again
            LOGGER.error("stored files are not synced yet: %s", error)
        else:
            self._thread = thread

    def recover(self) -> int:
        """Write the files again whose copies are in the index; return how many were lost or damaged.

        Any number of processes may do so at any time, also beside one that stores.

        Raises:
            StorageUnavailable: the storage is not that of the index, or holds nothing at all, as if its volume were
                not mounted.
            PacsError: storage or index fail; what is left is done by the next call.
        """
        locations = self._index.redo.locations()
        if locations:
            require_own_storage(self._storage, self._index)
            require_files(self._storage, self._index, len(locations))
        restored = 0
        for first in range(0, len(locations), _ROWS_IN_MEMORY):
            restored += self._restore(locations[first : first + _ROWS_IN_MEMORY])
        if restored:
            LOGGER.warning(
                "%d stored files written again that were lost before they were on the disk",
                restored,
            )
        return restored

    def restore(self, location: str) -> bool:
        """Write one file again from its copy, if there is one; return whether there was.

        Raises:
            PacsError: storage or index fail; the copy stays.
        """
        if not self._index.redo.read([location]):
            return False
        self._restore([location])
        return True

    def _restore(self, locations: list[str]) -> int:
        """Write files from their copies, then remove the copies; return how many files were not sound."""
        rows = self._index.redo.read(locations)
        restored = sum(self._storage.restore(row.location, row.content) for row in rows)
        self._index.redo.remove([row.location for row in rows])
        for row in rows:
            if not self._index.is_location_indexed(row.location):
                # The instance was removed or replaced meanwhile, and its file before it came back, which may have
                # been there and sound when it was looked at.
                self._storage.remove(row.location)
        return restored

    def flush(self) -> None:
        """Make durable what waits.

        Raises:
            PacsError: storage or index fail; the copies stay.
        """
        with self._settling:
            while self._waiting:
                self._settle_batch()

    def close(self) -> None:
        """End the thread and settle what waits; a failure is logged, the copies stay."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        try:
            self.flush()
        except PacsError as error:
            LOGGER.error("%d stored files are not synced: %s", len(self._waiting), error)
        self._thread, self._stopping = None, False

    def _run(self) -> None:
        while not self._stopping:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                self._changed.wait_for(lambda: self._stopping, _GATHER_SECONDS)
            try:
                self.flush()
            except Exception as error:
                # Also what nobody foresaw: without this thread the copies would pile up.
                known = isinstance(error, PacsError)
                LOGGER.error(
                    "%d stored files are not synced yet: %s",
                    len(self._waiting),
                    error,
                    exc_info=None if known else error,
                )
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, _PAUSE_SECONDS)

    def _settle_batch(self) -> None:
        batch = [self._waiting[i] for i in range(min(_BATCH, len(self._waiting)))]
        locations = [location for location, _ in batch]
        if self._has_failed:
            # The kernel reports a failed write once, and takes the pages for written then: to sync again would
            # succeed and prove nothing.
            self._restore(locations)
        else:
            try:
                missing = set(self._storage.settle(locations))
            except PacsError:
                self._has_failed = True
                raise
            self._index.redo.remove([one for one in locations if one not in missing])
            # Replaced by another instance, and the copy is gone too; or the storage was, and a copy is all there is.
            if missing:
                require_own_storage(self._storage, self._index)
                self._restore(sorted(missing))
        with self._changed:
            for _, size in batch:
                self._waiting.popleft()
                self._waiting_bytes -= size
            if not self._waiting:
                self._has_failed = False
