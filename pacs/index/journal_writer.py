"""Writes the records of retrieves in a thread of its own, so that no transfer waits for the index.

Whoever retrieves hands over what is to be recorded, and waits a moment for it to be written: usually it is, before the
response that it is about leaves. What comes from all retrieves while the thread writes is written next, in one
transaction: many peers at once share a commit. While the index cannot be written (another process holds its lock, the
database is gone) the retrieve goes on, and the thread writes what waits when it can.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from pacs.errors import IndexUnavailable, PacsError
from pacs.index.journal import Journal, RetrieveChange
from pacs.model.retrieves import RetrieveOutcome, RetrieveRequest, SubOperationRecord

LOGGER = logging.getLogger(__name__)

#: How long a retrieve waits for its record, at its beginning and at its end.
_PATIENCE_SECONDS = 5.0
#: After a failure.
_PAUSE_SECONDS = 1.0
#: Outcomes that wait, of all retrieves: some 50 MiB. Beyond, the record that waits longest is given up.
_MOST_WAITING = 200_000
#: Retrieves and outcomes in one transaction: bounds how long others wait for the index's writer. A retrieve with more
#: outcomes has one for itself.
_LARGEST_BATCH, _MOST_OUTCOMES = 256, 2_000


class RetrieveEntry:
    """The record of one retrieve, as far as it is handed over; made by ``JournalWriter.begin``."""

    __slots__ = ("is_queued", "key", "may_be_there", "outcome", "request", "waiting", "written")

    def __init__(self, request: RetrieveRequest) -> None:
        self.request = request
        #: The number of the record; None until it is written.
        self.key: int | None = None
        self.waiting: list[SubOperationRecord] = []
        self.outcome: RetrieveOutcome | None = None
        self.is_queued = False
        #: Whether a commit that seemed to fail may have written what waits.
        self.may_be_there = False
        #: Set when all of it is written, or is not to be waited for; one each, or each record would wake all that wait.
        self.written = threading.Event()

    def take(self) -> RetrieveChange:
        """What is to be written now."""
        batch, self.waiting = self.waiting, []
        return RetrieveChange(self.request, self.key, batch, self.outcome, self.may_be_there)


class JournalWriter:
    """Takes what is to be recorded, and writes it in order; safe to share between threads."""

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``; starts no thread before there is anything."""
        self._journal = journal
        #: Only the thread waits for it.
        self._changed = threading.Condition()
        self._queue: deque[RetrieveEntry] = deque()
        self._waiting = 0
        #: So many are to be written each in a transaction of its own: the index has refused one of them.
        self._alone = 0
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
            entry.written.clear()
            self._waiting += len(batch)
            if not entry.is_queued:
                entry.is_queued = True
                self._queue.append(entry)
            if self._thread is None and not self._start():
                return
            self._changed.notify()
            is_awaited = is_awaited and not self._is_failing
        if is_awaited:
            entry.written.wait(_PATIENCE_SECONDS)

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
                entries = self._next()
                changes = [entry.take() for entry in entries]
            try:
                keys = self._journal.write(changes)
            except Exception as error:
                # Also what nobody foresaw: without this thread nothing would be recorded any more.
                if not isinstance(error, PacsError):
                    LOGGER.exception("the record of a retrieve cannot be written")
                self._failed(entries, changes, error)
            else:
                self._written(entries, changes, keys)

    def _next(self) -> list[RetrieveEntry]:
        """The first of the queue, as many as go into one transaction; they stay in it."""
        if self._alone:
            self._alone -= 1
            return [self._queue[0]]
        entries: list[RetrieveEntry] = []
        outcomes = 0
        for entry in self._queue:
            outcomes += len(entry.waiting)
            if entries and (outcomes > _MOST_OUTCOMES or len(entries) == _LARGEST_BATCH):
                break
            entries.append(entry)
        return entries

    def _written(
        self,
        entries: Sequence[RetrieveEntry],
        changes: Sequence[RetrieveChange],
        keys: Sequence[int],
    ) -> None:
        with self._changed:
            self._is_failing = False
            for entry, change, key in zip(entries, changes, keys, strict=True):
                entry.key, entry.may_be_there = key, False
                self._waiting -= len(change.batch)
                self._queue.popleft()
                if entry.waiting or entry.outcome is not change.outcome:  # there is more by now
                    self._queue.append(entry)
                else:
                    entry.is_queued = False
                    entry.written.set()

    def _failed(
        self,
        entries: Sequence[RetrieveEntry],
        changes: Sequence[RetrieveChange],
        error: Exception,
    ) -> None:
        is_unavailable = isinstance(error, IndexUnavailable)
        # Of what nobody foresaw nothing is known.
        may_be_there = getattr(error, "may_have_committed", not isinstance(error, PacsError))
        with self._changed:
            for entry, change in zip(entries, changes, strict=True):
                entry.waiting[:0] = change.batch
                entry.may_be_there |= may_be_there
            if self._stopping:
                while self._queue:
                    self._give_up(self._queue[0], error)
            elif is_unavailable and self._waiting <= _MOST_WAITING:
                if not self._is_failing:
                    LOGGER.error("retrieves are not recorded yet: %s", error)
                self._is_failing = True
                for entry in self._queue:
                    entry.written.set()
            elif len(entries) > 1 and not is_unavailable:
                # One of them is at fault, and the others are not to be given up with it.
                self._alone = len(entries)
            else:
                self._give_up(entries[0], error)
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
        entry.written.set()
