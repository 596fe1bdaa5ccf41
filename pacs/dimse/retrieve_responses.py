"""The responses of a C-MOVE or C-GET: Pending while it is carried out, and the final one.

What a handler of ``evt.EVT_C_MOVE`` or ``EVT_C_GET`` returns on our engine is an :class:`Accepted` or :class:`Refused`
(``pacs.dimse.retrieve_scp``), not the generator of pynetdicom's contract: that has no way to have several instances
under way, nor to answer before there is an association with the Move Destination. A handler that returns anything else
is answered C000, and the log says why; on an AE of pynetdicom's it works (``pacs.dimse.stock``).

What differs from pynetdicom's loops:

- The destination association is opened when the first sub-operation is due: a refusal (A900, 0124, ...) needs none,
  and one that cannot be opened is A702, not A801.
- Pending responses always add up, the first one is sent at once, and the final one has no "remaining".
- More than 65,535 sub-operations are carried out; the counters in responses saturate.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.archive.retrieve import Completed
from pacs.archive.retrieving import Destination, Retrieving
from pacs.dicom.encoding.element_writer import MAX_SHORT_LENGTH
from pacs.dimse.handlers import close, code_of, is_cancelled, respond, response_to, trigger
from pacs.dimse.retrieve_scp import Accepted, Refused
from pacs.dimse.status import (
    NOT_CREATED,
    Status,
    concluding_elements,
    failed_list,
    status_dataset,
)
from pacs.errors import PacsError
from pacs.model.sub_operations import SubOperations
from pacs.wire.interfaces import Served

LOGGER = logging.getLogger(__name__)

_MAX_US = 0xFFFF
_FAILED_LIST = 0x00080058
#: Final statuses after which the counters mean something.
_COUNTED = (
    Status.SUCCESS,
    Status.CANCEL,
    Status.WARNING_SUB_OPERATIONS,
    Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
    *NOT_CREATED,
)


@dataclass(frozen=True, slots=True)
class PendingCadence:
    """How often a retrieve answers Pending: after so many sub-operations or so much time."""

    sub_operations: int = 25
    seconds: float = 0.1


@dataclass(frozen=True, slots=True)
class RetrieveOptions:
    """How retrieves are carried out."""

    #: Opens the destination of a C-MOVE (by ``Accepted.address``) or C-GET (None): association, request, address.
    open_destination: Callable[[Any, Any, Any], Destination]
    pending: PendingCadence = PendingCadence()


class Retrieve:
    """One request, and its responses."""

    def __init__(
        self, assoc: Served, request: Any, context: Any, event: Any, options: RetrieveOptions
    ) -> None:
        self._assoc = assoc
        self._request = request
        self._context = context
        self._event = event
        self._options = options
        self._destination: Destination | None = None
        #: Those of the record.
        self._operations = SubOperations(0)
        self._answered_at = 0.0
        self._unreported = 0

    def run(self) -> None:
        """Serve the request to its final response."""
        try:
            asked = trigger(self._assoc, self._event, self._request, self._context)
            if isinstance(asked, Refused):
                self._operations = asked.operations
                self._final(asked.status, failed_list(asked.failed_uids))
            else:
                self._carry_out(_accepted(asked, self._event))
        except PacsError as error:
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, error.comment))
        except Exception:
            LOGGER.exception("%s: serving %s failed", self._assoc.label, self._event.name)
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure"))
        finally:
            # After the final response: releasing an association takes its time.
            if self._destination is not None:
                self._destination.close()

    def _carry_out(self, accepted: Accepted) -> None:
        self._operations = accepted.journal.operations
        try:
            self._destination = self._options.open_destination(
                self._assoc, self._request, accepted.address
            )
            retrieving = accepted.retrieving(
                self._destination,
                is_cancelled=partial(is_cancelled, self._assoc, int(self._request.MessageID)),
                is_abandoned=lambda: self._assoc.peer_is_gone,
            )
            try:
                self._answer(accepted, retrieving)
            finally:
                accepted.log_end(retrieving)
        except Exception:
            accepted.journal.finish(Status.UNABLE_TO_PROCESS, "Processing failure")
            raise
        assert retrieving.ending is not None
        self._final(concluding_elements(retrieving.ending, self._operations))

    def _answer(self, accepted: Accepted, retrieving: Retrieving) -> None:
        with closing(retrieving.run()) as steps:
            try:
                for completed in steps:
                    accepted.log_step(retrieving, completed)
                    self._step(retrieving, completed)
            except Exception as error:
                retrieving.break_off(error)
                raise

    def _step(self, retrieving: Retrieving, completed: Sequence[Completed]) -> None:
        if retrieving.is_lost:
            return  # none of these is worth a response of its own
        self._unreported += len(completed)
        if not self._answered_at or self._pending_is_due():
            self._pending()

    def _pending_is_due(self) -> bool:
        if not self._operations.remaining:
            return False
        cadence = self._options.pending
        waited = time.monotonic() - self._answered_at
        return self._unreported >= cadence.sub_operations or waited >= cadence.seconds

    def _pending(self) -> None:
        response = response_to(self._request)
        self._count(response)
        response.NumberOfRemainingSuboperations = min(self._operations.remaining, _MAX_US)
        respond(self._assoc, response, self._context, Status.PENDING)
        self._answered_at = time.monotonic()
        self._unreported = 0

    def _final(self, status: Dataset, identifier: Dataset | None = None) -> None:
        """Send the final response.

        PS3.4 C.4.2.1.4.2: without a failed sub-operation there is no Failed SOP Instance UID List and
        therefore no data set. C.4.2.1.6: "remaining" is in a cancelled response only.
        """
        if self._assoc.peer_is_gone:
            return
        response, code = response_to(self._request), code_of(status)
        operations = self._operations
        if code == Status.CANCEL:
            response.NumberOfRemainingSuboperations = min(operations.remaining, _MAX_US)
        if code in _COUNTED:
            self._count(response)
            identifier = identifier or failed_list(operations.failed_uids)
        if code == Status.SUCCESS:
            identifier = None
        if identifier is not None and not self._context.transfer_syntax[0].is_implicit_VR:
            identifier = _with_long_lists_as_un(identifier)
        respond(self._assoc, response, self._context, status, identifier)

    def _count(self, response: Any) -> None:
        operations = self._operations
        response.NumberOfCompletedSuboperations = min(operations.completed, _MAX_US)
        response.NumberOfFailedSuboperations = min(operations.failed, _MAX_US)
        response.NumberOfWarningSuboperations = min(operations.warning, _MAX_US)


def _accepted(asked: Any, event: Any) -> Accepted:
    if isinstance(asked, Accepted):
        return asked
    close(asked)
    raise TypeError(
        f"on our engine a handler of {event.name} returns what those of pacs.dimse.retrieve_scp do, not a "
        f"{type(asked).__name__}; pynetdicom's contract holds on its own AE (pacs.dimse.stock)"
    )


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
