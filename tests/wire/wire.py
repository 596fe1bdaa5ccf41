"""A peer that writes bytes: whole PDUs or parts of them, in any order (PS3.8 9.3)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from pacs.wire import command
from tests.peers import CALLED, CALLING, VERIFICATION

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA = 0x01, 0x02, 0x03, 0x04
RELEASE_RQ, RELEASE_RP, ABORT = 0x05, 0x06, 0x07
COMMAND, DATA, LAST = 0x01, 0x00, 0x02
RELEASE_PDU = struct.pack(">BBI4x", RELEASE_RQ, 0, 4)
RELEASE_ANSWER_PDU = struct.pack(">BBI4x", RELEASE_RP, 0, 4)
ABORT_PDU = struct.pack(">BBIBBBB", ABORT, 0, 4, 0, 0, 0, 0)

_TIMEOUT_SECONDS = 5.0


class Wire:
    """One TCP connection to an SCP."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = socket.create_connection((host, port), _TIMEOUT_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Write bytes; the SCP may have closed the connection already."""
        with suppress(OSError):
            self.sock.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: its type and body; (0, b"") at the end of the stream."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        length = struct.unpack(">BBI", header)[2]
        return header[0], self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        with suppress(ConnectionResetError):
            while len(data) < count:
                chunk = self.sock.recv(count - len(data))
                if not chunk:
                    break
                data += chunk
        return data

    def associate(self, contexts: Mapping[int, tuple[str, str]] | None = None) -> None:
        """Establish an association; context 1 is Verification unless others are given."""
        self.send(associate_pdu(contexts or {1: (VERIFICATION, IMPLICIT)}))
        pdu_type, content = self.receive()
        assert pdu_type == ASSOCIATE_AC, (pdu_type, content)

    def answer(self) -> dict[str, object]:
        """The next message's command set; its data set, if any, is read and dropped."""
        values, ill_typed = command.decode(self._message_part(COMMAND))
        assert not ill_typed
        if values["CommandDataSetType"] != command.NO_DATA_SET:
            self._message_part(DATA)
        return dict(values)

    def _message_part(self, kind: int) -> bytes:
        part = b""
        while True:
            pdu_type, body = self.receive()
            assert pdu_type == P_DATA, f"PDU type {pdu_type:#04x} where an answer was due"
            position = 0
            control = 0
            while position < len(body):
                length, _, control = struct.unpack_from(">IBB", body, position)
                assert control & COMMAND == kind
                part += body[position + 6 : position + 4 + length]
                position += 4 + length
            if control & LAST:
                return part

    def ends(self) -> int:
        """Read until the SCP ends the association; return the type of the PDU that did, zero for none."""
        while True:
            pdu_type, _ = self.receive()
            if pdu_type in (0, ABORT, ASSOCIATE_RJ, RELEASE_RP):
                return pdu_type

    def reset(self) -> None:
        """Break the connection without a word (RST)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def associate_pdu(
    contexts: Mapping[int, tuple[str, str]],
    *,
    calling: str = CALLING,
    called: str = CALLED,
    maximum_length: int | None = 16_384,
) -> bytes:
    """An A-ASSOCIATE-RQ with one transfer syntax for each context."""
    items = item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract_syntax, transfer_syntax) in contexts.items():
        syntaxes = item(0x30, abstract_syntax.encode()) + item(0x40, transfer_syntax.encode())
        items += item(0x20, bytes((number, 0, 0, 0)) + syntaxes)
    user = item(0x52, b"1.2.826.0.1.3680043.8.498.9")
    if maximum_length is not None:
        user = item(0x51, struct.pack(">I", maximum_length)) + user
    items += item(0x50, user)
    fixed = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    return pdu(ASSOCIATE_RQ, fixed + items)


def item(item_type: int, value: bytes) -> bytes:
    """An item or sub-item of an A-ASSOCIATE PDU."""
    return struct.pack(">BBH", item_type, 0, len(value)) + value


def pdu(pdu_type: int, body: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BBI", pdu_type, 0, len(body)) + body


def pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    """A presentation data value item."""
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    """A P-DATA-TF PDU of one item."""
    return pdu(P_DATA, pdv(context_id, control, fragment))


def echo_command(message_id: int = 1, **changes: command.CommandValue | None) -> bytes:
    """The command set of a C-ECHO request; None leaves an element out."""
    values: dict[str, command.CommandValue | None] = {
        "AffectedSOPClassUID": VERIFICATION,
        "CommandField": 0x0030,
        "MessageID": message_id,
        "CommandDataSetType": command.NO_DATA_SET,
    }
    return command.encode(values | changes)


def store_command(
    sop_class_uid: str,
    sop_instance_uid: str,
    message_id: int = 1,
    **changes: command.CommandValue | None,
) -> bytes:
    """The command set of a C-STORE request."""
    values: dict[str, command.CommandValue | None] = {
        "AffectedSOPClassUID": sop_class_uid,
        "CommandField": 0x0001,
        "MessageID": message_id,
        "Priority": 0,
        "CommandDataSetType": command.HAS_DATA_SET,
        "AffectedSOPInstanceUID": sop_instance_uid,
    }
    return command.encode(values | changes)


def message(context_id: int, command_set: bytes, data: bytes | None = None) -> bytes:
    """A message in one PDU per part."""
    parts = p_data(context_id, COMMAND | LAST, command_set)
    return parts if data is None else parts + p_data(context_id, DATA | LAST, data)
