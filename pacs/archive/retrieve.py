"""What a retrieve sends: the planned instances, looked up when it is their turn (``pacs.archive.retrieving``)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol

from pacs.archive.archive import Archive
from pacs.archive.condition import missing_end
from pacs.archive.known_whole import KnownWhole
from pacs.dicom.query.identifier import Query
from pacs.errors import PacsError, StorageUnavailable
from pacs.model.instances import StoredInstance
from pacs.model.retrieves import RetrievePlan
from pacs.model.sub_operations import Outcome
from pacs.storage.faults import is_missing

LOGGER = logging.getLogger(__name__)

#: Instances looked up in the index at a time: few at first, for the first to be on its way at once.
_FIRST_BATCH_INSTANCES = 32
_BATCH_INSTANCES = 256


class Source(Protocol):
    """Where the bytes of an outgoing instance are; a ``Storage`` is one."""

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
