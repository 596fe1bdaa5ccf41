"""Carry out a retrieve: hand its instances to a destination, record what becomes of each, and say how it ended.

One loop for whoever retrieves. Where the instances go is a :class:`Destination`; who asked is told by two questions (is
it cancelled, does anybody wait for it still) and by what the loop yields; what an ending is called, as a status, the
caller says. Sub-operations are counted once, by the :class:`Journal`: a response and the record read the same counters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from typing import Protocol

from pacs.archive.archive import Archive
from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.errors import DestinationUnreachable, PacsError
from pacs.model.retrieves import RetrieveOutcome, RetrieveRequest, SubOperationRecord
from pacs.model.sub_operations import Outcome, SubOperations

#: Outcomes are written to the index in batches of this many, or after this long, and at the end.
_JOURNAL_BATCH = 256
_JOURNAL_SECONDS = 2.0


class Destination(Protocol):
    """Where the sub-operations of a retrieve go: other associations (C-MOVE) or the one that asked (C-GET)."""

    def submit(self, instance: OutgoingInstance) -> Sequence[Completed]:
        """Take one instance to send, as soon as there is room for it; return what has been completed meanwhile.

        Raises:
            DestinationUnreachable: no association can be established at all.
        """
        ...

    def drain(self) -> Sequence[Completed]:
        """Wait for some of what is under way; empty when nothing is.

        Raises:
            DestinationUnreachable: as for ``submit``.
        """
        ...

    def withdraw(self) -> None:
        """Forget what was taken and is not on its way yet: it is not sent, and not completed."""
        ...

    def close(self) -> None:
        """Release what was opened for this."""
        ...


class How(Enum):
    """How the sending ended."""

    #: Every sub-operation was tried, or its instance was gone.
    COMPLETE = auto()
    CANCELLED = auto()
    #: The next instances could not be looked up; what was left has failed.
    CUT_SHORT = auto()
    #: Nothing could be sent at all; everything has failed.
    UNREACHABLE = auto()
    #: Nobody waits for the rest.
    ABANDONED = auto()
    #: An error that nobody foresaw.
    BROKEN = auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """How the sending ended, and why."""

    how: How
    error: Exception | None = None


class Journal:
    """The record of one retrieve in the index.

    Losing a record must not lose a transfer, nor hold it up: if the index cannot be written, the retrieve goes on, and
    the record is written later (``pacs.index.journal_writer``).
    """

    def __init__(self, archive: Archive, request: RetrieveRequest, total: int) -> None:
        self._writer = archive.index.journal_writer
        self.operations = SubOperations(total)
        self._pending: list[SubOperationRecord] = []
        self._number = 0
        self._written_at = time.monotonic()
        self._is_finished = False
        self._entry = self._writer.begin(request)

    @property
    def key(self) -> int | None:
        """The number of the record, for ``pacs retrieve show``; None while it is not written."""
        return self._entry.key

    def add(self, instance: OutgoingInstance, outcome: Outcome) -> None:
        """Record the outcome of one sub-operation."""
        self.operations.add(instance.sop_instance_uid, outcome)
        self._number += 1
        self._pending.append(
            SubOperationRecord(
                number=self._number,
                sop_class_uid=instance.sop_class_uid,
                sop_instance_uid=instance.sop_instance_uid,
                outcome=outcome.result,
                status=outcome.status,
                error_comment=outcome.comment,
                size_bytes=outcome.size_bytes,
                duration_seconds=outcome.duration_seconds,
            )
        )
        waited = time.monotonic() - self._written_at
        if len(self._pending) >= _JOURNAL_BATCH or waited >= _JOURNAL_SECONDS:
            batch, self._pending = self._pending, []
            self._written_at = time.monotonic()
            self._writer.add(self._entry, batch)

    def finish(self, status: int, comment: str = "") -> None:
        """Record the final status; further calls are ignored."""
        if self._is_finished:
            return
        self._is_finished = True
        operations = self.operations
        outcome = RetrieveOutcome(
            status=status,
            completed=operations.completed,
            failed=operations.failed,
            warning=operations.warning,
            remaining=operations.remaining,
            error_comment=comment,
        )
        self._writer.finish(self._entry, outcome, self._pending)


def _never() -> bool:
    return False


class Retrieving:
    """One retrieve: iterate over ``run`` to carry it out."""

    def __init__(
        self,
        journal: Journal,
        instances: Iterator[OutgoingInstance],
        destination: Destination,
        conclude: Callable[[Ending, SubOperations], tuple[int, str]],
        *,
        is_cancelled: Callable[[], bool] = _never,
        is_abandoned: Callable[[], bool] = _never,
    ) -> None:
        """Prepare to send ``instances``; the destination stays the caller's to close.

        Args:
            journal: The record, which counts.
            instances: What to send.
            destination: Where to.
            conclude: The status and comment to record for an ending.
            is_cancelled: Whether the rest is not wanted any more; may be true once only.
            is_abandoned: Whether nobody waits for the rest any more.
        """
        self.journal = journal
        #: None while it goes on.
        self.ending: Ending | None = None
        #: As recorded; set when it has ended.
        self.status, self.comment = 0, ""
        self._instances = instances
        self._destination = destination
        self._conclude = conclude
        self._is_cancelled = is_cancelled
        self._is_abandoned = is_abandoned
        self._was_abandoned = False
        self._under_way: list[OutgoingInstance] = []

    @property
    def operations(self) -> SubOperations:
        """The counters."""
        return self.journal.operations

    @property
    def is_lost(self) -> bool:
        """Whether nothing could be sent at all: what ``run`` yields then has failed for that one reason."""
        return self.ending is not None and self.ending.how is How.UNREACHABLE

    def run(self) -> Generator[Sequence[Completed], None, None]:
        """Send; yield what each step completed, which is recorded by then, and nothing before the first one.

        The record is finished when this ends, however that is: before anybody is answered.

        Raises:
            Exception: what nobody foresaw; it is recorded as ``How.BROKEN``.
        """
        try:
            try:
                yield from self._send()
            except DestinationUnreachable as error:
                if self._was_abandoned:
                    self._end(How.ABANDONED)
                else:
                    yield from self._lose(error)
        except Exception as error:
            self._end(How.BROKEN, error)
            raise
        finally:
            self.finish()

    def break_off(self, error: Exception) -> None:
        """Whoever iterates over ``run`` cannot go on; it is to be closed."""
        if self.ending is None:
            self._end(How.BROKEN, error)

    def finish(self) -> None:
        """Finish the record, as abandoned if it goes on; ``run`` does this."""
        if self.ending is None:
            self._end(How.ABANDONED)
        assert self.ending is not None
        self.status, self.comment = self._conclude(self.ending, self.operations)
        self.journal.finish(self.status, self.comment)

    def _end(self, how: How, error: Exception | None = None) -> None:
        self.ending = Ending(how, error)

    def _send(self) -> Iterator[Sequence[Completed]]:
        is_first = True
        for instance in self._due():
            if is_first:
                is_first = False
                yield ()
            self._under_way.append(instance)
            yield self._record(self._destination.submit(instance))
        while self._under_way:
            self._look_whether_abandoned()
            completed = self._destination.drain()
            if not completed:
                break
            yield self._record(completed)
        if self.ending is None:
            self._end(self._how_it_ended())
        assert self.ending is not None
        if self.ending.how in (How.COMPLETE, How.CUT_SHORT):
            # Also what left the index after it was planned, and so was never handed over.
            self.operations.fail_remaining()

    def _due(self) -> Iterator[OutgoingInstance]:
        """The instances to hand over, until an ending comes before the last."""
        while True:
            try:
                instance = next(self._instances, None)
            except PacsError as error:
                self._end(How.CUT_SHORT, error)
                return
            if instance is None:
                return
            if self._is_cancelled():
                self._end(How.CANCELLED)
                self._destination.withdraw()
                return
            if self._look_whether_abandoned():
                self._end(How.ABANDONED)
                return
            yield instance

    def _how_it_ended(self) -> How:
        # A destination leaves behind what is not wanted any more, and nothing else.
        if self._under_way and self._is_cancelled():
            return How.CANCELLED
        if self._under_way and self._was_abandoned:
            return How.ABANDONED
        return How.COMPLETE

    def _look_whether_abandoned(self) -> bool:
        if not self._was_abandoned and self._is_abandoned():
            self._was_abandoned = True
            self._destination.withdraw()
        return self._was_abandoned

    def _record(self, completed: Sequence[Completed]) -> Sequence[Completed]:
        for instance, outcome in completed:
            self._under_way.remove(instance)
            self.journal.add(instance, outcome)
        return completed

    def _lose(self, error: DestinationUnreachable) -> Iterator[Sequence[Completed]]:
        self._end(How.UNREACHABLE, error)
        outcome = Outcome.failed(error.message)
        for instance in chain(self._under_way, self._instances):
            self.journal.add(instance, outcome)
            yield (Completed(instance, outcome),)
        self.operations.fail_remaining()
