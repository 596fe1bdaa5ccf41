"""One commit for many waiting threads.

A commit costs a disk flush whatever it contains. So while one thread commits, those that arrive wait together, and
the first of them then commits for all. There is no thread of its own, no delay, and no waiting when nobody else
is there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy

from pacs.errors import IndexUnavailable
from pacs.model.instances import IngestResult, InstanceRecord

#: Records in one transaction: bounds what a failed one repeats and how long the last one waits.
_LARGEST_BATCH = 256


class _Ticket:
    """One waiting thread: its record, and how it went."""

    __slots__ = ("arrived", "error", "is_leader", "record", "result", "turn")

    def __init__(self, record: InstanceRecord) -> None:
        self.record = record
        self.arrived = time.monotonic()
        self.result: IngestResult | None = None
        self.error: BaseException | None = None
        self.is_leader = False
        #: Set when the record is dealt with, or when this thread is to deal with the next batch; the one that
        #: leads at once waits for neither.
        self.turn: threading.Event | None = None


class GroupCommit:
    """Turns single records from many threads into batches for one ``ingest``."""

    def __init__(
        self, ingest: Callable[[Sequence[InstanceRecord], float], Sequence[IngestResult]]
    ) -> None:
        """Batch for ``ingest``, which writes all of its records or none.

        It is told when the first of them came (``time.monotonic``): whoever waited behind another batch does not wait
        for the index as long again.
        """
        self._ingest = ingest
        self._mutex = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._has_leader = False

    def submit(self, record: InstanceRecord) -> IngestResult:
        """Index one record; return when it is committed, alone or with others.

        Raises:
            IndexUnavailable: the index cannot be reached; nothing was stored.
        """
        ticket = _Ticket(record)
        with self._mutex:
            self._waiting.append(ticket)
            ticket.is_leader = not self._has_leader
            self._has_leader = True
            turn = ticket.turn = None if ticket.is_leader else threading.Event()
        if turn is not None:
            turn.wait()
        if ticket.is_leader:
            self._lead()
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None
        return ticket.result

    def _lead(self) -> None:
        """Commit what waits, this thread's own record included, and hand over."""
        with self._mutex:
            size = min(len(self._waiting), _LARGEST_BATCH)
            batch = [self._waiting.popleft() for _ in range(size)]
        try:
            self._commit(batch)
        finally:
            # Also when this thread is interrupted: nobody may wait for a leader that is gone.
            for ticket in batch:
                if ticket.result is None and ticket.error is None:
                    ticket.error = IndexUnavailable(
                        "The commit was interrupted.", may_have_committed=True
                    )
            with self._mutex:
                successor = self._waiting[0] if self._waiting else None
                self._has_leader = successor is not None
            if successor is not None:
                successor.is_leader = True
            for one in (successor, *batch):
                if one is not None and one.turn is not None:
                    one.turn.set()

    def _commit(self, batch: list[_Ticket]) -> None:
        try:
            first = min(ticket.arrived for ticket in batch)
            results = self._ingest([ticket.record for ticket in batch], first)
        except IndexUnavailable as error:
            for ticket in batch:
                # One exception object per thread: raising writes to its traceback.
                ticket.error = copy(error)
                ticket.error.__cause__ = error
        except Exception as error:  # noqa: BLE001 - handed to the thread whose record it is
            if len(batch) == 1:
                batch[0].error = error
            else:
                for ticket in batch:
                    self._commit([ticket])
        else:
            for ticket, result in zip(batch, results, strict=True):
                ticket.result = result
