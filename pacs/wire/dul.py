"""The Upper Layer service provider without a thread of its own (PS3.8 9.2).

The association's thread *pumps*: it waits for one PDU, gives P-DATA to the DIMSE provider in place and
everything else to pynetdicom's state machine, then lets the state machine settle. Whatever the local user
sends is processed at once, in the same call.
"""

from __future__ import annotations

import logging
import queue
import time
from copy import copy
from functools import lru_cache
from typing import Any

from pynetdicom import evt
from pynetdicom.dul import _PDU_TYPES, DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from pacs.model.associations import AssociationEnding
from pacs.wire.associate_items import Refusal, of_this_edition, readable
from pacs.wire.interfaces import Upper
from pacs.wire.transport import P_DATA_TF, Connection, ConnectionLost, OversizedPDU

LOGGER = logging.getLogger(__name__)

_ESTABLISHED = "Sta6"
_RELEASE_REQUESTED = "Sta7"
_AWAITING_CLOSE = "Sta13"
_TRANSPORT_CLOSED = "Evt17"
_INVALID_PDU = "Evt19"
#: PDU types that pynetdicom decodes: A-ASSOCIATE-RQ/AC/RJ, P-DATA, A-RELEASE-RQ/RP, A-ABORT.
_KNOWN_PDU_TYPES = range(0x01, 0x08)
_ASSOCIATE_RQ = 0x01
_ASSOCIATE_PDUS = (_ASSOCIATE_RQ, 0x02)
#: The longest A-ASSOCIATE-RQ PDU that is remembered: about 128 presentation contexts of one transfer syntax.
_REMEMBERED_BYTES = 16 * 1024
#: How much longer a P-DATA PDU may be than what we announced before it is refused. Some peers count the
#: six bytes of the PDU header, or the PDV header, as not part of the maximum length.
_P_DATA_TOLERANCE_BYTES = 64
#: The limit that we keep to when we have announced none.
_UNLIMITED_BYTES = 1 << 20


class ProtocolViolation(ValueError):
    """The peer sent a PDU whose content breaks PS3.8; the association is aborted."""


class SynchronousDUL(DULServiceProvider):
    """A DUL service provider that runs in its association's thread."""

    socket: Connection | None
    _max_p_data_bytes = 0

    def __init__(self, assoc: Upper) -> None:
        stock: Any = assoc
        super().__init__(stock)
        self._upper = assoc
        #: Why the association that the peer asks for is to be rejected, whoever it is.
        self.refusal: Refusal | None = None

    def start(self) -> None:
        """Start without a thread."""
        self.assoc._dul_ready.set()

    def is_alive(self) -> bool:
        """There is no thread to wait for."""
        return False

    @property
    def is_connected(self) -> bool:
        """Whether the transport connection is still there."""
        sock = None if self.socket is None else self.socket.socket
        # Some actions of the state machine close the socket and leave it in place.
        return sock is not None and sock.fileno() >= 0

    @property
    def _may_receive(self) -> bool:
        # After an abort or rejection whatever still comes is of no interest, and may be endless.
        return self.is_connected and self.state_machine.current_state != _AWAITING_CLOSE

    @property
    def is_established(self) -> bool:
        """Whether P-DATA may be sent and received (state 6)."""
        return bool(self.state_machine.current_state == _ESTABLISHED)

    def send_pdu(self, primitive: Any) -> None:
        """Send a primitive's PDU now."""
        self._upper.history.sent(primitive)
        super().send_pdu(primitive)
        self.settle()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:
        """Return the next ACSE primitive; with ``wait``, pump until there can be none or the time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while wait and self.to_user_queue.empty() and self._may_receive:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                break
            self.pump(remaining)
        return super().receive_pdu(wait=False)

    def settle(self) -> None:
        """Run the state machine until nothing is queued."""
        was_established = self.is_established
        self._run_state_machine()
        state = self.state_machine.current_state
        if was_established and state not in (_ESTABLISHED, _RELEASE_REQUESTED):
            self._upper.on_no_longer_established()

    def _run_state_machine(self) -> None:
        while True:
            try:
                event = self.event_queue.get_nowait()
            except queue.Empty:
                if not self._process_recv_primitive():
                    return
                continue
            self._act(event)

    def _act(self, event: str) -> None:
        if (event, self.state_machine.current_state) in TRANSITION_TABLE:
            self.state_machine.do_action(event)
        elif not self.to_provider_queue.empty():
            # The local user asked for what its state does not allow (an abort after the peer is gone, for
            # one): drop the primitive, or it would be found again for ever.
            self.to_provider_queue.get_nowait()

    def pump(self, timeout_seconds: float | None) -> bool:
        """Process one PDU; False if none came in the time. A broken connection counts as an event."""
        if self.event_queue.queue or self.to_provider_queue.queue:
            self.settle()
        if self.socket is None or not self.is_connected:
            return False
        try:
            if not self.socket.wait_readable(timeout_seconds):
                return False
            pdu_type, body = self.socket.read_pdu(self._longest_p_data())
        except ConnectionLost:
            self._upper.on_connection_lost()
            self.connection_lost()
            return True
        except (TimeoutError, OversizedPDU) as error:
            LOGGER.warning("%s: %s; aborting", self._upper.label, error)
            is_late = isinstance(error, TimeoutError)
            ending = AssociationEnding.TIMED_OUT if is_late else AssociationEnding.ABORTED
            self._invalid(str(error), ending)
            return True
        self._dispatch(pdu_type, body)
        return True

    def _longest_p_data(self) -> int:
        if not self._max_p_data_bytes:
            announced = self._upper.local_maximum_length or _UNLIMITED_BYTES
            if not self.is_established:
                return announced + _P_DATA_TOLERANCE_BYTES
            # Found through ten properties, and the same from now on.
            self._max_p_data_bytes = announced + _P_DATA_TOLERANCE_BYTES
        return self._max_p_data_bytes

    def _dispatch(self, pdu_type: int, body: memoryview) -> None:
        state = self.state_machine.current_state
        if pdu_type == P_DATA_TF and state == _ESTABLISHED:
            try:
                self._upper.dimse.receive_pdvs(body)
            except ProtocolViolation as error:
                LOGGER.warning("%s: %s; aborting", self._upper.label, error)
                self._invalid(str(error))
            return
        if pdu_type == P_DATA_TF and state == _RELEASE_REQUESTED:
            return  # PS3.8 7.2.2.4: data that crosses our release request is of no interest any more
        self._dispatch_acse(pdu_type, body)
        self.settle()

    def _dispatch_acse(self, pdu_type: int, body: memoryview) -> None:
        if pdu_type not in _KNOWN_PDU_TYPES:
            LOGGER.warning("%s: unknown PDU type %#04x; aborting", self._upper.label, pdu_type)
            self._queue_invalid(f"unknown PDU type {pdu_type:#04x}")
            return
        try:
            content = bytes(body)
            if pdu_type == _ASSOCIATE_RQ:
                content, self.refusal = readable(content)
            if pdu_type in _ASSOCIATE_PDUS:
                content = of_this_edition(content)
            encoded = bytes((pdu_type, 0)) + len(content).to_bytes(4, "big") + content
            pdu, event = self._decode(encoded)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises on hostile bytes
            LOGGER.warning(
                "%s: cannot decode PDU type %#04x: %r", self._upper.label, pdu_type, error
            )
            self._queue_invalid(f"a PDU of type {pdu_type:#04x} that cannot be decoded")
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _decode(self, encoded: bytes) -> tuple[Any, str]:
        if encoded[0] == _ASSOCIATE_RQ and len(encoded) <= _REMEMBERED_BYTES:
            evt.trigger(self.assoc, evt.EVT_DATA_RECV, {"data": encoded})
            pdu, primitive, event = _remembered_request(encoded)
            # The state machine writes to the primitive when it rejects; the items of both are only read.
            pdu, primitive = copy(pdu), copy(primitive)
            primitive.user_information = list(primitive.user_information)
            evt.trigger(self.assoc, evt.EVT_PDU_RECV, {"pdu": pdu})
        else:
            pdu, event = self._decode_pdu(bytearray(encoded))
            # The state machine will do that; there is no way back if it fails.
            primitive = pdu.to_primitive()
            _check(primitive)
        # The state machine asks for it again, and making it takes as long as the decoding.
        pdu.to_primitive = lambda: primitive
        return pdu, event

    def _invalid(self, why: str, ending: AssociationEnding = AssociationEnding.ABORTED) -> None:
        self._queue_invalid(why, ending)
        self.settle()

    def _queue_invalid(
        self, why: str, ending: AssociationEnding = AssociationEnding.ABORTED
    ) -> None:
        self._upper.history.conclude(ending, why, (2, 0))
        self.event_queue.put(_INVALID_PDU)

    def connection_lost(self) -> None:
        """The transport is gone: close our side and tell the state machine."""
        self._upper.history.conclude(AssociationEnding.CONNECTION_LOST)
        if self.socket is not None:
            self.socket.close()  # queues the event itself
        if self.event_queue.empty():
            self.event_queue.put(_TRANSPORT_CLOSED)
        self.settle()

    def close(self, linger_seconds: float) -> None:
        """End the transport connection: the peer may close first, if it is its turn (PS3.8 9.1.5, ARTIM)."""
        if self.socket is None or not self.is_connected:
            return
        if self.state_machine.current_state == _AWAITING_CLOSE:
            self.socket.drain(linger_seconds)
        self.socket.close()


@lru_cache(maxsize=64)
def _remembered_request(encoded: bytes) -> tuple[Any, Any, str]:
    """An A-ASSOCIATE-RQ PDU, its primitive and its event: a peer that comes again proposes the same.

    Decoding one takes half a millisecond, half of all that opening an association takes.
    """
    kind, event = _PDU_TYPES[encoded[:1]]
    pdu: Any = kind()
    pdu.decode(encoded)
    primitive = pdu.to_primitive()
    _check(primitive)
    return pdu, primitive, event


def _check(primitive: Any) -> None:
    """Refuse what pynetdicom decodes and then stumbles over.

    Raises:
        ProtocolViolation: a proposed presentation context lacks a syntax (PS3.8 9.3.2.2).
    """
    if not isinstance(primitive, A_ASSOCIATE) or primitive.result is not None:
        return
    for context in primitive.presentation_context_definition_list:
        if context.abstract_syntax is None or not context.transfer_syntax:
            raise ProtocolViolation(f"presentation context {context.context_id} lacks a syntax")
