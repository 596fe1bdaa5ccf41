"""The loop of one C-MOVE or C-GET: the handler's generator, the destination of its instances, the counters.

What differs from pynetdicom's documented contract and its loops:

- ``evt.EVT_C_MOVE`` and ``EVT_C_GET`` handlers may yield an :class:`OutgoingInstance` where the contract says
  data set: it is streamed from storage. The next one is asked for while it is on its way, so the value of their
  ``yield`` is what has been completed meanwhile, a sequence of :class:`Completed` that is often of an earlier
  instance. Pending without an instance waits for what is under way; an empty sequence says that nothing is. Once
  ``event.is_cancelled`` has been true, what was yielded and is not on its way yet is not sent.
- The destination association is opened when the first sub-operation is due, so that a handler can refuse
  (A900, 0124, ...) without one; one that cannot be opened is A702, not A801.
- Pending responses always add up, the first one is sent at once, and the final one has no "remaining".
- More than 65,535 sub-operations are carried out; the counters in responses saturate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.dicom.encoding.element_writer import MAX_SHORT_LENGTH
from pacs.dimse.handlers import close, code_of, respond, response_to, trigger
from pacs.dimse.status import Status, concluding_status, failed_list, status_dataset
from pacs.errors import DestinationUnreachable, PacsError
from pacs.model.sub_operations import SubOperations
from pacs.wire.interfaces import Served

LOGGER = logging.getLogger(__name__)

_MAX_US = 0xFFFF
_FAILED_LIST = 0x00080058
#: The one sub-operation has failed: there is no SOP Instance to send (PS3.4 Y.4.1.3).
_NOT_CREATED = (
    Status.FRAMES_NOT_FOUND,
    Status.UNABLE_TO_CREATE_INSTANCE,
    Status.UNABLE_TO_EXTRACT_FRAMES,
    Status.NOT_TIME_BASED,
    Status.INVALID_REQUEST,
)
#: Final statuses after which nothing remains: what has not been done has failed.
_FAILED = (
    Status.WARNING_SUB_OPERATIONS,
    Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
    *_NOT_CREATED,
)
#: Final statuses after which the counters mean something.
_COUNTED = (Status.SUCCESS, Status.CANCEL, *_FAILED)

#: What a C-MOVE or C-GET handler returns.
_Handler = Generator[Any, "Sequence[Completed] | None", None]


class Destination(Protocol):
    """Where the sub-operations of a retrieve go: other associations (C-MOVE) or this one (C-GET)."""

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


@dataclass(frozen=True, slots=True)
class PendingCadence:
    """How often a retrieve answers Pending: after so many sub-operations or so much time."""

    sub_operations: int = 25
    seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class RetrieveOptions:
    """How retrieves are carried out."""

    #: Opens the destination of a C-MOVE (by the address that its handler yielded) or C-GET (None): association,
    #: request, address.
    open_destination: Callable[[Any, Any, Any], Destination]
    pending: PendingCadence = PendingCadence()


class Retrieve:
    """The state of one request."""

    def __init__(
        self, assoc: Served, request: Any, context: Any, event: Any, options: RetrieveOptions
    ) -> None:
        self.assoc = assoc
        self.options = options
        self.request = request
        self.context = context
        self.event = event
        self.destination: Destination | None = None
        self.operations = SubOperations(0)
        self._answered_at = 0.0
        self._unreported = 0

    def run(self, *, with_destination: bool) -> None:
        """Serve the request to its final response."""
        generator: _Handler | None = None
        try:
            generator = trigger(self.assoc, self.event, self.request, self.context, self._withdraw)
            assert generator is not None
            address = next(generator) if with_destination else None
            if address is not None and None in address[:2]:
                comment = f"Move Destination {self.request.MoveDestination} is not known"
                self._final(status_dataset(Status.MOVE_DESTINATION_UNKNOWN, comment))
                return
            self.operations = SubOperations(int(next(generator)))
            self.destination = self.options.open_destination(self.assoc, self.request, address)
            self._perform(generator)
        except PacsError as error:
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, error.comment))
        except Exception as error:
            LOGGER.exception("%s: serving %s failed", self.assoc.label, self.event.name)
            _tell(generator, error)
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure"))
        finally:
            close(generator)
            if self.destination is not None:
                self.destination.close()

    def _perform(self, handler: _Handler) -> None:
        completed: Sequence[Completed] | None = None
        while True:
            try:
                status, payload = handler.send(completed)
            except StopIteration:
                self._final(self._concluding_status())
                return
            if self.assoc.peer_is_gone:
                self._abandon(handler)
                return
            if code_of(status) != Status.PENDING:
                self._final(status, payload)
                return
            if not self._answered_at:
                self._pending()
            try:
                completed = self._send(payload)
            except DestinationUnreachable as error:
                # The handler hears of it at its yield, records it and yields the final response.
                status, identifier = handler.throw(error)
                self._final(status, identifier)
                return
            for instance, outcome in completed:
                self.operations.add(instance.sop_instance_uid, outcome)
            self._unreported += len(completed)
            if self._pending_is_due():
                self._pending()

    def _send(self, instance: OutgoingInstance | None) -> Sequence[Completed]:
        assert self.destination is not None
        return self.destination.drain() if instance is None else self.destination.submit(instance)

    def _withdraw(self) -> None:
        if self.destination is not None:
            self.destination.withdraw()

    def _abandon(self, handler: _Handler) -> None:
        """The requester is gone: what is under way comes to its end, and the handler hears of it."""
        self._withdraw()
        with suppress(StopIteration, DestinationUnreachable):
            while completed := self._send(None):
                handler.send(completed)

    def _pending_is_due(self) -> bool:
        if not self.operations.remaining:
            return False
        cadence = self.options.pending
        waited = time.monotonic() - self._answered_at
        return self._unreported >= cadence.sub_operations or waited >= cadence.seconds

    def _pending(self) -> None:
        response = response_to(self.request)
        self._count(response)
        response.NumberOfRemainingSuboperations = min(self.operations.remaining, _MAX_US)
        respond(self.assoc, response, self.context, Status.PENDING)
        self._answered_at = time.monotonic()
        self._unreported = 0

    def _concluding_status(self) -> Dataset:
        self.operations.fail_remaining()  # a handler that yielded fewer than it announced
        return status_dataset(*concluding_status(self.operations))

    def _final(self, status: int | Dataset, identifier: Dataset | None = None) -> None:
        """Send the final response.

        PS3.4 C.4.2.1.4.2: without a failed sub-operation there is no Failed SOP Instance UID List and
        therefore no data set. C.4.2.1.6: "remaining" is in a cancelled response only.
        """
        if self.assoc.peer_is_gone:
            return
        response, code = response_to(self.request), code_of(status)
        operations = self.operations
        if code in _FAILED:
            operations.fail_remaining()
        elif code == Status.CANCEL:
            response.NumberOfRemainingSuboperations = min(operations.remaining, _MAX_US)
        if code in _COUNTED:
            self._count(response)
            identifier = identifier or failed_list(operations.failed_uids)
        if code == Status.SUCCESS:
            identifier = None
        if identifier is not None and not self.context.transfer_syntax[0].is_implicit_VR:
            identifier = _with_long_lists_as_un(identifier)
        respond(self.assoc, response, self.context, status, identifier)

    def _count(self, response: Any) -> None:
        operations = self.operations
        response.NumberOfCompletedSuboperations = min(operations.completed, _MAX_US)
        response.NumberOfFailedSuboperations = min(operations.failed, _MAX_US)
        response.NumberOfWarningSuboperations = min(operations.warning, _MAX_US)


def _tell(handler: _Handler | None, error: Exception) -> None:
    """Have a handler that waits at its yield hear of what went wrong, for its record; it has no say any more."""
    with suppress(Exception):  # the same one, or another that follows from it
        if handler is not None:
            handler.throw(error)


def _with_long_lists_as_un(identifier: Dataset) -> Dataset:
    """A UI has a 16 bit length in explicit VR, about 1,000 UIDs; beyond that it is written as UN (PS3.5 6.2.2)."""
    listed = identifier.get("FailedSOPInstanceUIDList")
    if listed is None or isinstance(listed, str):
        return identifier
    value = "\\".join(listed).encode("ascii")
    if len(value) <= MAX_SHORT_LENGTH:
        return identifier
    copied = Dataset()
    copied.update(identifier)
    copied[_FAILED_LIST] = DataElement(_FAILED_LIST, "UN", value + b"\0" * (len(value) % 2))
    return copied
