"""C-ECHO as SCU (PS3.4 Annex A), on PDUs and command sets that need no library.

``pacs echo`` is what people and scripts call again and again, and pynetdicom takes half a second to import.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass

from pacs.conformance.wire import command
from pacs.conformance.wire import pdu as pdus
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable, PacsError, PeerAborted
from pacs.wire import tls

_VERIFICATION = "1.2.840.10008.1.1"
_IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_CONTEXT_ID = 1
_MESSAGE_ID = 1
_C_ECHO_RQ = 0x0030
_HEADER_BYTES = 6
_MAXIMUM_LENGTH_BYTES = 16_384
#: Longer than any PDU that may come here: an A-ASSOCIATE-AC, and a command set without a data set.
_LONGEST_PDU_BYTES = 1 << 20
_LONGEST_COMMAND_SET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Calling:
    """Who calls, and for how long it waits; times in seconds."""

    ae_title: str
    connect_timeout_seconds: float
    acse_timeout_seconds: float
    dimse_timeout_seconds: float
    tls: tls.TLSOptions


def echo(calling: Calling, peer: Peer) -> None:
    """Send a C-ECHO.

    Raises:
        DestinationUnreachable: no association.
        PeerAborted: the peer answered with a failure, or not at all.
        InvalidSetting: a file that TLS needs cannot be used.
    """
    context = tls.requestor_context(calling.tls) if peer.tls else None
    connection = _Connection(calling, peer, context)
    try:
        connection.associate()
        connection.verify()
        connection.release()
    finally:
        connection.close()


class _Connection:
    def __init__(self, calling: Calling, peer: Peer, context: ssl.SSLContext | None) -> None:
        self._calling = calling
        self._peer = peer
        self._buffer = bytearray()
        self._with_tls = context is not None
        try:
            self._socket = socket.create_connection(
                (peer.host, peer.port), calling.connect_timeout_seconds
            )
        except OSError as error:
            raise self._unreachable(_reason(error)) from error
        except UnicodeError as error:  # of the encoding of names (IDNA)
            raise self._unreachable("no host can have that name") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                self._socket = context.wrap_socket(self._socket, server_hostname=peer.host)
        except OSError as error:
            self._socket.close()
            raise self._unreachable(tls.explain(error)) from error

    def associate(self) -> None:
        """Request the association (PS3.8 7.1).

        Raises:
            DestinationUnreachable: it is not established.
        """
        request = pdus.AssociateRequest(
            self._peer.title,
            self._calling.ae_title,
            (
                pdus.maximum_length(_MAXIMUM_LENGTH_BYTES),
                *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
            ),
            contexts=(
                pdus.ProposedContext(_CONTEXT_ID, _VERIFICATION, (_IMPLICIT_VR_LITTLE_ENDIAN,)),
            ),
        )
        try:
            self._send(request)
            answer = self._receive(self._calling.acse_timeout_seconds)
        except OSError as error:
            raise self._unreachable(self._why_no_association(error)) from error
        except pdus.MalformedPDU as error:
            raise self._unreachable(f"its answer is no PDU: {error}") from error
        match answer:
            case pdus.AssociateReject():
                reason = pdus.REJECTIONS.get((answer.source, answer.reason), "a reserved reason")
                said = reason[0].upper() + reason[1:]
                raise DestinationUnreachable(f"{self._peer} rejected the association: {said}")
            case pdus.AssociateAccept():
                if all(context.result for context in answer.contexts):
                    self._abort()
                    raise DestinationUnreachable(f"{self._peer} does not support the service")
            case pdus.Abort():
                raise self._unreachable("the peer aborted it")
            case _:
                raise self._unreachable(f"it answered with PDU type {answer.pdu_type:#04x}")

    def verify(self) -> None:
        """C-ECHO-RQ, and its response (PS3.7 9.3.5).

        Raises:
            PeerAborted: the peer answered with a failure, or not at all.
        """
        asked = command.encode(
            {
                "AffectedSOPClassUID": _VERIFICATION,
                "CommandField": _C_ECHO_RQ,
                "MessageID": _MESSAGE_ID,
                "CommandDataSetType": command.NO_DATA_SET,
            }
        )
        value = pdus.PDV(_CONTEXT_ID, pdus.COMMAND_BIT | pdus.LAST_BIT, asked)
        try:
            self._send(pdus.PData((value,)))
            answer = command.decode(self._command_set()).values
        except (OSError, pdus.MalformedPDU, command.InvalidCommand) as error:
            raise PeerAborted(f"{self._peer} ended the association without a response") from error
        if answer.get("Status") != 0x0000:
            status = answer.get("Status")
            said = f"0x{status:04X}" if isinstance(status, int) else "without a status"
            comment = f": {answer['ErrorComment']}" if answer.get("ErrorComment") else ""
            raise PeerAborted(f"{self._peer} answered {said}{comment}")

    def _command_set(self) -> bytes:
        content = bytearray()
        deadline = time.monotonic() + self._calling.dimse_timeout_seconds
        while len(content) < _LONGEST_COMMAND_SET_BYTES:
            answer = self._receive(deadline - time.monotonic())
            if not isinstance(answer, pdus.PData):
                raise pdus.MalformedPDU(f"PDU type {answer.pdu_type:#04x}")
            for value in answer.values:
                content += value.fragment
                if value.is_last:
                    return bytes(content)
        raise pdus.MalformedPDU(f"a command set over {_LONGEST_COMMAND_SET_BYTES} bytes")

    def release(self) -> None:
        """A-RELEASE-RQ, and wait for the answer; how the peer ends it does not change that it answered."""
        with suppress(OSError, pdus.MalformedPDU):
            self._send(pdus.ReleaseRequest())
            self._receive(self._calling.acse_timeout_seconds)

    def _abort(self) -> None:
        with suppress(OSError):
            self._send(pdus.Abort())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, pdu: pdus.PDU) -> None:
        self._socket.settimeout(self._calling.acse_timeout_seconds)
        self._socket.sendall(pdus.encode(pdu))

    def _receive(self, timeout_seconds: float) -> pdus.PDU:
        deadline = time.monotonic() + timeout_seconds
        self._fill(_HEADER_BYTES, deadline)
        pdu_type, length = self._buffer[0], int.from_bytes(self._buffer[2:_HEADER_BYTES], "big")
        if pdu_type == tls.ALERT_RECORD and not self._with_tls:
            raise ConnectionError("the peer wants TLS")
        if length > _LONGEST_PDU_BYTES:
            raise pdus.MalformedPDU(f"PDU type {pdu_type:#04x} announces {length} bytes")
        self._fill(_HEADER_BYTES + length, deadline)
        body = bytes(self._buffer[_HEADER_BYTES : _HEADER_BYTES + length])
        del self._buffer[: _HEADER_BYTES + length]
        return pdus.decode(pdu_type, body)

    def _fill(self, count: int, deadline: float) -> None:
        while len(self._buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:  # also of a peer that always has something more to say
                raise TimeoutError
            self._socket.settimeout(left)
            chunk = self._socket.recv(_MAXIMUM_LENGTH_BYTES)
            if not chunk:
                raise ConnectionError("connection closed")
            self._buffer += chunk

    def _unreachable(self, reason: str) -> PacsError:
        return DestinationUnreachable(f"no association with {self._peer}: {reason}")

    def _why_no_association(self, error: OSError) -> str:
        if isinstance(error, TimeoutError):
            return "the peer did not answer"
        if isinstance(error, ssl.SSLError):
            # With TLS 1.3 our side of the handshake is done before the peer judges our certificate.
            return tls.explain(error)
        reason = _reason(error)
        # A peer that ends the connection instead of answering a request for an association may want TLS.
        is_silent = not self._buffer and not self._with_tls
        return f"{reason}; does it want TLS?" if is_silent else reason


def _reason(error: OSError) -> str:
    return "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
