"""DIMSE messages as values (PS3.7 6.3): a command set and, behind it, the bytes of a data set."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from io import BytesIO

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs.conformance.wire import command
from pacs.conformance.wire.command import (
    HAS_DATA_SET,
    NO_DATA_SET,
    CommandValue,
    DecodedCommand,
)
from pacs.conformance.wire.pdu import COMMAND_BIT, LAST_BIT, PDV

_LONGEST_INFLATED_BYTES = 64 << 20
_RESPONSE_BIT = 0x8000


class CommandField(IntEnum):
    """Command Field (0000,0100) of each message (PS3.7 E.1)."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    N_EVENT_REPORT_RQ = 0x0100
    N_EVENT_REPORT_RSP = 0x8100
    N_ACTION_RQ = 0x0130
    N_ACTION_RSP = 0x8130
    C_CANCEL_RQ = 0x0FFF


class MalformedMessage(ValueError):
    """A command set cannot be encoded, or it or a data set cannot be decoded."""


@dataclass(frozen=True)
class Message:
    """One DIMSE message on a presentation context; ``data`` is the encoded data set, None without one.

    ``raw_command`` replaces the encoded command set, for what no command set can say. ``irregularities`` is what the
    Standard does not allow in the command set that came (``command.DecodedCommand``).
    """

    context_id: int
    command: Mapping[str, CommandValue]
    data: bytes | None = field(default=None, repr=False)
    raw_command: bytes | None = field(default=None, repr=False)
    irregularities: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The message's name in PS3.7, ``C-FIND-RSP`` for one; the number where there is none."""
        return field_name(self.command.get("CommandField"))

    @property
    def status(self) -> int | None:
        """Status (0000,0900), None where it is missing."""
        return self._integer("Status")

    @property
    def message_id(self) -> int | None:
        """Message ID (0000,0110), of a request."""
        return self._integer("MessageID")

    @property
    def responds_to(self) -> int | None:
        """Message ID Being Responded To (0000,0120), of a response or C-CANCEL."""
        return self._integer("MessageIDBeingRespondedTo")

    @property
    def comment(self) -> str:
        """Error Comment (0000,0902), empty where it is missing."""
        return str(self.command.get("ErrorComment", ""))

    @property
    def is_response(self) -> bool:
        """Whether the Command Field says that it responds to another message."""
        value = self._integer("CommandField")
        return value is not None and bool(value & _RESPONSE_BIT)

    def _integer(self, keyword: str) -> int | None:
        value = self.command.get(keyword)
        return value if isinstance(value, int) else None

    def data_set(self, transfer_syntax: str) -> Dataset:
        """The data set, decoded; an empty one where there is none.

        Raises:
            MalformedMessage: it cannot be decoded in that transfer syntax.
        """
        return decode_data_set(self.data or b"", transfer_syntax)

    def encoded_command(self) -> bytes:
        """The command set as it goes onto the wire.

        Raises:
            MalformedMessage: an element has a value that it cannot have.
        """
        if self.raw_command is not None:
            return self.raw_command
        try:
            return command.encode(self.command)
        except command.InvalidCommand as error:
            raise MalformedMessage(str(error)) from error


def field_name(value: object) -> str:
    """``C-FIND-RSP`` for 0x8020."""
    try:
        return CommandField(value).name.replace("_", "-")  # type: ignore[arg-type]  # any value may be asked
    except ValueError:
        return f"command field {value:#06x}" if isinstance(value, int) else "no command field"


def request(
    command_field: CommandField,
    context_id: int,
    message_id: int,
    sop_class_uid: str,
    data: bytes | None = None,
    **elements: CommandValue | None,
) -> Message:
    """A request; ``elements`` add to its command set, or take out what they give as None."""
    values: dict[str, CommandValue | None] = {
        "AffectedSOPClassUID": sop_class_uid,
        "CommandField": int(command_field),
        "MessageID": message_id,
        "CommandDataSetType": NO_DATA_SET if data is None else HAS_DATA_SET,
    }
    if command_field not in (
        CommandField.C_ECHO_RQ,
        CommandField.N_EVENT_REPORT_RQ,
        CommandField.N_ACTION_RQ,
    ):
        values["Priority"] = 0
    return Message(context_id, _present(values | elements), data)


def response(
    to: Message, status: int, data: bytes | None = None, **elements: CommandValue | None
) -> Message:
    """The response to a request; ``elements`` add to its command set, or take out what they give as None."""
    sop_class = to.command.get("AffectedSOPClassUID") or to.command.get("RequestedSOPClassUID")
    instance = to.command.get("AffectedSOPInstanceUID") or to.command.get("RequestedSOPInstanceUID")
    field_value = to.command.get("CommandField", 0)
    values: dict[str, CommandValue | None] = {
        "AffectedSOPClassUID": sop_class,
        "CommandField": (field_value if isinstance(field_value, int) else 0) | _RESPONSE_BIT,
        "MessageIDBeingRespondedTo": to.message_id,
        "CommandDataSetType": NO_DATA_SET if data is None else HAS_DATA_SET,
        "Status": status,
        "AffectedSOPInstanceUID": instance,
    }
    return Message(to.context_id, _present(values | elements), data)


def cancel(context_id: int, message_id: int) -> Message:
    """C-CANCEL of the request with that Message ID (PS3.7 9.3.2.3)."""
    return Message(
        context_id,
        {
            "CommandField": int(CommandField.C_CANCEL_RQ),
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": NO_DATA_SET,
        },
    )


def _present(values: Mapping[str, CommandValue | None]) -> dict[str, CommandValue]:
    return {keyword: value for keyword, value in values.items() if value is not None}


def fragments(message: Message, maximum_pdu_bytes: int) -> Iterator[PDV]:
    """The PDV items of a message, each short enough to be alone in a PDU of that length; 0 for no limit."""
    size = max(2, (maximum_pdu_bytes or 1 << 16) - 6 & ~1)
    parts = [(message.encoded_command(), COMMAND_BIT)]
    if message.data is not None:
        parts.append((message.data, 0))
    for content, control in parts:
        for begin in range(0, len(content) or 1, size):
            is_last = LAST_BIT if begin + size >= len(content) else 0
            yield PDV(message.context_id, control | is_last, content[begin : begin + size])


def decode_command(encoded: bytes) -> DecodedCommand:
    """Decode a command set (PS3.7 6.3.1).

    Raises:
        MalformedMessage: it is none, or the value of an element has not the type that PS3.7 E.1 gives it.
    """
    try:
        decoded = command.decode(encoded)
    except command.InvalidCommand as error:
        raise MalformedMessage(str(error)) from error
    if decoded.unreadable:
        wrong = ", ".join(decoded.unreadable)
        raise MalformedMessage(f"ill-typed elements in the command set: {wrong}")
    return decoded


def encode_data_set(data_set: Dataset, transfer_syntax: str) -> bytes:
    """Encode as it stands: no value is checked."""
    stream = DicomBytesIO()
    stream.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    stream.is_little_endian = transfer_syntax != ExplicitVRBigEndian
    with config.disable_value_validation():
        write_dataset(stream, data_set)
    encoded = stream.getvalue()
    if transfer_syntax != DeflatedExplicitVRLittleEndian:
        return encoded
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflater.compress(encoded) + deflater.flush()
    return deflated + bytes(len(deflated) % 2)


def decode_data_set(encoded: bytes, transfer_syntax: str) -> Dataset:
    """Decode without checking values.

    Raises:
        MalformedMessage: the bytes are no data set in that transfer syntax.
    """
    try:
        if transfer_syntax == DeflatedExplicitVRLittleEndian:
            inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            encoded = inflater.decompress(encoded, _LONGEST_INFLATED_BYTES)
        with config.disable_value_validation():
            data_set = read_dataset(
                BytesIO(encoded),
                transfer_syntax == ImplicitVRLittleEndian,
                transfer_syntax != ExplicitVRBigEndian,
            )
            data_set.decode()
    except Exception as error:  # pydicom raises whatever it stumbles over
        raise MalformedMessage(f"not a data set: {type(error).__name__}: {error}") from error
    return data_set
