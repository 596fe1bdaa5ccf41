"""Maximum length, roles and extended negotiation as they come, also odd ones (PS3.7 Annex D.3, PS3.8 Annex D)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from pydicom.uid import CTImageStorage

from pacs.wire import command
from tests.peers import STUDY_ROOT_FIND, VERIFICATION
from tests.wire.inline import InlineServer, Recorder, recording_server
from tests.wire.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    EXPLICIT,
    IMPLICIT,
    P_DATA,
    RELEASE_PDU,
    RELEASE_RP,
    associate_pdu,
    echo_command,
    message,
    pdu,
)

SOP_CLASS = str(CTImageStorage)
CONTEXTS = {
    1: (VERIFICATION, IMPLICIT),
    3: (SOP_CLASS, EXPLICIT),
    5: (STUDY_ROOT_FIND, IMPLICIT),
}
FIND = command.encode(
    {
        "AffectedSOPClassUID": STUDY_ROOT_FIND,
        "CommandField": 0x0020,
        "MessageID": 4,
        "Priority": 0,
        "CommandDataSetType": command.HAS_DATA_SET,
    }
)
QUERY = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
_USER_INFORMATION, _ROLE, _WINDOW, _EXTENDED, _COMMON, _IDENTITY = (
    0x50,
    0x54,
    0x53,
    0x56,
    0x57,
    0x58,
)


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[InlineServer, Recorder]]:
    """A server that records what reaches its handlers."""
    with recording_server() as running:
        yield running


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def _uid(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _role(uid: str, scu: int, scp: int) -> bytes:
    return _item(_ROLE, _uid(uid) + bytes((scu, scp)))


def _identity(kind: int, answer: int, primary: bytes, secondary: bytes = b"") -> bytes:
    fields = (struct.pack(">H", len(one)) + one for one in (primary, secondary))
    return _item(_IDENTITY, bytes((kind, answer)) + b"".join(fields))


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 0
    while position < len(data):
        kind, length = struct.unpack_from(">BxH", data, position)
        found.append((kind, data[position + 4 : position + 4 + length]))
        position += 4 + length
    return found


def _request(*user_items: bytes) -> bytes:
    """The association request with more user information."""
    body = associate_pdu(CONTEXTS)[6:]
    items = b"".join(
        _item(kind, value + b"".join(user_items) if kind == _USER_INFORMATION else value)
        for kind, value in _items(body[68:])
    )
    return pdu(0x01, body[:68] + items)


def _pdus(stream: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 0
    while position < len(stream):
        kind, length = struct.unpack_from(">BxI", stream, position)
        found.append((kind, stream[position + 6 : position + 6 + length]))
        position += 6 + length
    return found


def _accepted(bench: tuple[InlineServer, Recorder], *user_items: bytes) -> list[tuple[int, bytes]]:
    """The user information of the acceptance; an echo and a release must work after it."""
    server, _ = bench
    stream = _request(*user_items) + message(1, echo_command()) + RELEASE_PDU
    answer = _pdus(server.converse(stream))
    assert [kind for kind, _ in answer] == [ASSOCIATE_AC, P_DATA, RELEASE_RP]
    items = dict(_items(answer[0][1][68:]))
    return _items(items[_USER_INFORMATION])


# Maximum length


def _responses(bench: tuple[InlineServer, Recorder], maximum_length: int | None) -> list[bytes]:
    """The P-DATA bodies that answer a C-FIND."""
    server, _ = bench
    request = associate_pdu(CONTEXTS, maximum_length=maximum_length)
    answer = _pdus(server.converse(request + message(5, FIND, QUERY) + RELEASE_PDU))
    assert (answer[0][0], answer[-1][0]) == (ASSOCIATE_AC, RELEASE_RP)
    return [body for kind, body in answer if kind == P_DATA]


def _joined(bodies: list[bytes]) -> list[tuple[int, bytes]]:
    """Command sets and data sets, whatever fragments they came in."""
    parts, value = [], b""
    for body in bodies:
        length, _, control = struct.unpack_from(">IBB", body)
        assert length == len(body) - 4
        value += body[6:]
        if control & 2:
            parts.append((control & 1, value))
            value = b""
    assert value == b""
    return parts


@pytest.mark.parametrize("maximum_length", [None, 0, 8, 9, 10, 13, 14, 20, 100, 0xFFFFFFFF])
def test_fragments_fit_the_peer_s_maximum_length(
    bench: tuple[InlineServer, Recorder], maximum_length: int | None
) -> None:
    bodies = _responses(bench, maximum_length)

    assert _joined(bodies) == _joined(_responses(bench, 16_384))
    assert max(map(len, bodies)) <= (maximum_length or 16_384)
    assert all(len(body) % 2 == 0 for body in bodies)


@pytest.mark.parametrize("maximum_length", [1, 6, 7])
def test_maximum_length_that_nothing_fits_gets_the_smallest_fragments(
    bench: tuple[InlineServer, Recorder], maximum_length: int
) -> None:
    bodies = _responses(bench, maximum_length)

    assert {len(body) for body in bodies} == {8}


# Roles (PS3.7 D.3.3.4)


@pytest.mark.parametrize(
    ("proposed", "answered"), [((1, 1), (1, 1)), ((0, 1), (0, 1)), ((1, 0), (1, 0))]
)
def test_role_of_a_storage_context_is_accepted(
    bench: tuple[InlineServer, Recorder], proposed: tuple[int, int], answered: tuple[int, int]
) -> None:
    user = _accepted(bench, _role(SOP_CLASS, *proposed))

    assert [value for kind, value in user if kind == _ROLE] == [_uid(SOP_CLASS) + bytes(answered)]


def test_role_of_a_sop_class_without_context_is_not_answered(
    bench: tuple[InlineServer, Recorder],
) -> None:
    assert _ROLE not in dict(_accepted(bench, _role("1.2.3.4", 1, 1)))


@pytest.mark.parametrize(
    "roles",
    [
        pytest.param(_role(SOP_CLASS, 0, 0), id="neither"),
        pytest.param(_role(SOP_CLASS, 1, 1) + _role(SOP_CLASS, 0, 1), id="twice"),
        pytest.param(_role(STUDY_ROOT_FIND, 1, 1), id="query as SCP"),
    ],
)
def test_odd_role_does_no_harm(bench: tuple[InlineServer, Recorder], roles: bytes) -> None:
    _accepted(bench, roles)


# Extended negotiation


def test_sop_class_extended_that_no_handler_negotiates_is_not_answered(
    bench: tuple[InlineServer, Recorder],
) -> None:
    # PS3.7 D.3.3.5: an acceptor that supports none of it returns no item.
    item = _item(_EXTENDED, _uid(STUDY_ROOT_FIND) + b"\1\1\1\1\1")

    assert _EXTENDED not in dict(_accepted(bench, item))


def test_sop_class_common_extended_is_never_answered(
    bench: tuple[InlineServer, Recorder],
) -> None:
    # PS3.7 D.3.3.6: there is no such item in an acceptance.
    related = _uid("1.2.840.10008.5.1.4.1.1.88.22")
    value = _uid(SOP_CLASS) + _uid("1.2.840.10008.4.2") + struct.pack(">H", len(related)) + related

    assert _COMMON not in dict(_accepted(bench, _item(_COMMON, value)))


@pytest.mark.parametrize("window", [(0, 0), (1, 1), (5, 5), (0xFFFF, 1)])
def test_asynchronous_operations_are_not_granted(
    bench: tuple[InlineServer, Recorder], window: tuple[int, int]
) -> None:
    # PS3.7 D.3.3.3: an absent item means one operation at a time.
    assert _WINDOW not in dict(_accepted(bench, _item(_WINDOW, struct.pack(">HH", *window))))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5])
def test_user_identity_is_let_in_without_a_positive_response(
    bench: tuple[InlineServer, Recorder], kind: int
) -> None:
    identity = _identity(kind, 1, b"user", b"secret" if kind == 2 else b"")

    assert 0x59 not in dict(_accepted(bench, identity))


def test_items_of_an_unknown_kind_are_skipped(bench: tuple[InlineServer, Recorder]) -> None:
    _accepted(bench, _item(0x5F, b"what") + _item(0x99, b""))


def test_request_that_came_before_is_negotiated_like_the_first_time(
    bench: tuple[InlineServer, Recorder],
) -> None:
    server, _ = bench
    proposal = associate_pdu({1: (VERIFICATION, IMPLICIT), 3: ("1.2.3.4.5", IMPLICIT)})

    answers = [server.converse(proposal + RELEASE_PDU) for _ in range(3)]

    assert answers[0] == answers[1] == answers[2]
    assert answers[0][0] == ASSOCIATE_AC


def test_rejection_of_a_request_does_not_outlive_its_association(
    bench: tuple[InlineServer, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The state machine writes its reason into the primitive, which is remembered for this peer.
    server, _ = bench
    proposal = associate_pdu({1: (VERIFICATION, IMPLICIT)})
    with monkeypatch.context() as other:
        other.setattr(server.ae, "_require_called_aet", True)
        other.setattr(server, "ae_title", "OTHER")
        refused = server.converse(proposal)

    accepted = server.converse(proposal + RELEASE_PDU)

    assert (refused[0], accepted[0]) == (ASSOCIATE_RJ, ASSOCIATE_AC)


def test_user_identity_that_came_before_is_let_in_like_the_first_time(
    bench: tuple[InlineServer, Recorder],
) -> None:
    # Stock negotiation takes the item out of the list that it was found in.
    identity = _identity(2, 1, b"user", b"secret")

    assert _accepted(bench, identity) == _accepted(bench, identity)
