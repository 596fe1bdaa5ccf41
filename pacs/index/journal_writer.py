"""Writes the records of retrieves in a thread of its own, so that no transfer waits for the index.

Whoever retrieves hands over what is to be recorded, and waits a moment for it to be written: usually it is, before the
response that it is about leaves. While the index cannot be written (another process holds its lock, the database is
gone) the retrieve goes on, and the thread writes what waits when it can.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from pacs.errors import IndexUnavailable, PacsError
from pacs.index.journal import Journal
from pacs.model.retrieves import RetrieveOutcome, RetrieveRequest, SubOperationRecord

LOGGER = logging.getLogger(__name__)

#: How long a retrieve waits for its record, at its beginning and at its end.
_PATIENCE_SECONDS = 5.0
#: After a failure.
_PAUSE_SECONDS = 1.0
#: Outcomes that wait, of all retrieves: some 50 MiB. Beyond, the record that waits longest is given up.
_MOST_WAITING = 200_000


class RetrieveEntry:
    """The record of one retrieve, as far as it is handed over; made by ``JournalWriter.begin``."""

    __slots__ = ("is_queued", "key", "outcome", "request", "waiting")

    def __init__(self, request: RetrieveRequest) -> None:
        self.request = request
        #: The number of the record; None until it is written.
        self.key: int | None = None
        self.waiting: list[SubOperationRecord] = []
        self.outcome: RetrieveOutcome | None = None
        self.is_queued = False


class JournalWriter:
    """Takes what is to be recorded, and writes it in order; safe to share between threads."""

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``; starts no thread before there is anything."""
        self._journal = journal
        self._changed = threading.Condition()
        self._queue: deque[RetrieveEntry] = deque()
        self._waiting = 0
        self._is_failing = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def begin(self, request: RetrieveRequest) -> RetrieveEntry:
        """Record that a retrieve began; never raises."""
        entry = RetrieveEntry(request)
        self._hand_over(entry, (), None, is_awaited=True)
        return entry

    def add(self, entry: RetrieveEntry, batch: Sequence[SubOperationRecord]) -> None:
        """Record what became of some sub-operations; never raises, and waits for nothing."""
        self._hand_over(entry, batch, None, is_awaited=False)

    def finish(
        self, entry: RetrieveEntry, outcome: RetrieveOutcome, batch: Sequence[SubOperationRecord]
    ) -> None:
        """Record how a retrieve ended, and its last sub-operations; never raises."""
        self._hand_over(entry, batch, outcome, is_awaited=True)

    def close(self) -> None:
        """Write what waits, if that is possible, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        self._stopping = False

    def _hand_over(
        self,
        entry: RetrieveEntry,
        batch: Sequence[SubOperationRecord],
        outcome: RetrieveOutcome | None,
        *,
        is_awaited: bool,
    ) -> None:
        with self._changed:
            entry.waiting += batch
            entry.outcome = outcome
            self._waiting += len(batch)
            if not entry.is_queued:
                entry.is_queued = True
                self._queue.append(entry)
            if self._thread is None and not self._start():
                return
            self._changed.notify_all()
            if is_awaited:
                self._changed.wait_for(
                    lambda: not entry.is_queued or self._is_failing, _PATIENCE_SECONDS
                )

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="journal", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no thread left; the next one tries again
            LOGGER.error("retrieves are not recorded yet: %s", error)
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                if not self._queue:
                    return
                entry = self._queue[0]
                batch, outcome = entry.waiting, entry.outcome
                entry.waiting = []
            try:
                self._write(entry, batch, outcome)
            except Exception as error:
                # Also what nobody foresaw: without this thread nothing would be recorded any more.
                if not isinstance(error, PacsError):
                    LOGGER.exception("the record of a retrieve cannot be written")
                self._failed(entry, batch, error)
            else:
                self._written(entry, batch, outcome)

    def _write(
        self,
        entry: RetrieveEntry,
        batch: Sequence[SubOperationRecord],
        outcome: RetrieveOutcome | None,
    ) -> None:
        if entry.key is None:
            entry.key = self._journal.begin_retrieve(entry.request)
        if outcome is not None:
            self._journal.finish_retrieve(entry.key, outcome, batch)
        else:
            self._journal.record_sub_operations(entry.key, batch)

    def _written(
        self,
        entry: RetrieveEntry,
        batch: Sequence[SubOperationRecord],
        outcome: RetrieveOutcome | None,
    ) -> None:
        with self._changed:
            self._is_failing = False
            self._waiting -= len(batch)
            self._queue.popleft()
            if entry.waiting or entry.outcome is not outcome:  # there is more by now
                self._queue.append(entry)
            else:
                entry.is_queued = False
            self._changed.notify_all()

    def _failed(
        self, entry: RetrieveEntry, batch: list[SubOperationRecord], error: Exception
    ) -> None:
        with self._changed:
            entry.waiting[:0] = batch
            can_wait = isinstance(error, IndexUnavailable) and self._waiting <= _MOST_WAITING
            if self._stopping:
                while self._queue:
                    self._give_up(self._queue[0], error)
            elif can_wait:
                if not self._is_failing:
                    LOGGER.error("retrieves are not recorded yet: %s", error)
                self._is_failing = True
            else:
                self._give_up(entry, error)
            self._changed.notify_all()
            if self._is_failing:
                self._changed.wait_for(lambda: self._stopping, _PAUSE_SECONDS)

    def _give_up(self, entry: RetrieveEntry, error: Exception) -> None:
        LOGGER.error(
            "retrieve by %s: %d outcomes%s are not recorded: %s",
            entry.request.calling_ae,
            len(entry.waiting),
            " and its end" if entry.outcome is not None else "",
            error,
        )
        self._waiting -= len(entry.waiting)
        entry.waiting, entry.is_queued = [], False
        self._queue.popleft()
