"""C-FIND responses on their way: which leave together, in which encodings, and in how many fragments."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import build_context

from pacs.dimse.find_responses import EncodedIdentifier, FindResponses
from pacs.wire import command
from pacs.wire.history import History
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_FIND,
    RunningArchive,
    association,
    deposit,
    identifier,
    responses,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import (
    COMMAND,
    DATA,
    IMPLICIT,
    LAST,
    P_DATA,
    Wire,
    associate_pdu,
    message,
)

PENDING, NOT_SUPPORTED, SUCCESS = 0xFF00, 0xFF01, 0x0000


@dataclass
class _Peer:
    """Takes what is sent, in place of an association."""

    blocks: list[bytes] = field(default_factory=list)
    max_fragment_bytes: int = 1 << 20

    def send_block(self, block: memoryview) -> None:
        self.blocks.append(bytes(block))


def _responses(peer: _Peer) -> tuple[FindResponses, History]:
    history = History()
    request = SimpleNamespace(AffectedSOPClassUID=STUDY_ROOT_FIND, MessageID=7)
    assoc: Any = SimpleNamespace(dimse=peer, history=history)
    return FindResponses(assoc, request, SimpleNamespace(context_id=3)), history


def _messages(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and data set of each message in a block."""
    position, part, status = 0, b"", 0
    while position < len(block):
        _, _, length, item, context, control = struct.unpack_from(">BBIIBB", block, position)
        assert (item, context) == (length - 4, 3)
        part += block[position + 12 : position + 6 + length]
        position += 6 + length
        if not control & LAST:
            continue
        if control & COMMAND:
            values, _ = command.decode(part)
            assert values["MessageIDBeingRespondedTo"] == 7
            assert values["AffectedSOPClassUID"] == STUDY_ROOT_FIND
            assert values["CommandField"] == 0x8020
            assert values["CommandDataSetType"] != command.NO_DATA_SET
            assert isinstance(values["Status"], int)
            status = values["Status"]
        else:
            yield status, part
        part = b""


def _sent(peer: _Peer) -> list[list[tuple[int, bytes]]]:
    return [list(_messages(block)) for block in peer.blocks]


def test_first_response_goes_out_at_once_and_the_others_of_a_page_together() -> None:
    peer = _Peer()
    found, history = _responses(peer)

    found.add(PENDING, EncodedIdentifier(b"first", more_at_hand=True))
    assert _sent(peer) == [[(PENDING, b"first")]]
    assert history.pending == 1
    found.add(PENDING, EncodedIdentifier(b"second", more_at_hand=True))
    found.add(NOT_SUPPORTED, EncodedIdentifier(b"third", more_at_hand=True))
    assert len(peer.blocks) == 1
    assert history.pending == 1
    found.add(PENDING, EncodedIdentifier(b"last", more_at_hand=False))

    together = [(PENDING, b"second"), (NOT_SUPPORTED, b"third"), (PENDING, b"last")]
    assert _sent(peer) == [[(PENDING, b"first")], together]
    assert history.pending == 4


def test_responses_that_wait_are_sent_before_anything_else_and_once() -> None:
    peer = _Peer()
    found, history = _responses(peer)
    found.add(PENDING, EncodedIdentifier(b"1", more_at_hand=True))
    found.add(PENDING, EncodedIdentifier(b"2", more_at_hand=True))

    found.flush()
    found.flush()

    assert _sent(peer) == [[(PENDING, b"1")], [(PENDING, b"2")]]
    assert history.pending == 2


def test_responses_that_wait_are_bounded_in_bytes() -> None:
    peer = _Peer()
    found, _ = _responses(peer)

    for _ in range(41):
        found.add(PENDING, EncodedIdentifier(b"x" * 10_000, more_at_hand=True))

    assert [len(messages) for messages in _sent(peer)] == [1, 7, 7, 7, 7, 7]


def test_response_longer_than_a_fragment_is_sent_in_several() -> None:
    peer = _Peer(max_fragment_bytes=10)
    found, _ = _responses(peer)

    found.add(PENDING, EncodedIdentifier(bytes(range(25)), more_at_hand=False))

    assert _sent(peer) == [[(PENDING, bytes(range(25)))]]
    assert max(struct.unpack_from(">I", peer.blocks[0], 2)) <= 16


def _library() -> list[Dataset]:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "B", "99X", "Größe"
    return [
        make_instance(
            SpecificCharacterSet="ISO_IR 100",
            PatientID=f"P-{number}",
            PatientName=name,
            StudyInstanceUID=f"1.2.276.5.{number}",
            StudyDescription=name,
            # Of the one with Items a data set is made.
            ProcedureCodeSequence=Sequence([code] if number == 2 else []),
            OtherPatientNames=["Roe", name],
            PatientWeight="71.50",
        )
        for number, name in enumerate(["Doe^Jane", "Müller^Jürgen", "Größe^B", "Zoe", "Äneas"])
    ]


@pytest.fixture
def library(service: RunningArchive) -> RunningArchive:
    """A running archive with five studies."""
    deposit(service.archive, *_library())
    return service


_KEYS = {
    "StudyInstanceUID": "",
    "PatientName": "",
    "PatientID": "",
    "StudyDescription": "",
    "ProcedureCodeSequence": None,
    "OtherPatientNames": "",
    "PatientWeight": None,
    "ModalitiesInStudy": "",
    "NumberOfStudyRelatedInstances": None,
}


@pytest.mark.parametrize("requested", ["ISO_IR 100", "ISO_IR 192", None])
def test_find_says_the_same_in_every_transfer_syntax(
    library: RunningArchive, requested: str | None
) -> None:
    character_set = {} if requested is None else {"SpecificCharacterSet": requested}
    query = identifier("STUDY", **character_set, **_KEYS)
    said = []
    for syntax in (
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ):
        with association(library, build_context(STUDY_ROOT_FIND, syntax)) as assoc:
            *pending, final = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))
        assert [one.status for one in pending] == [PENDING] * 5
        assert final.status == SUCCESS
        found = [one.identifier for one in pending]
        said.append([_as_implicit(one) for one in found if one is not None])

    names = sorted(str(one.PatientName) for one in said[0])
    assert names == sorted(str(one.PatientName) for one in _library())
    assert [len(one.ProcedureCodeSequence) for one in said[0]] == [0, 0, 1, 0, 0]
    assert {str(one.OtherPatientNames[0]) for one in said[0]} == {"Roe"}
    assert {one.NumberOfStudyRelatedInstances for one in said[0]} == {1}
    assert said[1:] == [said[0]] * 3


def _as_implicit(data_set: Dataset) -> Dataset:
    """The same, as if it had come in Implicit VR, so that it can be compared."""
    encoded = encode(data_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    found = decode(BytesIO(encoded), is_implicit_vr=True, is_little_endian=True)
    found.decode()
    return found


@engine_on_sqlite
def test_find_to_a_peer_with_a_small_maximum_length_is_whole(serve: Serve) -> None:
    running = serve()
    deposit(running.archive, *_library())
    keys = identifier("STUDY", StudyInstanceUID="", PatientName="", StudyDescription="")
    request = command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_FIND,
            "CommandField": 0x0020,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
        }
    )
    encoded = encode(keys, is_implicit_vr=True, is_little_endian=True)

    with Wire(running.port) as peer:
        peer.send(associate_pdu({1: (STUDY_ROOT_FIND, IMPLICIT)}, maximum_length=32))
        peer.receive()
        peer.send(message(1, request, encoded))
        lengths, parts = [], [b""]
        while True:
            pdu_type, body = peer.receive()
            assert pdu_type == P_DATA
            lengths.append(len(body))
            control = body[5]
            parts[-1] += body[6:]
            if control == COMMAND | LAST:
                values, _ = command.decode(parts.pop())
                parts.append(b"")
                if values["Status"] == SUCCESS:
                    break
            elif control == DATA | LAST:
                parts.append(b"")
        peer.send(struct.pack(">BBI4x", 5, 0, 4))

    assert max(lengths) <= 32
    assert len(parts) == 6
    assert all(f"1.2.276.5.{number}".encode() in parts[number] for number in range(5))
