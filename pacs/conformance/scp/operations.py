"""DIMSE operations as an SCU that follows the Standard: what the checks build on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydicom import config
from pydicom.dataset import Dataset

from pacs.conformance.wire.association import Association, NegotiatedContext
from pacs.conformance.wire.message import (
    CommandField,
    Message,
    cancel,
    encode_data_set,
    request,
    response,
)
from pacs.dicom.information_model import Operation
from pacs.dicom.levels import Level

PENDING_STATUSES = (0xFF00, 0xFF01)
_FIELDS = {
    Operation.FIND: CommandField.C_FIND_RQ,
    Operation.MOVE: CommandField.C_MOVE_RQ,
    Operation.GET: CommandField.C_GET_RQ,
}
#: More responses than any check asks for: an SCP that never ends would keep the tool for ever.
_MOST_RESPONSES = 100_000


class TooManyResponses(Exception):
    """An SCP sends responses without end."""


def identifier(level: Level | str, keys: Mapping[str, object]) -> Dataset:
    """The Identifier of a query or retrieve: Query/Retrieve Level and keys by keyword; None is a zero length."""
    data_set = Dataset()
    data_set.QueryRetrieveLevel = level if isinstance(level, str) else level.name
    with config.disable_value_validation():  # what is asked for may be what a check is about
        for keyword, value in keys.items():
            setattr(data_set, keyword, value)
    return data_set


def echo(association: Association, context: NegotiatedContext) -> Message:
    """C-ECHO: the response (PS3.7 9.1.5)."""
    message_id = association.next_message_id()
    association.send(
        request(CommandField.C_ECHO_RQ, context.context_id, message_id, context.abstract_syntax)
    )
    return association.receive()


def store(
    association: Association, context: NegotiatedContext, instance: Dataset, **elements: str | int
) -> Message:
    """C-STORE of an instance, encoded in the context's transfer syntax: the response (PS3.7 9.1.1)."""
    association.send(
        request(
            CommandField.C_STORE_RQ,
            context.context_id,
            association.next_message_id(),
            str(instance.SOPClassUID),
            encode_data_set(instance, context.transfer_syntax),
            **{"AffectedSOPInstanceUID": str(instance.SOPInstanceUID)} | elements,
        )
    )
    return association.receive()


def start(
    association: Association,
    context: NegotiatedContext,
    operation: Operation,
    asked: Dataset,
    **elements: str | int,
) -> int:
    """Send a C-FIND, C-MOVE or C-GET request; its Message ID."""
    message_id = association.next_message_id()
    association.send(
        request(
            _FIELDS[operation],
            context.context_id,
            message_id,
            context.abstract_syntax,
            encode_data_set(asked, context.transfer_syntax),
            **elements,
        )
    )
    return message_id


def responses(
    association: Association,
    *,
    on_store: Callable[[Message], int | None] = lambda _: 0x0000,
    on_response: Callable[[Message], None] = lambda _: None,
) -> list[Message]:
    """The responses up to the final one.

    C-STORE requests of a C-GET are answered with ``on_store``'s status, or with an abort where it has none.

    Raises:
        AssociationEnded: it ended before the final response.
        TooManyResponses: there was none in 100,000.
    """
    received: list[Message] = []
    while len(received) < _MOST_RESPONSES:
        message = association.receive()
        if message.command.get("CommandField") == CommandField.C_STORE_RQ:
            status = on_store(message)
            if status is None:
                association.abort()
            else:
                association.send(response(message, status))
            continue
        received.append(message)
        on_response(message)
        if message.status not in PENDING_STATUSES:
            return received
    raise TooManyResponses(f"no final response in {_MOST_RESPONSES}")


def find(
    association: Association,
    context: NegotiatedContext,
    level: Level | str,
    keys: Mapping[str, object],
) -> list[Message]:
    """C-FIND: all responses, the final one last."""
    start(association, context, Operation.FIND, identifier(level, keys))
    return responses(association)


def matches(
    association: Association,
    context: NegotiatedContext,
    level: Level | str,
    keys: Mapping[str, object],
) -> list[Dataset]:
    """C-FIND: the Identifiers of the pending responses."""
    return [
        message.data_set(context.transfer_syntax)
        for message in find(association, context, level, keys)
        if message.status in PENDING_STATUSES
    ]


def some_matches(
    association: Association,
    context: NegotiatedContext,
    level: Level | str,
    keys: Mapping[str, object],
    most: int,
) -> list[Dataset]:
    """C-FIND, cancelled as soon as that many Identifiers have come: at most that many of them."""
    message_id = start(association, context, Operation.FIND, identifier(level, keys))
    came = 0

    def stop_in_time(_response: Message) -> None:
        nonlocal came
        came += 1
        if came == most:
            association.send(cancel(context.context_id, message_id))

    received = responses(association, on_response=stop_in_time)
    return [
        message.data_set(context.transfer_syntax)
        for message in received[:most]
        if message.status in PENDING_STATUSES
    ]
