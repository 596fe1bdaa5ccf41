"""DIMSE command sets as bytes (PS3.7 6.3.1 and Annex E): Implicit VR Little Endian, group 0000 only.

Pure functions. A command set is a dict of keyword to value: ``int`` for US and UL, ``str`` for UI, AE and
LO, a tuple of tags for AT.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pacs.dicom.uids import is_uid

CommandValue = int | str | tuple[int, ...]

#: PS3.7 Table E.1-1 and E.2-1 as far as the DIMSE services use them: element number -> (keyword, VR).
ELEMENTS: dict[int, tuple[str, str]] = {
    0x0002: ("AffectedSOPClassUID", "UI"),
    0x0003: ("RequestedSOPClassUID", "UI"),
    0x0100: ("CommandField", "US"),
    0x0110: ("MessageID", "US"),
    0x0120: ("MessageIDBeingRespondedTo", "US"),
    0x0600: ("MoveDestination", "AE"),
    0x0700: ("Priority", "US"),
    0x0800: ("CommandDataSetType", "US"),
    0x0900: ("Status", "US"),
    0x0901: ("OffendingElement", "AT"),
    0x0902: ("ErrorComment", "LO"),
    0x0903: ("ErrorID", "US"),
    0x1000: ("AffectedSOPInstanceUID", "UI"),
    0x1001: ("RequestedSOPInstanceUID", "UI"),
    0x1002: ("EventTypeID", "US"),
    0x1005: ("AttributeIdentifierList", "AT"),
    0x1008: ("ActionTypeID", "US"),
    0x1020: ("NumberOfRemainingSuboperations", "US"),
    0x1021: ("NumberOfCompletedSuboperations", "US"),
    0x1022: ("NumberOfFailedSuboperations", "US"),
    0x1023: ("NumberOfWarningSuboperations", "US"),
    0x1030: ("MoveOriginatorApplicationEntityTitle", "AE"),
    0x1031: ("MoveOriginatorMessageID", "US"),
}
_BY_KEYWORD = {keyword: (element, vr) for element, (keyword, vr) in ELEMENTS.items()}

#: Command Data Set Type when no data set follows (PS3.7 E.1).
NO_DATA_SET = 0x0101
#: Any other value says that one does.
HAS_DATA_SET = 0x0001
_C_STORE_RQ = 0x0001
_C_FIND_RSP = 0x8020

_HEADER = struct.Struct("<HHI")
_GROUP_LENGTH = struct.Struct("<HHII")
_US = struct.Struct("<H")
#: PS3.5 Table 6.2-1. Not taken from a module that needs pydicom: "pacs echo" would wait for that.
_MAX_LO_CHARACTERS = 64


class InvalidCommand(ValueError):
    """The bytes are not a command set."""


def decode(data: bytes | bytearray) -> tuple[dict[str, CommandValue], tuple[str, ...]]:
    """Read a command set: its values, and the keywords of elements whose value does not fit their VR.

    Unknown elements of group 0000 are skipped (retired ones still occur).

    Raises:
        InvalidCommand: an element reaches beyond the end, or another group appears.
    """
    values: dict[str, CommandValue] = {}
    ill_typed: list[str] = []
    data = bytes(data)
    position, end = 0, len(data)
    while position < end:
        if end - position < 8:
            raise InvalidCommand("the command set ends inside an element header")
        group, element, length = _HEADER.unpack_from(data, position)
        position += 8
        if group != 0:
            raise InvalidCommand(f"group {group:04x} in a command set")
        if length > end - position:
            raise InvalidCommand(f"element (0000,{element:04x}) is longer than the command set")
        if element in ELEMENTS:
            keyword, vr = ELEMENTS[element]
            value = _decode_value(vr, data[position : position + length])
            if value is None:
                ill_typed.append(keyword)
            else:
                values[keyword] = value
        position += length
    return values, tuple(ill_typed)


def _decode_value(vr: str, raw: bytes) -> CommandValue | None:
    if vr == "US":
        return int(_US.unpack(raw)[0]) if len(raw) == 2 else None
    if vr == "AT":
        if len(raw) % 4:
            return None
        words = struct.unpack(f"<{len(raw) // 2}H", raw)
        return tuple(
            group << 16 | element for group, element in zip(words[::2], words[1::2], strict=True)
        )
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        # Only a comment may be in another character set; nothing depends on what it says.
        return raw.decode("latin-1").strip(" \0") if vr == "LO" else None
    text = text.strip(" \0")
    return None if vr == "UI" and text and not is_uid(text) else text


def encode(values: Mapping[str, CommandValue | None]) -> bytes:
    """Write a command set, Command Group Length included; None leaves an element out."""
    parts = [
        (_BY_KEYWORD[keyword][0], _element(keyword, value))
        for keyword, value in values.items()
        if value is not None
    ]
    body = b"".join([encoded for _, encoded in sorted(parts)])
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def encode_match(sop_class_uid: str, message_id: int, status: int) -> bytes:
    """The command set of a C-FIND response with an Identifier (PS3.7 9.3.2.2); all of one status are the same."""
    return encode(
        {
            "AffectedSOPClassUID": sop_class_uid,
            "CommandField": _C_FIND_RSP,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": HAS_DATA_SET,
            "Status": status,
        }
    )


class StoreRequests:
    """The command sets of C-STORE requests that belong to one operation (PS3.7 9.3.1.1).

    They differ in SOP Class, SOP Instance and Message ID only; the rest is encoded once.
    """

    def __init__(self, priority: int, originator: tuple[str, int] | None = None) -> None:
        """``originator`` is the AE title and Message ID of the C-MOVE that they are sub-operations of."""
        self._classes: dict[str, bytes] = {}
        self._field = _element("CommandField", _C_STORE_RQ)
        self._parameters = _element("Priority", priority) + _element(
            "CommandDataSetType", HAS_DATA_SET
        )
        self._originator = b""
        if originator is not None:
            title, message_id = originator
            self._originator = _element("MoveOriginatorApplicationEntityTitle", title) + _element(
                "MoveOriginatorMessageID", message_id
            )

    def encode(self, sop_class_uid: str, sop_instance_uid: str, message_id: int) -> bytes:
        """The command set of one request."""
        if sop_class_uid not in self._classes:
            self._classes[sop_class_uid] = _element("AffectedSOPClassUID", sop_class_uid)
        body = b"".join(
            (
                self._classes[sop_class_uid],
                self._field,
                _element("MessageID", message_id),
                self._parameters,
                _element("AffectedSOPInstanceUID", sop_instance_uid),
                self._originator,
            )
        )
        return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _element(keyword: str, value: CommandValue) -> bytes:
    element, vr = _BY_KEYWORD[keyword]
    raw = _encode_value(vr, value)
    return _HEADER.pack(0, element, len(raw)) + raw


def _encode_value(vr: str, value: CommandValue) -> bytes:
    if vr == "US":
        assert isinstance(value, int)
        return _US.pack(value)
    if vr == "AT":
        assert isinstance(value, tuple)
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
    raw = str(value).encode("ascii", "replace")
    if vr == "LO":
        raw = raw[:_MAX_LO_CHARACTERS].replace(b"\\", b"/")
    if len(raw) % 2:
        raw += b"\0" if vr == "UI" else b" "
    return raw
