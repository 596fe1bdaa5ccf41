"""Plan a retrieve, hand out its instances, and record what became of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from pacs.archive.archive import Archive
from pacs.archive.condition import missing_end
from pacs.archive.known_whole import KnownWhole
from pacs.dicom.query.identifier import Query
from pacs.errors import PacsError, StorageUnavailable
from pacs.model.instances import StoredInstance
from pacs.model.retrieves import RetrieveOutcome, RetrievePlan, RetrieveRequest, SubOperationRecord
from pacs.model.sub_operations import Outcome, SubOperations
from pacs.storage.faults import is_missing

LOGGER = logging.getLogger(__name__)

#: Instances looked up in the index at a time: few at first, for the first to be on its way at once.
_FIRST_BATCH_INSTANCES = 32
_BATCH_INSTANCES = 256
#: Outcomes are written to the index in batches of this many, or after this long, and at the end.
_JOURNAL_BATCH = 256
_JOURNAL_SECONDS = 2.0


class Source(Protocol):
    """Where the bytes of an outgoing instance are; a ``FilesystemStorage`` is one."""

    def has(self, location: str) -> bool:
        """Whether there is a file.

        Raises:
            PacsError: it cannot be told.
        """
        ...

    def open(self, location: str) -> BinaryIO:
        """Open the Part 10 file for reading; the caller closes it.

        Raises:
            PacsError: it cannot be read.
        """
        ...


@dataclass(slots=True, eq=False)
class OutgoingInstance:
    """A stored instance, or one derived from it, on its way to a destination: read while it is sent.

    It was looked up a while before it is its turn. If its file is gone by then, it is looked up again: an instance that
    was replaced meanwhile is sent as it is now.
    """

    stored: StoredInstance
    storage: Source
    #: The same instance as the index has it now; None if it has none any more.
    look_up: Callable[[], OutgoingInstance | None]
    #: Where it is remembered that the data set was walked to its end; None for what is derived, whose source was read.
    whole: KnownWhole | None = None

    @property
    def sop_class_uid(self) -> str:
        """The SOP Class UID."""
        return self.stored.sop_class_uid

    @property
    def sop_instance_uid(self) -> str:
        """The SOP Instance UID."""
        return self.stored.sop_instance_uid

    @property
    def transfer_syntax_uid(self) -> str:
        """The transfer syntax of the stored data set."""
        return self.stored.transfer_syntax_uid

    @property
    def data_set_size(self) -> int:
        """Bytes of the stored data set."""
        return self.stored.data_set_size

    def make_current(self) -> None:
        """Look the instance up again if its file is gone: what it says of itself may be another thing then.

        Raises:
            StorageUnavailable: the instance was deleted meanwhile, or its file is lost.
            PacsError: it cannot be looked up, or not derived any more.
        """
        if not self.storage.has(self.stored.location):
            self._renew()

    def open_file(self) -> BinaryIO:
        """Open the stored Part 10 file; the caller closes it.

        Raises:
            StorageUnavailable: it is missing or cannot be read.
            PacsError: as for ``make_current``.
        """
        try:
            return self.storage.open(self.stored.location)
        except StorageUnavailable as error:
            if not is_missing(error):
                raise
        before = self.sop_class_uid, self.transfer_syntax_uid
        self._renew()
        if (self.sop_class_uid, self.transfer_syntax_uid) != before:
            # Whoever opens it has chosen a presentation context, and named the class, by those before.
            raise StorageUnavailable("Replaced in another class or syntax just now")
        return self.storage.open(self.stored.location)

    def fault(self) -> str | None:
        """What is wrong with the data set, if that may be why a destination gave no answer."""
        try:
            with self.open_file() as stream:
                missing_end(stream, self.stored)
        except PacsError as error:
            return error.message
        return None

    def _renew(self) -> None:
        now = self.look_up()
        if now is None:
            raise StorageUnavailable("Deleted after it was asked for")
        if now.stored.location == self.stored.location:
            raise StorageUnavailable("Its stored file is lost")
        self.stored, self.storage = now.stored, now.storage


class Completed(NamedTuple):
    """One sub-operation that is over."""

    instance: OutgoingInstance
    outcome: Outcome


def plan(archive: Archive, query: Query, limit: int = 0) -> RetrievePlan:
    """Find the instances that ``query`` asks for.

    Raises:
        IndexUnavailable: the matches cannot be calculated.
        LimitExceeded: there are more than ``limit``, if that is not zero.
    """
    return archive.index.plan(query, limit)


def outgoing(archive: Archive, retrieve_plan: RetrievePlan) -> Iterator[OutgoingInstance]:
    """The planned instances in order, looked up a batch at a time.

    Raises:
        IndexUnavailable: the next batch cannot be looked up.
    """
    first, count = 0, min(_FIRST_BATCH_INSTANCES, _BATCH_INSTANCES)
    while keys := retrieve_plan.keys[first : first + count]:
        first, count = first + count, _BATCH_INSTANCES
        found = archive.index.instances(keys)
        if len(found) < len(keys):
            LOGGER.warning(
                "%d instances were deleted after they were asked for", len(keys) - len(found)
            )
        for stored in found:
            yield _outgoing(archive, stored)


def _outgoing(archive: Archive, stored: StoredInstance) -> OutgoingInstance:
    def look_up() -> OutgoingInstance | None:
        found = archive.index.instances([stored.key])
        return _outgoing(archive, found[0]) if found else None

    return OutgoingInstance(stored, archive.storage, look_up, archive.whole)


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
