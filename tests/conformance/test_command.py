"""The instrument's own command sets: as others write them, and what is said of those that nobody may write."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.conformance.wire import command
from pacs.conformance.wire.command import CommandValue, DecodedCommand, InvalidCommand
from pacs.wire import command as archive_command
from tests.wire.golden_commands import GOLDEN
from tests.wire.test_command import COMMANDS


def element(number: int, raw: bytes, group: int = 0) -> bytes:
    return struct.pack("<HHI", group, number, len(raw)) + raw


def whole(*elements: bytes) -> bytes:
    """The elements behind a right Command Group Length."""
    body = b"".join(elements)
    return element(0x0000, struct.pack("<I", len(body))) + body


CLASS = element(0x0002, b"1.2.840.10008.1.1\0")
FIELD = element(0x0100, b"\x30\x00")
MESSAGE_ID = element(0x0110, b"\x07\x00")
TITLE = element(0x0600, b"RESEARCH")


@pytest.mark.parametrize(("dump", "values"), GOLDEN.values(), ids=GOLDEN)
def test_both_codecs_agree_with_what_others_send(
    dump: str, values: dict[str, CommandValue]
) -> None:
    encoded = bytes.fromhex(dump)

    assert command.decode(encoded) == DecodedCommand(values)
    assert command.encode(values) == encoded
    assert archive_command.decode(encoded) == (values, ())
    assert archive_command.encode(values) == encoded


@given(COMMANDS)
def test_each_codec_reads_what_the_other_writes(values: dict[str, CommandValue]) -> None:
    encoded = command.encode(values)

    assert archive_command.encode(values) == encoded
    assert archive_command.decode(encoded) == (values, ())
    assert command.decode(encoded) == DecodedCommand(values)


@given(st.binary(max_size=120) | st.builds(whole, st.binary(max_size=120)))
def test_any_bytes_are_a_command_set_to_both_codecs_or_to_none(encoded: bytes) -> None:
    """What they make of odd values may differ; whether the elements end where the bytes do may not."""
    outcomes = []
    for codec, invalid in (
        (command.decode, InvalidCommand),
        (archive_command.decode, archive_command.InvalidCommand),
    ):
        try:
            codec(encoded)
        except invalid as error:
            outcomes.append(str(error))
        else:
            outcomes.append("")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (CLASS + FIELD, ("it does not begin with the Command Group Length",)),
        (b"", ("it does not begin with the Command Group Length",)),
        (
            element(0, b"\x0e\0\0\0") + CLASS,
            ("the Command Group Length is 14, and 26 bytes follow",),
        ),
        (element(0, b"\x1a\0") + CLASS, ("the Command Group Length has 2 bytes",)),
        (whole(FIELD, CLASS), ("(0000,0002) comes after (0000,0100)",)),
        (whole(FIELD, FIELD), ("(0000,0100) is there twice",)),
        (whole(element(0x0200, b"OLD ")), ("(0000,0200) is no element of a command set",)),
        (
            whole(element(0x0002, b"1.2.3")),
            ("AffectedSOPClassUID has an odd length (5 bytes)",),
        ),
        (
            whole(element(0x0002, b"1.2.3 ")),
            ("AffectedSOPClassUID is not padded with one NUL at most",),
        ),
        (
            whole(element(0x0002, b"1.2\0\0\0")),
            ("AffectedSOPClassUID is not padded with one NUL at most",),
        ),
        (whole(element(0x0002, b"1.2.03")), ("AffectedSOPClassUID '1.2.03' is no UID",)),
        (
            whole(element(0x0002, b"1." + b"2" * 64)),
            ("AffectedSOPClassUID has 66 characters",),
        ),
        (whole(element(0x0600, b"DEST\0\0")), ("MoveDestination holds a NUL",)),
        (whole(element(0x0600, b"D" * 18)), ("MoveDestination has 18 characters",)),
        (whole(element(0x0902, b"x" * 66)), ("ErrorComment has 66 characters",)),
        (
            whole(element(0x0902, b"gr\xfc\xdfe ")),
            ("ErrorComment 'grüße' is not in the default repertoire",),
        ),
    ],
)
def test_what_the_standard_does_not_allow_is_told(encoded: bytes, said: tuple[str, ...]) -> None:
    assert command.decode(encoded).irregularities == said


def test_regular_command_set_has_nothing_told_of_it() -> None:
    assert command.decode(whole(CLASS, FIELD, MESSAGE_ID, TITLE)) == DecodedCommand(
        {
            "AffectedSOPClassUID": "1.2.840.10008.1.1",
            "CommandField": 0x0030,
            "MessageID": 7,
            "MoveDestination": "RESEARCH",
        }
    )


@pytest.mark.parametrize(
    ("number", "raw", "keyword"),
    [
        *((0x0110, bytes(length), "MessageID") for length in (0, 1, 4)),
        (0x0901, bytes(6), "OffendingElement"),
        (0x0002, b"1.2\\3", "AffectedSOPClassUID"),
        (0x0002, b"1.2\n", "AffectedSOPClassUID"),
        (0x0600, b"D\xfcsen", "MoveDestination"),
        (0x0600, b"A\\B ", "MoveDestination"),
    ],
)
def test_value_that_is_none_of_its_vr_is_unreadable(number: int, raw: bytes, keyword: str) -> None:
    decoded = command.decode(whole(element(number, raw)))

    assert (decoded.values, decoded.unreadable) == ({}, (keyword,))


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (whole(CLASS)[:-1], r"element \(0000,0002\) is longer than the command set"),
        (whole(CLASS) + bytes(7), "ends inside an element header"),
        (whole(element(0x0018, b"", group=8)), "group 0008 in a command set"),
    ],
)
def test_what_is_no_command_set_is_invalid(encoded: bytes, said: str) -> None:
    with pytest.raises(InvalidCommand, match=said):
        command.decode(encoded)


@pytest.mark.parametrize(
    "values",
    [
        {"CommandGroupLength": 4},
        {"PatientID": "1"},
        {"MessageID": 0x10000},
        {"MessageID": -1},
        {"MessageID": "7"},
        {"MoveDestination": "D" * 17},
        {"MoveDestination": "A\\B"},
        {"MoveDestination": "D\u00fcsen"},
        {"ErrorComment": "x" * 65},
        {"ErrorComment": "a\\b"},
        {"ErrorComment": "two\nlines"},
        {"AffectedSOPClassUID": "1.2\\3"},
        {"AffectedSOPClassUID": 12},
        {"OffendingElement": 0x00080052},
        {"OffendingElement": (1 << 32,)},
    ],
    ids=str,
)
def test_value_that_none_can_have_is_not_written(values: dict[str, CommandValue]) -> None:
    with pytest.raises(InvalidCommand, match=next(iter(values))):
        command.encode(values)


def test_irregular_uid_is_written_as_it_came() -> None:
    """PS3.7 9.1.1: the response names the instance of the request."""
    uid = "6F9619FF 8B86." + "1" * 60
    encoded = command.encode({"AffectedSOPInstanceUID": uid})

    assert command.decode(encoded).values == {"AffectedSOPInstanceUID": uid}


def test_comment_is_cut_and_keeps_to_the_default_repertoire() -> None:
    comment = command.as_comment("größer\\kleiner\n" + "x" * 100)

    assert comment == "gr??er?kleiner?" + "x" * 49
    assert command.decode(command.encode({"ErrorComment": comment})).irregularities == ()
