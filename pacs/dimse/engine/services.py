"""The service loops: a request, the handler bound to its event, the responses (PS3.7 9.1).

Handlers follow pynetdicom's documented contract. What differs from the stock loops:

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
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom import dimse_primitives as primitives
from pynetdicom import evt
from pynetdicom.dsutils import encode as encode_data_set

from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.archive.sub_operations import SubOperations
from pacs.dicom import storage_commitment
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES, Operation
from pacs.dimse.engine.dimse import assign_uid
from pacs.dimse.engine.long_values import with_long_lists_as_un
from pacs.dimse.negotiation import VERIFICATION
from pacs.dimse.status import Status, concluding_status, failed_list, status_dataset
from pacs.errors import DestinationUnreachable, PacsError

if TYPE_CHECKING:
    from pacs.dimse.engine.association import EngineAssociation

LOGGER = logging.getLogger(__name__)

_MAX_US = 0xFFFF
#: The one sub-operation has failed: there is no SOP Instance to send (PS3.4 Y.4.1.3).
_NOT_CREATED = (
    Status.FRAMES_NOT_FOUND,
    Status.UNABLE_TO_CREATE_INSTANCE,
    Status.UNABLE_TO_EXTRACT_FRAMES,
    Status.NOT_TIME_BASED,
    Status.INVALID_REQUEST,
)
#: Final statuses after which the counters mean something.
_COUNTED = (
    Status.SUCCESS,
    Status.CANCEL,
    Status.WARNING_SUB_OPERATIONS,
    Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
    *_NOT_CREATED,
)
_PENDING = (Status.PENDING, Status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED)
#: Parameters of a request that must be there (PS3.7 Tables 9.1-1 to 9.1-5, 10.1-4), beside the Message ID.
_MANDATORY: dict[type[Any], tuple[str, ...]] = {
    primitives.C_ECHO: ("AffectedSOPClassUID",),
    primitives.C_STORE: ("AffectedSOPClassUID", "AffectedSOPInstanceUID"),
    primitives.C_FIND: ("AffectedSOPClassUID",),
    primitives.C_GET: ("AffectedSOPClassUID",),
    primitives.C_MOVE: ("AffectedSOPClassUID", "MoveDestination"),
    primitives.N_ACTION: ("RequestedSOPClassUID", "RequestedSOPInstanceUID", "ActionTypeID"),
}


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


def serve(assoc: EngineAssociation, request: Any, context: Any) -> None:
    """Serve one request."""
    if request.is_response:
        if assoc.errands.take_response(request):
            return
        LOGGER.warning("%s: unexpected %s response ignored", assoc.label, type(request).__name__)
        _discard_received(request)
        return
    if request.MessageID is None:
        LOGGER.warning("%s: %s without Message ID; aborting", assoc.label, type(request).__name__)
        _discard_received(request)
        assoc.abort()
        return
    problem = _problem_of(request, context)
    if problem is None:
        _LOOPS[type(request)](assoc, request, context)
    else:
        _discard_received(request)
        _respond(assoc, _response_to(request), context, problem)


def _problem_of(request: Any, context: Any) -> Dataset | None:
    """What the command set itself breaks, before any handler sees it (PS3.7 C.5)."""
    if request.is_duplicate:
        return status_dataset(
            Status.DUPLICATE_INVOCATION, "The Message ID is that of an operation in progress"
        )
    if type(request) is not _operation_of(str(context.abstract_syntax)):
        name = type(request).__name__.replace("_", "-")
        return status_dataset(
            Status.UNRECOGNISED_OPERATION, f"{name} is no operation of this SOP Class"
        )
    missing = [name for name in _MANDATORY[type(request)] if getattr(request, name) in (None, "")]
    if request.ill_typed or missing:
        keyword = (*request.ill_typed, *missing)[0]
        return status_dataset(
            Status.MISTYPED_ARGUMENT, f"{keyword} is missing or not valid", _tag_of(keyword)
        )
    if isinstance(request, primitives.N_ACTION):
        # Which SOP Classes and Instances are one, the handler knows (PS3.7 10.1.4.1.10).
        return None
    if request.AffectedSOPClassUID != context.abstract_syntax:
        return status_dataset(
            Status.SOP_CLASS_NOT_SUPPORTED,
            "Affected SOP Class is not that of the presentation context",
            _tag_of("AffectedSOPClassUID"),
        )
    return None


def _tag_of(keyword: str) -> tuple[int, ...]:
    """The Offending Element of a command set."""
    tag = tag_for_keyword(keyword)
    return () if tag is None else (tag,)


def _operation_of(sop_class_uid: str) -> type[Any]:
    """The one DIMSE operation of a SOP Class that is accepted here; of all others it is C-STORE."""
    if sop_class_uid == VERIFICATION:
        return primitives.C_ECHO
    if sop_class_uid == storage_commitment.SOP_CLASS_UID:
        return primitives.N_ACTION
    if sop_class_uid in QUERY_RETRIEVE_SOP_CLASSES:
        return _OPERATIONS[QUERY_RETRIEVE_SOP_CLASSES[sop_class_uid][1]]
    return primitives.C_STORE


def _discard_received(request: Any) -> None:
    sink = getattr(request, "received", None)
    if sink is not None:
        sink.discard()


def _response_to(request: Any) -> Any:
    response = type(request)()
    response.MessageIDBeingRespondedTo = request.MessageID
    # N-GET and its kin name the SOP Class and Instance as "requested", their responses as "affected".
    for name in ("SOPClassUID", "SOPInstanceUID"):
        named = getattr(request, f"Affected{name}", None) or getattr(
            request, f"Requested{name}", None
        )
        if hasattr(response, f"Affected{name}"):
            assign_uid(response, f"Affected{name}", named)
    return response


def _respond(
    assoc: EngineAssociation,
    response: Any,
    context: Any,
    status: int | Dataset,
    identifier: Dataset | None = None,
) -> None:
    """Send one response with the elements of ``status`` and an optional Identifier."""
    if isinstance(status, Dataset):
        response.Status = status.Status
        response.ErrorComment = status.get("ErrorComment")
        offending = status.get("OffendingElement")
        response.OffendingElement = None if offending is None else _as_list(offending)
    else:
        response.Status = int(status)
    for keyword in ("Identifier", "ActionReply"):
        if hasattr(response, keyword):
            setattr(response, keyword, None if identifier is None else _encode(identifier, context))
    assoc.dimse.send_msg(response, context.context_id)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]


def _encode(identifier: Dataset, context: Any) -> BytesIO:
    syntax = context.transfer_syntax[0]
    if not syntax.is_implicit_VR:
        identifier = with_long_lists_as_un(identifier)
    encoded = encode_data_set(
        identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
    )
    if encoded is None:
        raise ValueError("the response Identifier cannot be encoded")
    return BytesIO(encoded)


# C-ECHO and C-STORE


def _serve_one(assoc: EngineAssociation, request: Any, context: Any) -> None:
    event = evt.EVT_C_STORE if isinstance(request, primitives.C_STORE) else evt.EVT_C_ECHO
    try:
        status: Any = evt.trigger(assoc, event, {"request": request, "context": context.as_tuple})
        _code(status)  # raises here if it is none
    except Exception:
        LOGGER.exception("%s: the handler of %s failed", assoc.label, event.name)
        status = status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure")
    if event is evt.EVT_C_STORE and status == Status.SUCCESS:
        assoc.dimse.confirm_store(request, context.context_id)
    else:
        _respond(assoc, _response_to(request), context, status)


# N-ACTION


def _serve_action(assoc: EngineAssociation, request: Any, context: Any) -> None:
    status: Any
    reply: Dataset | None = None
    try:
        attributes = {"request": request, "context": context.as_tuple}
        answer: Any = evt.trigger(assoc, evt.EVT_N_ACTION, attributes)
        status, reply = answer
        _code(status)  # raises here if it is none
    except Exception:
        LOGGER.exception("%s: the N-ACTION handler failed", assoc.label)
        status = status_dataset(Status.PROCESSING_FAILURE, "Processing failure")
    _respond(assoc, _response_to(request), context, status, reply)


# C-FIND


def _trigger(
    assoc: EngineAssociation,
    event: Any,
    request: Any,
    context: Any,
    on_cancel: Callable[[], None] = lambda: None,
) -> Any:
    def is_cancelled(message_id: int) -> bool:
        assoc.poll_peer()
        if assoc.dimse.cancel_req.pop(message_id, None) is None:
            return False
        on_cancel()
        return True

    attributes = {"request": request, "context": context.as_tuple, "_is_cancelled": is_cancelled}
    return evt.trigger(assoc, event, attributes)


def _serve_find(assoc: EngineAssociation, request: Any, context: Any) -> None:
    response = _response_to(request)
    results: Iterator[tuple[int | Dataset, Dataset | None]] = iter(())
    try:
        # A handler that is no generator may already raise here.
        results = iter(_trigger(assoc, evt.EVT_C_FIND, request, context) or ())
        for status, identifier in results:
            if assoc.peer_is_gone:
                return
            if _code(status) not in _PENDING:
                _respond(assoc, response, context, status)
                return
            _respond(assoc, response, context, status, identifier)
    except Exception:
        LOGGER.exception("%s: the C-FIND handler failed", assoc.label)
        _respond(
            assoc,
            _response_to(request),
            context,
            status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure"),
        )
        return
    finally:
        _close(results)
    _respond(assoc, _response_to(request), context, Status.SUCCESS)


def _code(status: int | Dataset) -> int:
    return int(status.Status) if isinstance(status, Dataset) else int(status)


def _close(generator: Any) -> None:
    close = getattr(generator, "close", None)
    if close is not None:
        close()


# C-MOVE and C-GET


def _serve_move(assoc: EngineAssociation, request: Any, context: Any) -> None:
    retrieve = _Retrieve(assoc, request, context, evt.EVT_C_MOVE)
    retrieve.run(with_destination=True)


def _serve_get(assoc: EngineAssociation, request: Any, context: Any) -> None:
    retrieve = _Retrieve(assoc, request, context, evt.EVT_C_GET)
    retrieve.run(with_destination=False)


class _Retrieve:
    """One C-MOVE or C-GET: the handler's generator, the destination and the counters."""

    def __init__(self, assoc: EngineAssociation, request: Any, context: Any, event: Any) -> None:
        self.assoc = assoc
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
            generator = _trigger(self.assoc, self.event, self.request, self.context, self._withdraw)
            assert generator is not None
            address = next(generator) if with_destination else None
            if address is not None and None in address[:2]:
                comment = f"Move Destination {self.request.MoveDestination} is not known"
                self._final(status_dataset(Status.MOVE_DESTINATION_UNKNOWN, comment))
                return
            self.operations = SubOperations(int(next(generator)))
            self.destination = self.assoc.ae.open_destination(self.assoc, self.request, address)
            self._perform(generator)
        except PacsError as error:
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, error.message))
        except Exception:
            LOGGER.exception("%s: the handler of %s failed", self.assoc.label, self.event.name)
            self._final(status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure"))
        finally:
            _close(generator)
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
            if _code(status) != Status.PENDING:
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
        cadence = self.assoc.ae.pending_cadence
        waited = time.monotonic() - self._answered_at
        return self._unreported >= cadence.sub_operations or waited >= cadence.seconds

    def _pending(self) -> None:
        response = _response_to(self.request)
        self._count(response)
        response.NumberOfRemainingSuboperations = min(self.operations.remaining, _MAX_US)
        _respond(self.assoc, response, self.context, Status.PENDING)
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
        response, code = _response_to(self.request), _code(status)
        operations = self.operations
        if code in (
            Status.WARNING_SUB_OPERATIONS,
            Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
            *_NOT_CREATED,
        ):
            operations.fail_remaining()
        elif code == Status.CANCEL:
            response.NumberOfRemainingSuboperations = min(operations.remaining, _MAX_US)
        if code in _COUNTED:
            self._count(response)
            identifier = identifier or failed_list(operations.failed_uids)
        if code == Status.SUCCESS:
            identifier = None
        _respond(self.assoc, response, self.context, status, identifier)

    def _count(self, response: Any) -> None:
        operations = self.operations
        response.NumberOfCompletedSuboperations = min(operations.completed, _MAX_US)
        response.NumberOfFailedSuboperations = min(operations.failed, _MAX_US)
        response.NumberOfWarningSuboperations = min(operations.warning, _MAX_US)


_OPERATIONS: dict[Operation, type[Any]] = {
    Operation.FIND: primitives.C_FIND,
    Operation.MOVE: primitives.C_MOVE,
    Operation.GET: primitives.C_GET,
}
_LOOPS: dict[type[Any], Any] = {
    primitives.C_ECHO: _serve_one,
    primitives.C_STORE: _serve_one,
    primitives.C_FIND: _serve_find,
    primitives.C_MOVE: _serve_move,
    primitives.C_GET: _serve_get,
    primitives.N_ACTION: _serve_action,
}
