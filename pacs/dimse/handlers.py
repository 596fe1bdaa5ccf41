"""From a request to the handler bound to its event, and from what the handler says to a response message."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode as encode_data_set

from pacs.wire.dimse import UnknownOperation, assign_uid
from pacs.wire.interfaces import Served

_PENDING = (0xFF00, 0xFF01)


def trigger(assoc: Served, event: Any, request: Any, context: Any) -> Any:
    """Call the handler of a request that can be cancelled."""
    attributes = {
        "request": request,
        "context": context.as_tuple,
        "_is_cancelled": partial(is_cancelled, assoc),
    }
    return assoc.trigger(event, attributes)


def is_cancelled(assoc: Served, message_id: int) -> bool:
    """Whether the peer has cancelled an operation; true once."""
    assoc.poll_peer()
    return assoc.dimse.cancel_req.pop(message_id, None) is not None


def response_to(request: Any) -> Any:
    """The response message to a request, without a status."""
    response = type(request)()
    response.MessageIDBeingRespondedTo = request.MessageID
    if isinstance(request, UnknownOperation):
        response.command_field = request.command_field
    # N-GET and its kin name the SOP Class and Instance as "requested", their responses as "affected".
    for name in ("SOPClassUID", "SOPInstanceUID"):
        named = getattr(request, f"Affected{name}", None) or getattr(
            request, f"Requested{name}", None
        )
        if hasattr(response, f"Affected{name}"):
            assign_uid(response, f"Affected{name}", named)
    return response


def respond(
    assoc: Served,
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
    if response.Status in _PENDING:
        assoc.history.pending += 1
    else:
        assoc.history.answered(response, context)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]


def _encode(identifier: Dataset, context: Any) -> BytesIO:
    syntax = context.transfer_syntax[0]
    encoded = encode_data_set(
        identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
    )
    if encoded is None:
        raise ValueError("the response Identifier cannot be encoded")
    return BytesIO(encoded)


def code_of(status: int | Dataset) -> int:
    """The number of a status in either form that a handler may give it."""
    return int(status.Status) if isinstance(status, Dataset) else int(status)


def close(results: Any) -> None:
    """End what a handler returned, if it is a generator."""
    end = getattr(results, "close", None)
    if end is not None:
        end()
