"""An association as a blocking object: whole messages, single PDUs or bare bytes, all of them recorded."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.command import NO_DATA_SET
from pacs.conformance.wire.message import Message, decode_command, fragments
from pacs.conformance.wire.trace import Trace, rejection

#: The longest PDU that is read, whatever its header says.
_LONGEST_PDU_BYTES = 64 << 20


class AssociationEnded(Exception):
    """There is no association (any more): the subclass says why."""


class Rejected(AssociationEnded):
    """The acceptor answered with A-ASSOCIATE-RJ."""

    def __init__(self, reject: pdus.AssociateReject) -> None:
        super().__init__(f"the association was rejected: {rejection(reject)}")
        self.reject = reject


class Aborted(AssociationEnded):
    """The peer sent A-ABORT."""

    def __init__(self, abort: pdus.Abort) -> None:
        super().__init__(f"the peer aborted (source {abort.source}, reason {abort.reason})")
        self.abort = abort


class Released(AssociationEnded):
    """The peer asked for release while a message was awaited; it has been answered."""


class ConnectionClosed(AssociationEnded):
    """The transport connection could not be opened, or ended."""


class Unreachable(ConnectionClosed):
    """Nobody accepts the transport connection."""


class NoAnswer(AssociationEnded):
    """Nothing came in the time allowed; the association may still be there."""


class UnexpectedPDU(AssociationEnded):
    """A PDU came that PS3.8 9.2 does not allow in this state, or that is malformed."""


@dataclass(frozen=True)
class NegotiatedContext:
    """A presentation context that was accepted."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


class Association:
    """One association, as requestor (``request``) or as acceptor (``receive_request``, then ``accept``)."""

    def __init__(self, sock: socket.socket, trace: Trace, timeout_seconds: float) -> None:
        self.socket = sock
        self.trace = trace
        self.timeout_seconds = timeout_seconds
        self.contexts: dict[int, NegotiatedContext] = {}
        self.peer_maximum_length = 0
        self.requested: pdus.AssociateRequest | None = None
        self.accepted: pdus.AssociateAccept | None = None
        self.is_open = False
        #: Whether A-RELEASE-RQ is answered when it comes while a message is awaited.
        self.answers_release = True
        #: The longest variable field of a P-DATA-TF PDU that came, in bytes.
        self.longest_p_data = 0
        self._buffer = bytearray()
        self._values: list[pdus.PDV] = []
        self._message_id = 0
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Establishing

    @classmethod
    def connect(cls, address: tuple[str, int], trace: Trace, timeout_seconds: float) -> Self:
        """Open the transport connection.

        Raises:
            Unreachable: nobody accepts it.
        """
        try:
            sock = socket.create_connection(address, timeout_seconds)
        except OSError as error:
            trace.event(f"no connection to {address[0]}:{address[1]}: {error}")
            raise Unreachable(f"cannot connect to {address[0]}:{address[1]}: {error}") from error
        except UnicodeError as error:  # of the encoding of names (IDNA)
            raise Unreachable(
                f"cannot connect: no host can have that name: {address[0]}"
            ) from error
        return cls(sock, trace, timeout_seconds)

    def request(self, proposed: pdus.AssociateRequest) -> pdus.AssociateAccept:
        """Send A-ASSOCIATE-RQ and wait for the answer (PS3.8 7.1).

        Raises:
            AssociationEnded: the peer rejects, aborts, is silent or answers with something else.
        """
        self.requested = proposed
        self.send_pdu(proposed)
        answer = self.receive_pdu()
        match answer:
            case pdus.AssociateAccept():
                self._establish(proposed, answer)
                self.peer_maximum_length = answer.maximum_length
                return answer
            case pdus.AssociateReject():
                self.close()
                raise Rejected(answer)
            case pdus.Abort():
                self.close()
                raise Aborted(answer)
            case _:
                raise UnexpectedPDU(
                    f"A-ASSOCIATE-RQ was answered with PDU type {answer.pdu_type:#04x}"
                )

    def receive_request(self) -> pdus.AssociateRequest:
        """Wait for A-ASSOCIATE-RQ.

        Raises:
            AssociationEnded: something else came, or nothing.
        """
        asked = self.receive_pdu()
        if not isinstance(asked, pdus.AssociateRequest):
            raise UnexpectedPDU(f"PDU type {asked.pdu_type:#04x} came instead of A-ASSOCIATE-RQ")
        self.requested = asked
        self.peer_maximum_length = asked.maximum_length
        return asked

    def accept(self, answer: pdus.AssociateAccept) -> None:
        """Send A-ASSOCIATE-AC to the request received."""
        assert self.requested is not None
        self.send_pdu(answer)
        self._establish(self.requested, answer)

    def _establish(self, asked: pdus.AssociateRequest, answer: pdus.AssociateAccept) -> None:
        self.accepted = answer
        abstract = {one.context_id: one.abstract_syntax for one in asked.contexts}
        self.contexts = {
            one.context_id: NegotiatedContext(
                one.context_id, abstract[one.context_id], one.transfer_syntax
            )
            for one in answer.contexts
            if one.result == pdus.ACCEPTANCE and one.context_id in abstract
        }
        self.is_open = True

    def context_for(self, abstract_syntax: str) -> NegotiatedContext | None:
        """The first accepted presentation context of an abstract syntax."""
        return next(
            (one for one in self.contexts.values() if one.abstract_syntax == abstract_syntax), None
        )

    def context_with(self, abstract_syntax: str, transfer_syntax: str) -> NegotiatedContext | None:
        """The first accepted presentation context of an abstract syntax in one transfer syntax."""
        wanted = (abstract_syntax, transfer_syntax)
        return next(
            (
                one
                for one in self.contexts.values()
                if (one.abstract_syntax, one.transfer_syntax) == wanted
            ),
            None,
        )

    def transfer_syntax_of(self, context_id: int) -> str:
        """The transfer syntax negotiated for a context; empty for one that was not accepted."""
        context = self.contexts.get(context_id)
        return context.transfer_syntax if context is not None else ""

    def next_message_id(self) -> int:
        """A Message ID that was not used on this association (1 to 65535, then again)."""
        self._message_id = self._message_id % 0xFFFF + 1
        return self._message_id

    # Sending

    def send(self, message: Message) -> None:
        """Send a message, in P-DATA PDUs of one PDV each that the peer's maximum length allows.

        Raises:
            ConnectionClosed: the connection is gone.
        """
        self.trace.message("sent", message, self.transfer_syntax_of(message.context_id))
        pieces = fragments(message, self.peer_maximum_length)
        self.send_bytes(b"".join(pdus.encode(pdus.PData((piece,))) for piece in pieces))

    def send_pdu(self, pdu: pdus.PDU) -> None:
        """Send one PDU.

        Raises:
            ConnectionClosed: the connection is gone.
        """
        self.trace.pdu("sent", pdu)
        self.send_bytes(pdus.encode(pdu))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are; they are not recorded.

        Raises:
            ConnectionClosed: the connection is gone, or takes nothing any more.
        """
        try:
            self.socket.settimeout(self.timeout_seconds)
            self.socket.sendall(data)
        except OSError as error:
            raise ConnectionClosed(f"cannot send: {error}") from error

    # Receiving

    def receive(self, timeout_seconds: float | None = None) -> Message:
        """Wait for the next whole DIMSE message.

        Raises:
            AssociationEnded: the peer releases, aborts, closes, is silent or sends what is no message.
        """
        deadline = self._deadline(timeout_seconds)
        encoded = self._message_part(deadline, is_command=True)
        context_id = self._part_context
        try:
            command = decode_command(encoded)
        except ValueError as error:
            self.trace.event(f"malformed command set: {error}", encoded[:64].hex(" "))
            raise UnexpectedPDU(f"malformed command set: {error}") from error
        data = None
        if command.values.get("CommandDataSetType", NO_DATA_SET) != NO_DATA_SET:
            data = self._message_part(deadline, is_command=False)
            if self._part_context != context_id:
                raise UnexpectedPDU("command set and data set are on two presentation contexts")
        message = Message(context_id, command.values, data, encoded, command.irregularities)
        self.trace.message("received", message, self.transfer_syntax_of(context_id))
        if command.irregularities:
            self.trace.event("irregular command set", *command.irregularities)
        return message

    _part_context = 0

    def _message_part(self, deadline: float, *, is_command: bool) -> bytes:
        content = bytearray()
        while True:
            value = self._next_value(deadline)
            if value.is_command != is_command:
                wanted = "command set" if is_command else "data set"
                raise UnexpectedPDU(f"a fragment of a {wanted} was due, and another came")
            content += value.fragment
            self._part_context = value.context_id
            if value.is_last:
                return bytes(content)

    def _next_value(self, deadline: float) -> pdus.PDV:
        while not self._values:
            pdu = self.receive_pdu(max(0.0, deadline - time.monotonic()))
            match pdu:
                case pdus.PData():
                    self._values += pdu.values
                case pdus.ReleaseRequest():
                    if self.answers_release:
                        with suppress(ConnectionClosed):
                            self.send_pdu(pdus.ReleaseResponse())
                    self.is_open = False
                    raise Released("the peer released the association")
                case pdus.Abort():
                    self.close()
                    raise Aborted(pdu)
                case _:
                    raise UnexpectedPDU(f"PDU type {pdu.pdu_type:#04x} on an association")
        return self._values.pop(0)

    def receive_pdu(self, timeout_seconds: float | None = None) -> pdus.PDU:
        """Wait for the next PDU.

        Raises:
            ConnectionClosed: the connection ended first.
            NoAnswer: nothing (whole) came in the time.
            UnexpectedPDU: it is malformed.
        """
        deadline = self._deadline(timeout_seconds)
        self._fill(6, deadline)
        pdu_type, length = self._buffer[0], int.from_bytes(self._buffer[2:6], "big")
        if length > _LONGEST_PDU_BYTES:
            self.trace.event(f"a PDU of type {pdu_type:#04x} that claims {length} bytes")
            raise UnexpectedPDU(f"a PDU of type {pdu_type:#04x} that claims {length} bytes")
        self._fill(6 + length, deadline)
        body = bytes(self._buffer[6 : 6 + length])
        del self._buffer[: 6 + length]
        try:
            pdu = pdus.decode(pdu_type, body)
        except pdus.MalformedPDU as error:
            self.trace.event(f"malformed PDU of type {pdu_type:#04x}: {error}", body[:64].hex(" "))
            raise UnexpectedPDU(f"malformed PDU of type {pdu_type:#04x}: {error}") from error
        if isinstance(pdu, pdus.PData):
            self.longest_p_data = max(self.longest_p_data, length)
        self.trace.pdu("received", pdu)
        return pdu

    def has_input(self, timeout_seconds: float = 0.0) -> bool:
        """Whether something, or the end of the connection, can be read within the time."""
        if self._values or self._buffer:
            return True
        try:
            self.socket.settimeout(max(timeout_seconds, 1e-6))
            self._buffer += self.socket.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def _deadline(self, timeout_seconds: float | None) -> float:
        seconds = self.timeout_seconds if timeout_seconds is None else timeout_seconds
        return time.monotonic() + seconds

    def _fill(self, count: int, deadline: float) -> None:
        while len(self._buffer) < count:
            remaining = deadline - time.monotonic()
            try:
                self.socket.settimeout(max(remaining, 1e-6))
                chunk = self.socket.recv(1 << 16)
            except TimeoutError as error:
                self.trace.event("no answer in the time allowed")
                raise NoAnswer("no answer in the time allowed") from error
            except OSError as error:
                self.trace.event(f"connection lost: {error}")
                raise ConnectionClosed(f"connection lost: {error}") from error
            if not chunk:
                self.is_open = False
                self.trace.event("the peer closed the connection")
                raise ConnectionClosed("the peer closed the connection")
            self._buffer += chunk

    # Ending

    def release(self) -> None:
        """A-RELEASE-RQ, and wait for the answer (PS3.8 7.2).

        Raises:
            AssociationEnded: the answer is not A-RELEASE-RP.
        """
        self.send_pdu(pdus.ReleaseRequest())
        self.is_open = False
        while True:
            answer = self.receive_pdu()
            if isinstance(answer, pdus.PData):
                continue  # PS3.8 7.2.2.4: it crossed our request
            self.close()
            if isinstance(answer, pdus.Abort):
                raise Aborted(answer)
            if not isinstance(answer, pdus.ReleaseResponse):
                raise UnexpectedPDU(
                    f"A-RELEASE-RQ was answered with PDU type {answer.pdu_type:#04x}"
                )
            return

    def abort(self) -> None:
        """A-ABORT by the service user, and close; never raises."""
        with suppress(ConnectionClosed):
            self.send_pdu(pdus.Abort())
        self.close()

    def close(self) -> None:
        """Close the transport connection; without a release or abort before it, that is a lost connection."""
        self.is_open = False
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def proposed_contexts(
    syntaxes: Sequence[tuple[str, Sequence[str]]],
) -> tuple[pdus.ProposedContext, ...]:
    """Presentation contexts 1, 3, 5 ... of (abstract syntax, transfer syntaxes) pairs."""
    return tuple(
        pdus.ProposedContext(2 * index + 1, abstract, tuple(transfer))
        for index, (abstract, transfer) in enumerate(syntaxes)
    )
