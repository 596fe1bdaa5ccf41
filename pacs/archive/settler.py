"""Make files durable together, a moment after they were placed, while something else has their bytes.

To sync a file of 3 KB and the name it got takes longer than everything else that is done with it. So files are
placed without waiting for the disk, and a thread syncs many at a time. Until then somebody else keeps a copy of each
(``Copies``): the index in a table of its own (``pacs.archive.redo``), or the log (``pacs.archive.instance_log``).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from pacs.errors import PacsError
from pacs.storage.storage import Storage

LOGGER = logging.getLogger(__name__)

#: Files come together for so long before they are synced.
_GATHER_SECONDS = 0.25
#: After a failure.
_PAUSE_SECONDS = 5.0
#: Files synced, and copies given up, at a time: bounds how long the index's writer is kept.
_BATCH = 500
#: Files of this process that wait; beyond, instances are synced before they are acknowledged.
_MOST_FILES = 10_000
_MOST_BYTES = 64 * 1024 * 1024


class Copies(Protocol):
    """Who has the bytes of files that are not yet on the disk."""

    def give_up(self, locations: Sequence[str]) -> None:
        """These files are durable: their copies may go.

        Raises:
            PacsError: the copies stay; this is called again.
        """
        ...

    def write_again(self, locations: Sequence[str]) -> None:
        """Write these files again, durably, unless nothing points at them any more; their copies may go then.

        Raises:
            PacsError: the copies stay; this is called again.
        """
        ...


class Settler:
    """The files that one process has placed and not yet made durable; safe to share between threads."""

    def __init__(self, storage: Storage, copies: Copies, name: str = "settler") -> None:
        """Settle files of ``storage``, which ``copies`` has too, in a thread that starts when there are any."""
        self._storage = storage
        self._copies = copies
        self._name = name
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
        """Make a file of ``size`` bytes durable soon, of which there is a copy; never raises."""
        with self._changed:
            self._waiting.append((location, size))
            self._waiting_bytes += size
            if self._thread is None:
                self._start()
            elif len(self._waiting) == 1:
                self._changed.notify()

    def flush(self) -> None:
        """Make durable what waits.

        Raises:
            PacsError: the storage fails, or who has the copies; the copies stay.
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

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread left; the next file tries again
            LOGGER.error("stored files are not synced yet: %s", error)
        else:
            self._thread = thread

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
            self._copies.write_again(locations)
        else:
            try:
                missing = set(self._storage.settle(locations))
            except PacsError:
                self._has_failed = True
                raise
            self._copies.give_up([one for one in locations if one not in missing])
            # Replaced by another instance, and the copy is gone too; or the storage was, and a copy is all there is.
            if missing:
                self._copies.write_again(sorted(missing))
        with self._changed:
            for _, size in batch:
                self._waiting.popleft()
                self._waiting_bytes -= size
            if not self._waiting:
                self._has_failed = False
