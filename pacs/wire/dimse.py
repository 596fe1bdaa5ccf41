"""DIMSE messages in and out of P-DATA, without intermediate PDU objects (PS3.7 6.3, PS3.8 9.3.5 and Annex E)."""

from __future__ import annotations

import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BytesIO
from typing import Any, Protocol

from pydicom import config
from pydicom.uid import UID
from pynetdicom import dimse_primitives as primitives
from pynetdicom.dimse import DIMSEServiceProvider

from pacs.model.associations import AssociationEnding
from pacs.wire import command
from pacs.wire.dul import ProtocolViolation, SynchronousDUL
from pacs.wire.interfaces import Upper
from pacs.wire.transport import Connection, ConnectionLost

LOGGER = logging.getLogger(__name__)

#: Largest command set and largest Identifier or other in-memory data set that is accepted, in bytes. A UID
#: list of 65,535 UIDs is 4.2 MB.
MAX_COMMAND_BYTES = 64 * 1024
MAX_IDENTIFIER_BYTES = 16 * 1024 * 1024
#: So much of a longer one is read and dropped, to answer its request; more is taken for an attack.
MAX_DRAINED_BYTES = 64 * 1024 * 1024
#: Requests that a peer may send ahead of their turn (it negotiated no asynchronous operations).
MAX_QUEUED_MESSAGES = 16
#: What of a message has to come in at least while its receiver waits for it, beyond the DIMSE timeout.
_SLOWEST_BYTES_PER_SECOND = 4096
#: The largest P-DATA PDU we send, whatever the peer allows.
MAX_SENT_PDU_BYTES = 256 * 1024

_RESPONSE = 0x8000
_C_CANCEL = 0x0FFF
_PRIMITIVES: dict[int, type[Any]] = {
    0x0001: primitives.C_STORE,
    0x0010: primitives.C_GET,
    0x0020: primitives.C_FIND,
    0x0021: primitives.C_MOVE,
    0x0030: primitives.C_ECHO,
    0x0100: primitives.N_EVENT_REPORT,
    0x0110: primitives.N_GET,
    0x0120: primitives.N_SET,
    0x0130: primitives.N_ACTION,
    0x0140: primitives.N_CREATE,
    0x0150: primitives.N_DELETE,
    _C_CANCEL: primitives.C_CANCEL,
}
_COMMAND_FIELDS = {cls: field for field, cls in _PRIMITIVES.items()}
#: The parameter that holds the data set, request and response (PS3.7 Tables 9.1-1 to 10.1-6).
_DATA_SET_KEYWORDS: dict[type[Any], tuple[str, str]] = {
    primitives.C_STORE: ("DataSet", "DataSet"),
    primitives.C_GET: ("Identifier", "Identifier"),
    primitives.C_FIND: ("Identifier", "Identifier"),
    primitives.C_MOVE: ("Identifier", "Identifier"),
    primitives.N_EVENT_REPORT: ("EventInformation", "EventReply"),
    primitives.N_GET: ("AttributeList", "AttributeList"),
    primitives.N_SET: ("ModificationList", "AttributeList"),
    primitives.N_ACTION: ("ActionInformation", "ActionReply"),
    primitives.N_CREATE: ("AttributeList", "AttributeList"),
}
#: Where pynetdicom's primitives keep their UIDs: see ``assign_uid``.
_UID_NAMES = {
    "AffectedSOPClassUID": "_affected_sop_class_uid",
    "AffectedSOPInstanceUID": "_affected_sop_instance_uid",
    "RequestedSOPClassUID": "_requested_sop_class_uid",
    "RequestedSOPInstanceUID": "_requested_sop_instance_uid",
}
#: Set in the command layer itself, never on a primitive.
_NOT_PARAMETERS = {"CommandField", "CommandDataSetType"}


class UnknownOperation(primitives.C_ECHO):
    """A request whose Command Field is none of PS3.7 Table E.1-1: all that is known of it has C-ECHO too."""

    command_field = 0


#: The elements of a command set that each primitive has a place for.
_PARAMETERS = {
    kind: frozenset(
        keyword
        for keyword, _ in command.ELEMENTS.values()
        if keyword not in _NOT_PARAMETERS and hasattr(kind(), keyword)
    )
    for kind in (*_PRIMITIVES.values(), UnknownOperation)
}

#: Not in a response (PS3.7 9.3), although pynetdicom's primitives have one class for both.
_REQUEST_PARAMETERS = {"MessageID", "Priority", "MoveDestination"}

_PDV_HEADER = struct.Struct(">IBB")
#: A P-DATA PDU with one PDV item: PDU type, reserved, length; item length, context ID, message control header.
P_DATA_HEADER = struct.Struct(">BBIIBB")
COMMAND_BIT, LAST_BIT = 0x01, 0x02


class DataSetSink(Protocol):
    """Where the data set of a C-STORE request goes while it is received; it never raises."""

    def write(self, fragment: memoryview) -> None:
        """Take the next fragment; it is valid during the call only."""
        ...

    def finish(self) -> None:
        """The last fragment is in."""
        ...

    def discard(self) -> None:
        """The message will never be complete."""
        ...


class _Memory:
    """The sink of an Identifier: a bounded buffer. What is too long is dropped, up to ``drained_bytes``."""

    def __init__(self, drained_bytes: int) -> None:
        self.buffer = BytesIO()
        self.is_oversized = False
        self._most = max(drained_bytes, MAX_IDENTIFIER_BYTES)
        self._received = 0

    def write(self, fragment: memoryview) -> None:
        self._received += len(fragment)
        if self._received > self._most:
            limit = self._most >> 20
            raise ProtocolViolation(f"a data set that is not for storage is over {limit} MiB")
        if self._received <= MAX_IDENTIFIER_BYTES:
            self.buffer.write(fragment)
        elif not self.is_oversized:
            self.is_oversized = True
            self.buffer = BytesIO()

    def finish(self) -> None:
        self.buffer.seek(0)

    def discard(self) -> None:
        self.buffer = BytesIO()


class StreamingDIMSE(DIMSEServiceProvider):
    """Parses P-DATA in place and writes messages straight to the connection."""

    def __init__(self, assoc: Upper, dul: SynchronousDUL) -> None:
        stock: Any = assoc
        super().__init__(stock)
        self._upper = assoc
        self._dul = dul
        #: Makes the sink for a C-STORE request's data set; set by the server. Without one: memory.
        self.open_sink: Callable[[Any, int], DataSetSink] | None = None
        #: Message ID of the request that is being served; set by the association.
        self.serving_message_id: int | None = None
        self._queue: deque[tuple[int, Any]] = deque()
        self._command = bytearray()
        self._context_id: int | None = None
        self._primitive: Any = None
        self._sink: DataSetSink | None = None
        self._max_fragment_bytes = 0
        #: Bytes of messages that were received, but for C-CANCEL requests.
        self._received_bytes = 0
        #: Those of the message that is not complete yet.
        self._message_bytes = 0

    # Receiving

    def receive_pdvs(self, body: memoryview) -> None:
        """Take the presentation data values of one P-DATA PDU.

        Raises:
            ProtocolViolation: the PDU is not a sequence of valid PDV items in message order.
        """
        position, end = 0, len(body)
        if end == 0:
            raise ProtocolViolation("a P-DATA PDU without a PDV item")
        while position < end:
            if end - position < _PDV_HEADER.size:
                raise ProtocolViolation("a PDV item ends inside its header")
            length, context_id, control = _PDV_HEADER.unpack_from(body, position)
            fragment_end = position + 4 + length
            if length < 2 or fragment_end > end:
                raise ProtocolViolation("a PDV item's length does not fit its PDU")
            if context_id not in self.assoc._accepted_cx:
                raise ProtocolViolation(f"presentation context {context_id} was not accepted")
            fragment = body[position + _PDV_HEADER.size : fragment_end]
            self._receive_fragment(context_id, control, fragment)
            position = fragment_end

    def _receive_fragment(self, context_id: int, control: int, fragment: memoryview) -> None:
        if self._context_id is not None and context_id != self._context_id:
            raise ProtocolViolation("fragments of two messages are interleaved")
        is_last = bool(control & LAST_BIT)
        if control & COMMAND_BIT:
            if self._primitive is not None:
                raise ProtocolViolation("a command fragment where data set fragments are due")
            self._context_id = context_id
            self._command += fragment
            self._count(fragment)
            if len(self._command) > MAX_COMMAND_BYTES:
                raise ProtocolViolation("a command set over 64 KiB")
            if is_last:
                self._command_complete(context_id)
            return
        if self._primitive is None or self._sink is None:
            raise ProtocolViolation("a data set fragment without a command set")
        self._sink.write(fragment)
        self._count(fragment)
        if is_last:
            self._sink.finish()
            self._message_complete()

    @staticmethod
    def _is_stored(primitive: Any) -> bool:
        """Whether the data set of a message is an instance; a C-STORE response has none."""
        return not primitive.is_response and isinstance(primitive, primitives.C_STORE)

    def _count(self, fragment: memoryview) -> None:
        self._received_bytes += len(fragment)
        self._message_bytes += len(fragment)

    def _command_complete(self, context_id: int) -> None:
        try:
            values, ill_typed = command.decode(self._command)
        except command.InvalidCommand as error:
            raise ProtocolViolation(str(error)) from error
        self._command = bytearray()
        self._primitive = _to_primitive(values, ill_typed, context_id)
        data_set_type = values.get("CommandDataSetType", command.NO_DATA_SET)
        if data_set_type == command.NO_DATA_SET:
            self._message_complete()
        elif self._is_stored(self._primitive) and self.open_sink is not None:
            self._sink = self.open_sink(self._primitive, context_id)
        else:
            # Nobody waits for an answer to a response, and an instance cut to nothing would be stored.
            is_answered = not self._primitive.is_response
            is_answered &= not isinstance(self._primitive, primitives.C_STORE)
            self._sink = _Memory(MAX_DRAINED_BYTES if is_answered else 0)

    def _message_complete(self) -> None:
        primitive, sink, context_id = self._primitive, self._sink, self._context_id
        assert context_id is not None
        size, self._message_bytes = self._message_bytes, 0
        is_cancel = isinstance(primitive, primitives.C_CANCEL)
        if not is_cancel and len(self._queue) >= MAX_QUEUED_MESSAGES:
            raise ProtocolViolation("more requests at once than were negotiated")
        self._primitive = self._sink = self._context_id = None
        if is_cancel:
            self._received_bytes -= size
            message_id = primitive.MessageIDBeingRespondedTo
            # Of no other operation: what is kept is no longer than the queue, and means no later request.
            if message_id is not None and message_id in self._in_progress():
                self.cancel_req[message_id] = primitive
            return
        if sink is not None:
            _attach_data_set(primitive, sink)
        primitive.is_duplicate = primitive.MessageID in self._in_progress()
        self._queue.append((context_id, primitive))

    def _in_progress(self) -> set[int | None]:
        """The Message IDs of the request being served and of those that wait."""
        return {self.serving_message_id, *(queued.MessageID for _, queued in self._queue)}

    def abandon(self) -> None:
        """The association has ended: drop what was received of an incomplete message."""
        if self._sink is not None:
            self._sink.discard()
        for _, primitive in self._queue:
            sink = getattr(primitive, "received", None)
            if sink is not None:
                sink.discard()
        self._queue.clear()
        self._primitive = self._sink = None

    def has_message(self) -> bool:
        """Whether a complete message waits to be taken."""
        return bool(self._queue)

    def get_msg(self, block: bool = False) -> tuple[Any, Any]:
        """Take the next message; with ``block``, pump until there is one.

        The DIMSE timeout is that of ``take_response``.
        """
        if block and not self._queue:
            self._pump_until(lambda: bool(self._queue))
        return self._queue.popleft() if self._queue else (None, None)

    def take_response(self, message_id: int) -> Any:
        """Wait for the response to ``message_id``, leaving requests of the peer in the queue.

        Returns None when the association ended or the DIMSE timeout passed. A large message on a slow link is not cut
        off: what comes of it extends the time. Nothing else does, or a peer that sends nothing but C-CANCEL requests
        would keep its turn for ever.
        """

        def position() -> int | None:
            return next(
                (
                    number
                    for number, (_, primitive) in enumerate(self._queue)
                    if primitive.MessageIDBeingRespondedTo == message_id
                ),
                None,
            )

        self._pump_until(lambda: position() is not None)
        found = position()
        if found is None:
            return None
        _, primitive = self._queue[found]
        del self._queue[found]
        return primitive

    def _pump_until(self, is_there: Callable[[], bool]) -> None:
        """Take in PDUs until the queue has what is waited for, the association ends, or the time is up."""
        timeout, received = self.dimse_timeout, self._received_bytes
        started = time.monotonic()
        while not is_there() and self._dul.is_established:
            left = None
            if timeout is not None:
                extended = (self._received_bytes - received) / _SLOWEST_BYTES_PER_SECOND
                left = started + timeout + extended - time.monotonic()
            if (left is not None and left <= 0) or not self._dul.pump(left):
                return

    def peek_msg(self) -> tuple[Any, Any]:
        """Return the next message without taking it."""
        return self._queue[0] if self._queue else (None, None)

    # Sending

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message whose data set, if any, is in memory."""
        data = _data_set_of(primitive)
        encoded = command.encode(_to_command(primitive, has_data_set=data is not None))
        size = self.max_fragment_bytes
        buffers = list(p_data(context_id, encoded, COMMAND_BIT, size))
        if data is not None:
            buffers += p_data(context_id, data, 0, size)
        self._send(buffers)

    def confirm_store(self, request: Any, context_id: int) -> None:
        """Send the response with status Success to a C-STORE request (PS3.7 9.3.1.2)."""
        encoded = command.encode(
            {
                "AffectedSOPClassUID": request.AffectedSOPClassUID,
                "CommandField": _COMMAND_FIELDS[primitives.C_STORE] | _RESPONSE,
                "MessageIDBeingRespondedTo": request.MessageID,
                "CommandDataSetType": command.NO_DATA_SET,
                "Status": 0,
                "AffectedSOPInstanceUID": request.AffectedSOPInstanceUID,
            }
        )
        self._send(list(p_data(context_id, encoded, COMMAND_BIT, self.max_fragment_bytes)))

    def send_block(self, block: memoryview) -> None:
        """Send whole P-DATA PDUs, laid out in order."""
        self._write(lambda connection: connection.send_block(block))

    @property
    def max_fragment_bytes(self) -> int:
        """The longest fragment that the peer takes, in bytes."""
        if self._max_fragment_bytes:
            return self._max_fragment_bytes
        # The maximum length counts the PDV item: its length field and its two header bytes (PS3.8 D.1).
        # Zero is no limit; fragments have an even length (PS3.8 E.2 by way of PS3.5 7.1.1).
        limit = self.maximum_pdu_size or MAX_SENT_PDU_BYTES
        size = max(2, (min(limit, MAX_SENT_PDU_BYTES) - _PDV_HEADER.size) & ~1)
        if self.assoc.is_established:
            self._max_fragment_bytes = size
        return size

    @property
    def maximum_pdu_size(self) -> int:
        """The peer's maximum PDU length in bytes; zero, or a peer that names none, is no limit."""
        return super().maximum_pdu_size or 0

    def _send(self, buffers: list[bytes | memoryview]) -> None:
        self._write(lambda connection: connection.send_gathered(buffers))

    def _write(self, write: Callable[[Connection], None]) -> None:
        dul = self._dul
        if not dul.is_established or dul.socket is None:
            return  # the association has ended; whoever waits for an answer finds out there
        try:
            write(dul.socket)
        except (ConnectionLost, TimeoutError) as error:
            LOGGER.warning("%s: cannot send: %s", self._upper.label, error)
            if isinstance(error, TimeoutError):
                self._upper.history.conclude(AssociationEnding.TIMED_OUT, str(error))
            dul.connection_lost()


def p_data(
    context_id: int, data: bytes | memoryview, control: int, fragment_bytes: int
) -> Iterator[bytes | memoryview]:
    """A command set or data set as P-DATA PDUs of one PDV each: header, fragment, header, fragment ..."""
    view = memoryview(data)
    for begin in range(0, len(view) or 1, fragment_bytes):
        fragment = view[begin : begin + fragment_bytes]
        is_last = LAST_BIT if begin + fragment_bytes >= len(view) else 0
        length = len(fragment)
        yield P_DATA_HEADER.pack(4, 0, length + 6, length + 2, context_id, control | is_last)
        yield fragment


def assign_uid(primitive: Any, keyword: str, value: str | None) -> None:
    """Set a UID of a primitive as it is; the setter warns of each one with a leading zero, which are common."""
    setattr(primitive, _UID_NAMES[keyword], _uid(value) if value else None)


@lru_cache(maxsize=1024)
def _uid(value: str) -> UID:
    return UID(value, validation_mode=config.IGNORE)


def _to_primitive(
    values: dict[str, command.CommandValue], ill_typed: tuple[str, ...], context_id: int
) -> Any:
    """Make pynetdicom's primitive; what it does not accept is noted in ``ill_typed`` (status 0x0212)."""
    field = values.get("CommandField")
    if not isinstance(field, int):
        raise ProtocolViolation("a command set without a command field")
    if field & ~_RESPONSE in _PRIMITIVES:
        primitive = _PRIMITIVES[field & ~_RESPONSE]()
    elif field & _RESPONSE:  # to nothing that we asked for, and not to be answered
        raise ProtocolViolation(f"no DIMSE service has command field {field:04X}")
    else:
        primitive = UnknownOperation()
        primitive.command_field = field
    problems = list(ill_typed)
    parameters = _PARAMETERS[type(primitive)]
    for keyword, value in values.items():
        if keyword not in parameters:
            continue
        try:
            if keyword in _UID_NAMES:
                assign_uid(primitive, keyword, str(value))
            else:
                setattr(primitive, keyword, list(value) if isinstance(value, tuple) else value)
        except (ValueError, TypeError, AttributeError):
            problems.append(keyword)
    is_response = bool(field & _RESPONSE)
    if not is_response and not isinstance(primitive, primitives.C_CANCEL):
        primitive.MessageIDBeingRespondedTo = None  # a request that carries one is still a request
    primitive.ill_typed = tuple(problems)
    primitive.is_response = is_response
    primitive.is_oversized = False
    primitive._context_id = context_id
    return primitive


def _attach_data_set(primitive: Any, sink: DataSetSink) -> None:
    if not isinstance(sink, _Memory):
        primitive.received = sink
        return
    keywords = _DATA_SET_KEYWORDS.get(type(primitive))
    if keywords is not None:
        setattr(primitive, keywords[primitive.is_response], sink.buffer)
    primitive.is_oversized = sink.is_oversized


def _data_set_of(primitive: Any) -> bytes | memoryview | None:
    keywords = _DATA_SET_KEYWORDS.get(type(primitive))
    if keywords is None:
        return None
    is_response = primitive.MessageIDBeingRespondedTo is not None
    data = getattr(primitive, keywords[is_response], None)
    if data is None or not data.getbuffer().nbytes:
        return None
    view: memoryview = data.getbuffer()
    return view


def _to_command(primitive: Any, *, has_data_set: bool) -> dict[str, command.CommandValue | None]:
    is_cancel = isinstance(primitive, primitives.C_CANCEL)
    is_response = primitive.MessageIDBeingRespondedTo is not None and not is_cancel
    operation = getattr(primitive, "command_field", None) or _COMMAND_FIELDS[type(primitive)]
    field = operation | (_RESPONSE if is_response else 0)
    values: dict[str, command.CommandValue | None] = {
        "CommandField": field,
        "CommandDataSetType": command.HAS_DATA_SET if has_data_set else command.NO_DATA_SET,
    }
    for element, _ in command.ELEMENTS.values():
        value = getattr(primitive, element, None)
        if element in _NOT_PARAMETERS or value is None:
            continue
        if is_response and element in _REQUEST_PARAMETERS:
            continue
        values[element] = tuple(int(tag) for tag in _as_list(value)) if _is_at(element) else value
    return values


def _is_at(keyword: str) -> bool:
    return keyword in ("OffendingElement", "AttributeIdentifierList")


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
