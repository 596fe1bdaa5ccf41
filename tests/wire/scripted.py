"""An acceptor that does what a script says, in bytes: what no library would send."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.wire.wire import ASSOCIATE_AC, ASSOCIATE_RQ, EXPLICIT, Wire, item, pdu

#: What one association does: gets its wire and which association it is, from 0. The connection closes when it returns.
Script = Callable[[Wire, int], None]
_SECONDS = 15.0


class ScriptedAcceptor:
    """Accepts any number of connections on a free port of the loopback interface, each with a thread."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._wires: list[Wire] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def connections(self) -> int:
        """How many there have been."""
        return len(self._wires)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(5)
        self._listening.close()
        for wire in self._wires:
            with suppress(OSError):
                wire.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        assert not any(thread.is_alive() for thread in self._threads)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(_SECONDS)
            wire = Wire.__new__(Wire)
            wire.sock = connection
            self._wires.append(wire)
            number = len(self._wires) - 1
            thread = threading.Thread(target=self._serve, args=(wire, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, wire: Wire, number: int) -> None:
        with wire, suppress(OSError, AssertionError):  # the peer may end it at any point
            self._script(wire, number)


def accept(wire: Wire, syntax: str = EXPLICIT, *, result: int = 0) -> None:
    """Answer an association request: the same result for each context (PS3.8 9.3.3.2)."""
    pdu_type, body = wire.receive()
    assert pdu_type == ASSOCIATE_RQ
    contexts = b"".join(
        item(0x21, bytes((number, 0, result, 0)) + item(0x40, syntax.encode()))
        for number in _context_numbers(body[68:])
    )
    user = item(0x50, item(0x51, struct.pack(">I", 16_384)) + item(0x52, b"1.2.3"))
    name = item(0x10, b"1.2.840.10008.3.1.1.1")
    wire.send(pdu(ASSOCIATE_AC, body[:68] + name + contexts + user))


def _context_numbers(items: bytes) -> list[int]:
    numbers = []
    position = 0
    while position < len(items):
        kind, length = struct.unpack_from(">BxH", items, position)
        if kind == 0x20:
            numbers.append(items[position + 4])
        position += 4 + length
    return numbers
