"""Requests whose data set is longer than is kept: answered, the data read and dropped, and aborted when it goes on."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from pacs.dicom.storage_commitment import SOP_CLASS_UID, SOP_INSTANCE_UID
from pacs.wire import command
from tests.dimse.retrieving import recorded
from tests.peers import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    RunningArchive,
    register,
)
from tests.serving import Serve, engine_only
from tests.wire.wire import ABORT, DATA, IMPLICIT, LAST, Wire, message, p_data

MIB = 1 << 20
#: (SOP Class, Command Field, other elements, status) of each service with a data set that is not for storage.
SERVICES: dict[str, tuple[str, int, dict[str, Any], int]] = {
    "C-FIND": (STUDY_ROOT_FIND, 0x0020, {}, 0xA700),
    "C-MOVE": (STUDY_ROOT_MOVE, 0x0021, {"MoveDestination": "SOMEONE"}, 0xA701),
    "C-GET": (STUDY_ROOT_GET, 0x0010, {}, 0xA701),
    "N-ACTION": (
        SOP_CLASS_UID,
        0x0130,
        {
            "AffectedSOPClassUID": None,
            "RequestedSOPClassUID": SOP_CLASS_UID,
            "RequestedSOPInstanceUID": SOP_INSTANCE_UID,
            "ActionTypeID": 1,
        },
        0x0213,
    ),
}
pytestmark = engine_only


def _command(service: str) -> bytes:
    sop_class, command_field, others, _ = SERVICES[service]
    values: dict[str, Any] = {
        "AffectedSOPClassUID": sop_class,
        "CommandField": command_field,
        "MessageID": 7,
        "Priority": None if service == "N-ACTION" else 0,
        "CommandDataSetType": command.HAS_DATA_SET,
    }
    return command.encode(values | others)


def _send(peer: Wire, command_set: bytes, mib: int) -> None:
    """A request whose data set is so long: one element, with a list of UIDs as a value."""
    value = b"1.2\\" * (16 * 1024)
    header = struct.pack("<HHI", 0x0020, 0x000D, mib * MIB)
    peer.send(message(1, command_set) + p_data(1, DATA, header))
    for number in range(mib * MIB // len(value)):
        is_last = (number + 1) * len(value) == mib * MIB
        peer.send(p_data(1, DATA | (LAST if is_last else 0), value))


@pytest.mark.parametrize("service", SERVICES)
def test_request_with_too_long_a_data_set_is_answered_and_the_next_one_too(
    serve: Serve, service: str
) -> None:
    running = serve()
    register(running.archive, "SOMEONE", 104)
    sop_class, _, _, status = SERVICES[service]
    name = "Action Information" if service == "N-ACTION" else "Identifier"

    with Wire(running.port) as peer:
        peer.associate({1: (sop_class, IMPLICIT)})
        for _ in range(2):
            _send(peer, _command(service), 17)
            answer = peer.answer()

            assert f"{answer['Status']:04X}" == f"{status:04X}"
            assert answer["MessageIDBeingRespondedTo"] == 7
            assert answer["ErrorComment"] == f"{name} is longer than 16 MiB"


def test_refused_retrieve_is_recorded(serve: Serve) -> None:
    running = serve()
    with Wire(running.port) as peer:
        peer.associate({1: (STUDY_ROOT_GET, IMPLICIT)})
        _send(peer, _command("C-GET"), 17)
        peer.answer()

    record, _ = recorded(running)
    assert record.outcome is not None
    assert record.outcome.error_comment == "Identifier is longer than 16 MiB"


def test_data_set_that_goes_on_and_on_aborts_the_association(serve: Serve) -> None:
    running = serve()
    with Wire(running.port) as peer:
        peer.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})
        _send(peer, _command("C-FIND"), 65)

        assert peer.ends() == ABORT


# PS3.7 C.5: 0x0211, unrecognised operation


@pytest.mark.parametrize("has_data_set", [False, True])
def test_undefined_command_field_is_0211_and_the_association_goes_on(
    serve: Serve, has_data_set: bool
) -> None:
    running: RunningArchive = serve()
    values: dict[str, Any] = {
        "AffectedSOPClassUID": STUDY_ROOT_FIND,
        "CommandField": 0x0FF0,
        "MessageID": 7,
        "CommandDataSetType": command.HAS_DATA_SET if has_data_set else command.NO_DATA_SET,
    }
    with Wire(running.port) as peer:
        peer.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})
        for _ in range(2):
            peer.send(message(1, command.encode(values), b"some" if has_data_set else None))
            answer = peer.answer()

            assert answer["Status"] == 0x0211
            assert answer["CommandField"] == 0x8FF0
            assert answer["MessageIDBeingRespondedTo"] == 7
            assert answer["AffectedSOPClassUID"] == STUDY_ROOT_FIND
            comment = "Command Field 0FF0 is no operation of this SOP Class"
            assert answer["ErrorComment"] == comment


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"CommandField": 0x8FF0}, id="response to nothing"),
        pytest.param({"MessageID": None}, id="nothing to respond to"),
    ],
)
def test_undefined_command_field_that_cannot_be_answered_aborts(
    serve: Serve, changes: dict[str, Any]
) -> None:
    values: dict[str, Any] = {
        "AffectedSOPClassUID": STUDY_ROOT_FIND,
        "CommandField": 0x0FF0,
        "MessageID": 7,
        "CommandDataSetType": command.NO_DATA_SET,
    }
    with Wire(serve().port) as peer:
        peer.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})
        peer.send(message(1, command.encode(values | changes)))

        assert peer.ends() == ABORT
