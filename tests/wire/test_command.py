"""Command sets as bytes: every cut, round trip, wrong values (PS3.7 6.3.1, Annex E)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.wire import command
from pacs.wire.command import CommandValue, InvalidCommand

_UIDS = st.from_regex(r"[1-9][0-9]{0,5}(\.[1-9][0-9]{0,5}){0,6}", fullmatch=True)
_AE_TITLES = st.from_regex(r"[A-Z0-9_]([ A-Z0-9_]{0,14}[A-Z0-9_])?", fullmatch=True)
_COMMENTS = st.from_regex(r"[!-\[\]-~]([ -\[\]-~]{0,62}[!-\[\]-~])?", fullmatch=True)
_TAGS = st.lists(st.integers(0, 0xFFFFFFFF), min_size=1, max_size=4).map(tuple)
_BY_VR: dict[str, st.SearchStrategy[CommandValue]] = {
    "US": st.integers(0, 0xFFFF),
    "UI": _UIDS,
    "AE": _AE_TITLES,
    "LO": _COMMENTS,
    "AT": _TAGS,
}
COMMANDS = st.fixed_dictionaries(
    {}, optional={keyword: _BY_VR[vr] for keyword, vr in command.ELEMENTS.values()}
)
WHOLE = command.encode(
    {
        "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.2.2.2",
        "CommandField": 0x0021,
        "MessageID": 7,
        "MoveDestination": "RESEARCH",
        "Priority": 0,
        "CommandDataSetType": command.HAS_DATA_SET,
    }
)


@given(
    st.tuples(_UIDS, _UIDS, st.integers(1, 0xFFFF)),
    st.integers(0, 2),
    st.none() | st.tuples(_AE_TITLES, st.integers(0, 0xFFFF)),
)
def test_store_request_of_an_operation_is_the_command_set_of_its_parameters(
    request: tuple[str, str, int], priority: int, originator: tuple[str, int] | None
) -> None:
    sop_class_uid, sop_instance_uid, message_id = request
    title, originator_message_id = originator or (None, None)
    whole = command.encode(
        {
            "AffectedSOPClassUID": sop_class_uid,
            "CommandField": 0x0001,
            "MessageID": message_id,
            "Priority": priority,
            "CommandDataSetType": command.HAS_DATA_SET,
            "AffectedSOPInstanceUID": sop_instance_uid,
            "MoveOriginatorApplicationEntityTitle": title,
            "MoveOriginatorMessageID": originator_message_id,
        }
    )
    requests = command.StoreRequests(priority, originator)

    for _ in range(2):
        assert requests.encode(sop_class_uid, sop_instance_uid, message_id) == whole


@given(COMMANDS)
def test_command_set_survives_the_round_trip(values: dict[str, CommandValue]) -> None:
    assert command.decode(command.encode(values)) == (values, ())


@given(COMMANDS)
def test_encoded_command_set_is_even_and_tells_its_length(values: dict[str, CommandValue]) -> None:
    encoded = command.encode(values)

    assert len(encoded) % 2 == 0
    assert struct.unpack_from("<HHII", encoded) == (0, 0, 4, len(encoded) - 12)


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_command_set_cut_at_any_byte_is_a_value_or_invalid_command(cut: int) -> None:
    try:
        values, ill_typed = command.decode(WHOLE[:cut])
    except InvalidCommand:
        return
    assert not ill_typed
    assert values.items() <= command.decode(WHOLE)[0].items()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_invalid_command(data: bytes) -> None:
    try:
        values, _ = command.decode(data)
    except InvalidCommand:
        return
    assert set(values) <= {keyword for keyword, _ in command.ELEMENTS.values()}


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_command_set_with_one_byte_changed_is_a_value_or_invalid_command(
    position: int, value: int
) -> None:
    changed = bytearray(WHOLE)
    changed[position] = value

    try:
        values, ill_typed = command.decode(changed)
    except InvalidCommand:
        return
    assert set(values) | set(ill_typed) <= {keyword for keyword, _ in command.ELEMENTS.values()}


def test_other_group_is_invalid() -> None:
    with pytest.raises(InvalidCommand, match="group 0008"):
        command.decode(struct.pack("<HHI", 8, 0x0016, 0))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8])
def test_us_element_of_another_length_is_ill_typed(length: int) -> None:
    element = struct.pack("<HHI", 0, 0x0110, length) + bytes(length)

    assert command.decode(element) == ({}, ("MessageID",))


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        ("1.2.840.10008.1.1", "1.2.840.10008.1.1"),
        ("1.2.03.004", "1.2.03.004"),
        ("1.2.3\0", "1.2.3"),
        ("1.2.3 ", "1.2.3"),
        ("", ""),
        ("1" * 128, "1" * 128),
        ("6F9619FF-8B86", "6F9619FF-8B86"),
        ("1.2 3 ", "1.2 3"),
        ("1" * 129, None),
        ("1.2\n", None),
        ("1.2\\3", None),
        ("1.2\0003", None),
    ],
)
def test_uid_is_printable_and_one_value(uid: str, expected: str | None) -> None:
    element = struct.pack("<HHI", 0, 0x0002, len(uid)) + uid.encode()

    values, ill_typed = command.decode(element)

    assert values.get("AffectedSOPClassUID") == expected
    assert bool(ill_typed) is (expected is None)


def test_unknown_and_retired_elements_are_skipped() -> None:
    retired = struct.pack("<HHI", 0, 0x0001, 4) + bytes(4)

    assert command.decode(retired + WHOLE[12:]) == command.decode(WHOLE)


def test_comment_longer_than_its_vr_is_cut() -> None:
    encoded = command.encode({"ErrorComment": "x" * 100 + "\\"})

    assert command.decode(encoded) == ({"ErrorComment": "x" * 64}, ())
