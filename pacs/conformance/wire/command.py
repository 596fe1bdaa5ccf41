"""Command sets of the instrument: written strictly, read with a word on all that is not as the Standard has it.

PS3.7 6.3.1 and Annex E: Implicit VR Little Endian, elements of group 0000 alone, in ascending order, each once, the
Command Group Length first. The archive has a codec of its own (``pacs.wire.command``) and shares no line with this
one: two ends with the same fault understand each other. What is to be wrong on purpose is sent as bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

CommandValue = int | str | tuple[int, ...]

#: PS3.7 Table E.1-1 but for the Command Group Length.
_ROWS = """
    0002 UI AffectedSOPClassUID
    0003 UI RequestedSOPClassUID
    0100 US CommandField
    0110 US MessageID
    0120 US MessageIDBeingRespondedTo
    0600 AE MoveDestination
    0700 US Priority
    0800 US CommandDataSetType
    0900 US Status
    0901 AT OffendingElement
    0902 LO ErrorComment
    0903 US ErrorID
    1000 UI AffectedSOPInstanceUID
    1001 UI RequestedSOPInstanceUID
    1002 US EventTypeID
    1005 AT AttributeIdentifierList
    1008 US ActionTypeID
    1020 US NumberOfRemainingSuboperations
    1021 US NumberOfCompletedSuboperations
    1022 US NumberOfFailedSuboperations
    1023 US NumberOfWarningSuboperations
    1030 AE MoveOriginatorApplicationEntityTitle
    1031 US MoveOriginatorMessageID
"""
_TABLE = {
    int(number, 16): (keyword, vr)
    for number, vr, keyword in map(str.split, _ROWS.split("\n")[1:-1])
}
_NUMBERS = {keyword: number for number, (keyword, _) in _TABLE.items()}
_GROUP_LENGTH = 0x0000

#: Command Data Set Type where no data set follows; any other value says that one does (PS3.7 E.1).
NO_DATA_SET = 0x0101
HAS_DATA_SET = 0x0001

#: Longest values in characters (PS3.5 Table 6.2-1).
_LONGEST = {"AE": 16, "LO": 64, "UI": 64}
#: One value in the default repertoire: graphic characters and the space, no backslash (PS3.5 6.1.2.1, 6.4).
_ONE_VALUE = re.compile(r"[ -\[\]-~]*")
#: PS3.5 9.1.
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")


class InvalidCommand(ValueError):
    """Bytes that are no command set, or values that none can have."""


@dataclass(frozen=True)
class DecodedCommand:
    """What a command set says.

    ``unreadable`` are the keywords whose value is none of their VR, so that ``values`` lacks them. ``irregularities``
    says in words what else the Standard does not allow; the values are there all the same.
    """

    values: dict[str, CommandValue]
    unreadable: tuple[str, ...] = ()
    irregularities: tuple[str, ...] = ()


def decode(encoded: bytes) -> DecodedCommand:
    """Read a command set. Of an element that occurs twice the last one counts.

    Raises:
        InvalidCommand: the elements do not end where the bytes do, or belong to another group.
    """
    values: dict[str, CommandValue] = {}
    unreadable: list[str] = []
    elements = list(_elements(encoded))
    irregularities = [*_order(elements), *_group_length(elements, len(encoded))]
    for number, raw in elements:
        if number == _GROUP_LENGTH:
            continue
        if number not in _TABLE:
            irregularities.append(f"(0000,{number:04X}) is no element of a command set")
            continue
        keyword, vr = _TABLE[number]
        value = _read(vr, raw)
        if value is None:
            unreadable.append(keyword)
            continue
        values[keyword] = value
        irregularities += [f"{keyword} {what}" for what in _oddities(vr, raw)]
    return DecodedCommand(values, tuple(unreadable), tuple(irregularities))


def _elements(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    rest = encoded
    while rest:
        if len(rest) < 8:
            raise InvalidCommand("the command set ends inside an element header")
        group, number = (int.from_bytes(rest[at : at + 2], "little") for at in (0, 2))
        end = 8 + int.from_bytes(rest[4:8], "little")
        if group != 0:
            raise InvalidCommand(f"group {group:04x} in a command set")
        if end > len(rest):
            raise InvalidCommand(f"element (0000,{number:04x}) is longer than the command set")
        yield number, rest[8:end]
        rest = rest[end:]


def _order(elements: list[tuple[int, bytes]]) -> Iterator[str]:
    numbers = [number for number, _ in elements]
    for before, number in pairwise(numbers):
        if number == before:
            yield f"(0000,{number:04X}) is there twice"
        elif number < before:
            yield f"(0000,{number:04X}) comes after (0000,{before:04X})"


def _group_length(elements: list[tuple[int, bytes]], size: int) -> Iterator[str]:
    if not elements or elements[0][0] != _GROUP_LENGTH:
        yield "it does not begin with the Command Group Length"
        return
    raw = elements[0][1]
    said, rest = int.from_bytes(raw, "little"), size - 8 - len(raw)
    if len(raw) != 4:
        yield f"the Command Group Length has {len(raw)} bytes"
    elif said != rest:
        yield f"the Command Group Length is {said}, and {rest} bytes follow"


def _read(vr: str, raw: bytes) -> CommandValue | None:
    """The value; None for bytes that are none of this VR."""
    if vr == "US":
        return int.from_bytes(raw, "little") if len(raw) == 2 else None
    if vr == "AT":
        if len(raw) % 4:
            return None
        words = [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]
        return tuple(words[at] << 16 | words[at + 1] for at in range(0, len(words), 2))
    text = raw.decode("latin-1").strip(" \0")
    # Nothing depends on what a comment says.
    return text if vr == "LO" or _ONE_VALUE.fullmatch(text) else None


def _oddities(vr: str, raw: bytes) -> Iterator[str]:
    """What is wrong with a value that can be read."""
    if len(raw) % 2:
        yield f"has an odd length ({len(raw)} bytes)"
    if vr not in _LONGEST:
        return
    text = raw.decode("latin-1").strip(" \0")
    if vr == "UI":
        if raw not in (text.encode("latin-1"), text.encode("latin-1") + b"\0"):
            yield "is not padded with one NUL at most"
        if text and not _UID.fullmatch(text):
            yield f"{text!r} is no UID"
    elif b"\0" in raw:
        yield "holds a NUL"
    elif not _ONE_VALUE.fullmatch(text):
        yield f"{text!r} is not in the default repertoire"
    if len(text) > _LONGEST[vr]:
        yield f"has {len(text)} characters"


def encode(values: Mapping[str, CommandValue]) -> bytes:
    """Write a command set, the Command Group Length included.

    A UID is written as it is: a response repeats that of the request.

    Raises:
        InvalidCommand: an element is not in Table E.1-1, or its value is none of its VR.
    """
    for keyword in values:
        if keyword not in _NUMBERS:
            raise InvalidCommand(f"{keyword} is no element of a command set")
    body = b"".join(
        _element(number, _written(keyword, vr, values[keyword]))
        for number, (keyword, vr) in _TABLE.items()
        if keyword in values
    )
    return _element(_GROUP_LENGTH, len(body).to_bytes(4, "little")) + body


def _element(number: int, raw: bytes) -> bytes:
    return bytes(2) + number.to_bytes(2, "little") + len(raw).to_bytes(4, "little") + raw


def _written(keyword: str, vr: str, value: CommandValue) -> bytes:
    match vr, value:
        case "US", int() if 0 <= value <= 0xFFFF:
            return value.to_bytes(2, "little")
        case "AT", tuple() if all(0 <= tag <= 0xFFFFFFFF for tag in value):
            halves = [half for tag in value for half in (tag >> 16, tag & 0xFFFF)]
            return b"".join(half.to_bytes(2, "little") for half in halves)
        case "UI", str() if _ONE_VALUE.fullmatch(value):
            return value.encode() + bytes(len(value) % 2)
        case "AE" | "LO", str() if _ONE_VALUE.fullmatch(value) and len(value) <= _LONGEST[vr]:
            return value.encode() + b" " * (len(value) % 2)
    raise InvalidCommand(f"{keyword} cannot be {value!r} ({vr})")


def as_comment(text: str) -> str:
    """The text as an Error Comment can say it: 64 characters of the default repertoire."""
    return re.sub(r"[^ -\[\]-~]", "?", text)[: _LONGEST["LO"]]
