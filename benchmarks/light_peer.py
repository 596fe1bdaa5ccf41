"""A peer that costs next to nothing: hundreds of them in one process, and still the archive is what is measured.

Coroutines over sockets, with the PDUs and command sets of the conformance checks, which need no library. It proposes
one transfer syntax, Explicit VR Little Endian, and as an acceptor takes the first that is proposed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count

from pydicom.uid import ExplicitVRLittleEndian

from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.command import NO_DATA_SET
from pacs.conformance.wire.message import (
    CommandField,
    Message,
    decode_command,
    fragments,
    request,
    response,
)

_MAXIMUM_PDU_BYTES = 131_072
_HEADER = struct.Struct(">BxI")
_IMPLEMENTATION = pdus.implementation("1.2.826.0.1.3680043.8.498.1", "BENCH")
_RELEASE = pdus.encode(pdus.ReleaseRequest())
_SUCCESS = 0x0000


class PeerError(Exception):
    """The archive did not do what it was asked for; the message says what it did instead."""


@dataclass(frozen=True)
class Proposal:
    """An A-ASSOCIATE-RQ, encoded once for all associations alike."""

    encoded: bytes
    #: The presentation contexts without which there is no use in the association, by abstract syntax.
    needed: Mapping[str, int]


def proposal(
    needed: Sequence[str], also: Sequence[str] = (), scp_of: Iterable[str] = ()
) -> Proposal:
    """Propose abstract syntaxes, one presentation context each; ``also`` are those that may be refused.

    ``scp_of`` are those that the requestor wants to be SCP of as well (C-GET).
    """
    contexts = tuple(
        pdus.ProposedContext(2 * number + 1, one, (ExplicitVRLittleEndian,))
        for number, one in enumerate([*needed, *also])
    )
    roles = [pdus.role_selection(one, scu=True, scp=True) for one in scp_of]
    items = (pdus.maximum_length(_MAXIMUM_PDU_BYTES), *_IMPLEMENTATION, *roles)
    asked = pdus.AssociateRequest("PACS", "BENCH", items, contexts=contexts)
    ids = {one.abstract_syntax: one.context_id for one in contexts[: len(needed)]}
    return Proposal(pdus.encode(asked), ids)


class LightAssociation:
    """One association; whole messages go in and out. Whoever awaits says how long (``asyncio.timeout``)."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ids: Mapping[str, int]
    ) -> None:
        self._reader, self._writer = reader, writer
        self._ids = ids
        self._numbers = count(1)
        self._values: list[pdus.PDV] = []

    @classmethod
    async def open(cls, port: int, proposed: Proposal) -> LightAssociation:
        """Associate.

        Raises:
            PeerError: the archive rejects it, or accepts too little of it.
            OSError: there is no connection.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assoc = cls(reader, writer, proposed.needed)
        try:
            writer.write(proposed.encoded)
            _require_accepted(await assoc._receive_pdu(), proposed.needed)
        except BaseException:
            writer.close()
            raise
        return assoc

    async def release(self) -> None:
        """Release and close."""
        self._writer.write(_RELEASE)
        answer = await self._receive_pdu()
        self._writer.close()
        if not isinstance(answer, pdus.ReleaseResponse):
            raise PeerError(f"the release was answered with {answer}")

    def drop(self) -> None:
        """Close the connection as it is."""
        self._writer.close()

    async def store(self, sop_class: str, sop_instance: str, data: bytes) -> None:
        """C-STORE.

        Raises:
            PeerError: the status is not Success.
        """
        self._request(CommandField.C_STORE_RQ, sop_class, data, AffectedSOPInstanceUID=sop_instance)
        _require_success(await self.receive())

    async def find(self, model: str, identifier: bytes) -> list[bytes]:
        """C-FIND; the Identifiers of the matches, encoded.

        Raises:
            PeerError: the final status is not Success.
        """
        self._request(CommandField.C_FIND_RQ, model, identifier)
        found: list[bytes] = []
        while (answer := await self.receive()).data is not None:
            found.append(answer.data)
        _require_success(answer)
        return found

    async def move(self, model: str, identifier: bytes, destination: str) -> int:
        """C-MOVE; how many sub-operations completed.

        Raises:
            PeerError: the final status is not Success.
        """
        self._request(CommandField.C_MOVE_RQ, model, identifier, MoveDestination=destination)
        while True:
            answer = await self.receive()
            if "NumberOfRemainingSuboperations" not in answer.command:
                _require_success(answer)
                return _completed(answer)

    async def get(self, model: str, identifier: bytes) -> int:
        """C-GET; how many instances came, and were thrown away.

        Raises:
            PeerError: the final status is not Success.
        """
        self._request(CommandField.C_GET_RQ, model, identifier)
        received = 0
        while True:
            message = await self.receive()
            if message.command["CommandField"] == CommandField.C_STORE_RQ:
                received += 1
                self.send(response(message, _SUCCESS))
            elif "NumberOfRemainingSuboperations" not in message.command:
                _require_success(message)
                return received

    def _request(self, field: CommandField, sop_class: str, data: bytes, **elements: str) -> None:
        number = next(self._numbers) % 0xFFFF + 1
        self.send(request(field, self._ids[sop_class], number, sop_class, data, **elements))

    def send(self, message: Message) -> None:
        """Send a message, in one write."""
        parts = fragments(message, _MAXIMUM_PDU_BYTES)
        self._writer.write(b"".join(pdus.encode(pdus.PData((part,))) for part in parts))

    async def receive(self) -> Message:
        """Wait for a message.

        Raises:
            PeerError: something else came.
            OSError, EOFError: the connection ended.
        """
        context_id, encoded = await self._part()
        command = decode_command(encoded).values
        data = None
        if command["CommandDataSetType"] != NO_DATA_SET:
            _, data = await self._part()
        return Message(context_id, command, data)

    async def _part(self) -> tuple[int, bytes]:
        """The fragments of one command set or data set, together."""
        content: list[bytes] = []
        while True:
            while not self._values:
                pdu = await self._receive_pdu()
                if isinstance(pdu, pdus.ReleaseRequest):
                    raise Released
                if not isinstance(pdu, pdus.PData):
                    raise PeerError(f"{pdu} came instead of a message")
                self._values = list(pdu.values)
            value = self._values.pop(0)
            content.append(value.fragment)
            if value.is_last:
                return value.context_id, b"".join(content)

    async def _receive_pdu(self) -> pdus.PDU:
        kind, length = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
        return pdus.decode(kind, await self._reader.readexactly(length))

    async def serve(self) -> None:
        """Be a Storage SCP that throws away what it gets, until the association ends."""
        asked = await self._receive_pdu()
        if not isinstance(asked, pdus.AssociateRequest):
            return
        answers = tuple(
            pdus.AnsweredContext(one.context_id, pdus.ACCEPTANCE, one.transfer_syntaxes[0])
            for one in asked.contexts
        )
        items = (pdus.maximum_length(_MAXIMUM_PDU_BYTES), *_IMPLEMENTATION)
        accepted = pdus.AssociateAccept(
            asked.called_ae_title, asked.calling_ae_title, items, contexts=answers
        )
        self._writer.write(pdus.encode(accepted))
        with suppress(Released):
            while True:
                self.send(response(await self.receive(), _SUCCESS))
        self._writer.write(pdus.encode(pdus.ReleaseResponse()))


class Released(Exception):
    """The peer asks for release."""


def _require_accepted(answer: pdus.PDU, ids: Mapping[str, int]) -> None:
    if not isinstance(answer, pdus.AssociateAccept):
        raise PeerError(f"the association was answered with {answer}")
    accepted = {one.context_id for one in answer.contexts if one.result == pdus.ACCEPTANCE}
    if refused := [uid for uid, one in ids.items() if one not in accepted]:
        raise PeerError(f"not accepted: {', '.join(refused)}")


def _require_success(answer: Message) -> None:
    if answer.status != _SUCCESS:
        raise PeerError(f"{answer.name} with status {answer.status:#06x} {answer.comment}".strip())


def _completed(answer: Message) -> int:
    number = answer.command.get("NumberOfCompletedSuboperations")
    return number if isinstance(number, int) else 0


@asynccontextmanager
async def light_destination() -> AsyncIterator[int]:
    """A Move Destination for any number of associations at once; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, PeerError):
            await LightAssociation(reader, writer, {}).serve()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
