"""The service loops: a request, the handler bound to its event, the responses (PS3.7 9.1, 10.1).

Handlers follow pynetdicom's documented contract; ``retrieve_responses`` says how those of C-MOVE and C-GET differ.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pynetdicom import dimse_primitives as primitives
from pynetdicom import evt

from pacs.dicom import storage_commitment
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES, Operation
from pacs.dimse.errands import Errands
from pacs.dimse.find_responses import EncodedIdentifier, FindResponses
from pacs.dimse.handlers import close, code_of, respond, response_to, trigger
from pacs.dimse.negotiation import VERIFICATION
from pacs.dimse.retrieve_responses import Retrieve, RetrieveOptions
from pacs.dimse.status import Status, status_dataset
from pacs.model.associations import AssociationEnding
from pacs.wire.dimse import UnknownOperation
from pacs.wire.interfaces import Served

LOGGER = logging.getLogger(__name__)

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


class AcceptorServices:
    """The services of one association that a peer requested (``pacs.wire.interfaces.Services``)."""

    def __init__(self, assoc: Served, retrieving: RetrieveOptions) -> None:
        self._assoc = assoc
        self._retrieving = retrieving
        #: What is done for the peer after its request was answered.
        self.errands = Errands(assoc)

    def serve(self, request: Any, context: Any) -> None:
        """Serve one message: a request, or the response to a request of ours."""
        assoc = self._assoc
        if request.is_response:
            if self.errands.take_response(request):
                return
            name = type(request).__name__
            LOGGER.warning("%s: unexpected %s response ignored", assoc.label, name)
            _discard_received(request)
            return
        if request.MessageID is None:
            name = type(request).__name__
            LOGGER.warning("%s: %s without Message ID; aborting", assoc.label, name)
            assoc.history.conclude(
                AssociationEnding.ABORTED, "a request without Message ID", (0, 0)
            )
            _discard_received(request)
            assoc.abort()
            return
        problem = _problem_of(request, context)
        if problem is None:
            self._operate(request, context)
            return
        _discard_received(request)
        LOGGER.warning(
            "%s: %s answered %04X: %s",
            assoc.label,
            _name_of(request),
            int(problem.Status),
            problem.ErrorComment,
        )
        respond(assoc, response_to(request), context, problem)

    def _operate(self, request: Any, context: Any) -> None:
        event = _RETRIEVES.get(type(request))
        if event is None:
            _LOOPS[type(request)](self._assoc, request, context)
        else:
            Retrieve(self._assoc, request, context, event, self._retrieving).run()

    def step(self) -> bool:
        """Do a piece of an errand; False if there is nothing to do now."""
        return self.errands.step()

    @property
    def seconds_left(self) -> float | None:
        """How long to wait for a response to an errand's request, from now; None if none is awaited."""
        return self.errands.seconds_left

    def close(self) -> None:
        """The association has ended: so do its errands."""
        self.errands.close()


def _problem_of(request: Any, context: Any) -> Dataset | None:
    """What the command set itself breaks, before any handler sees it (PS3.7 C.5)."""
    if request.is_duplicate:
        return status_dataset(
            Status.DUPLICATE_INVOCATION, "The Message ID is that of an operation in progress"
        )
    if type(request) is not _operation_of(str(context.abstract_syntax)):
        return status_dataset(
            Status.UNRECOGNISED_OPERATION, f"{_name_of(request)} is no operation of this SOP Class"
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


def _name_of(request: Any) -> str:
    if isinstance(request, UnknownOperation):
        return f"Command Field {request.command_field:04X}"
    return type(request).__name__.replace("_", "-")


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


# C-ECHO and C-STORE


def _serve_one(assoc: Served, request: Any, context: Any) -> None:
    event = evt.EVT_C_STORE if isinstance(request, primitives.C_STORE) else evt.EVT_C_ECHO
    try:
        status: Any = assoc.trigger(event, {"request": request, "context": context.as_tuple})
        code_of(status)  # raises here if it is none
    except Exception:
        LOGGER.exception("%s: the handler of %s failed", assoc.label, event.name)
        status = status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure")
    if event is evt.EVT_C_STORE and status == Status.SUCCESS:
        assoc.dimse.confirm_store(request, context.context_id)
        stored = assoc.history.stored
        stored[context.context_id] = stored.get(context.context_id, 0) + 1
    else:
        respond(assoc, response_to(request), context, status)


# N-ACTION


def _serve_action(assoc: Served, request: Any, context: Any) -> None:
    status: Any
    reply: Dataset | None = None
    try:
        attributes = {"request": request, "context": context.as_tuple}
        answer: Any = assoc.trigger(evt.EVT_N_ACTION, attributes)
        status, reply = answer
        code_of(status)  # raises here if it is none
    except Exception:
        LOGGER.exception("%s: the N-ACTION handler failed", assoc.label)
        status = status_dataset(Status.PROCESSING_FAILURE, "Processing failure")
    respond(assoc, response_to(request), context, status, reply)


# C-FIND


def _serve_find(assoc: Served, request: Any, context: Any) -> None:
    response = response_to(request)
    encoded = FindResponses(assoc, request, context)
    results: Iterator[tuple[int | Dataset, Dataset | EncodedIdentifier | None]] = iter(())
    try:
        # A handler that is no generator may already raise here.
        results = iter(trigger(assoc, evt.EVT_C_FIND, request, context) or ())
        for status, identifier in results:
            if assoc.peer_is_gone:
                return
            if isinstance(identifier, EncodedIdentifier):
                encoded.add(code_of(status), identifier)
                continue
            encoded.flush()
            if code_of(status) not in _PENDING:
                respond(assoc, response, context, status)
                return
            respond(assoc, response, context, status, identifier)
        encoded.flush()
    except Exception:
        LOGGER.exception("%s: the C-FIND handler failed", assoc.label)
        encoded.flush()
        respond(
            assoc,
            response_to(request),
            context,
            status_dataset(Status.UNABLE_TO_PROCESS, "Processing failure"),
        )
        return
    finally:
        close(results)
    respond(assoc, response_to(request), context, Status.SUCCESS)


_OPERATIONS: dict[Operation, type[Any]] = {
    Operation.FIND: primitives.C_FIND,
    Operation.MOVE: primitives.C_MOVE,
    Operation.GET: primitives.C_GET,
}
_LOOPS: dict[type[Any], Any] = {
    primitives.C_ECHO: _serve_one,
    primitives.C_STORE: _serve_one,
    primitives.C_FIND: _serve_find,
    primitives.N_ACTION: _serve_action,
}
_RETRIEVES: dict[type[Any], Any] = {
    primitives.C_MOVE: evt.EVT_C_MOVE,
    primitives.C_GET: evt.EVT_C_GET,
}
