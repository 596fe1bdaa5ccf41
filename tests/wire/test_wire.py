"""Robustness against bytes that break PS3.8: the peer is aborted or answered, everybody else goes on."""

from __future__ import annotations

import random
import select
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom.uid import CTImageStorage

from pacs.config import Settings
from pacs.server import Server
from pacs.storage.spool import SMALL_BYTES
from pacs.wire import command
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    RunningArchive,
    association,
    data_set_bytes,
    engine_associations,
    spool_files,
    stored_bytes,
    wait_until,
)
from tests.serving import engine_on_sqlite, settings
from tests.wire.wire import (
    ABORT,
    ABORT_PDU,
    ASSOCIATE_RJ,
    COMMAND,
    DATA,
    EXPLICIT,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_PDU,
    RELEASE_RP,
    Wire,
    associate_pdu,
    echo_command,
    message,
    p_data,
    pdu,
    pdv,
    store_command,
)

INSTANCE = make_instance()
UID = str(INSTANCE.SOPInstanceUID)
SOP_CLASS = str(CTImageStorage)
DATA_SET = data_set_bytes(INSTANCE)
LARGE_INSTANCE = make_instance()
LARGE_INSTANCE["PixelData"].value = bytes(80_000)
LARGE_DATA_SET = data_set_bytes(LARGE_INSTANCE)
STORE = store_command(SOP_CLASS, UID)
STORAGE_CONTEXT = {1: (SOP_CLASS, EXPLICIT)}
_NETWORK_TIMEOUT_SECONDS = 0.5


@pytest.fixture(scope="module")
def server(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running archive whose peers have to be quick."""
    running = Server(_quick(tmp_path_factory.mktemp("wire")))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running archive with longer time-outs than the peers of this module wait for anything."""
    running = Server(
        settings(
            tmp_path_factory.mktemp("patient"), acse_timeout_seconds=1, network_timeout_seconds=60
        )
    )
    running.start()
    yield running
    running.stop()


def _quick(directory: Path, **overrides: object) -> Settings:
    return settings(
        directory,
        **{
            "acse_timeout_seconds": 0.3,
            "network_timeout_seconds": _NETWORK_TIMEOUT_SECONDS,
            "dimse_timeout_seconds": 1,
        }
        | overrides,
    )


@pytest.fixture(autouse=True)
def nothing_is_left(server: Server) -> Iterator[None]:
    """After each test: others are served, and no association, thread, socket or spool file is left."""
    threads = _threads()
    yield
    with association(server, VERIFICATION) as assoc:
        assert assoc.send_c_echo().Status == 0x0000
    wait_until(lambda: not engine_associations(server))
    wait_until(lambda: _threads() <= threads)
    wait_until(lambda: not _open_sockets(server.port))
    assert spool_files(server.archive) == []


def _threads() -> int:
    # The archive starts its settler with the first store, for as long as it lives.
    return len([one for one in threading.enumerate() if one.name != "settler"])


def _open_sockets(port: int) -> list[object]:
    """The accepted connections of a server in this process that it has not closed."""
    return [
        one
        for one in psutil.Process().net_connections("tcp")
        if one.laddr.port == port and one.status != psutil.CONN_LISTEN
    ]


# Before an association


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="TLS"),
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(random.Random(7).randbytes(4000), id="random"),
        pytest.param(pdu(0x01, b""), id="empty associate"),
        pytest.param(pdu(0x01, random.Random(8).randbytes(300)), id="random associate"),
        pytest.param(struct.pack(">BBI", 0x01, 0, 0xFFFFFFFF) + bytes(100), id="4 GiB associate"),
        pytest.param(struct.pack(">BBI", 0x04, 0, 0x7FFFFFFF) + bytes(100), id="2 GiB data"),
        pytest.param(message(1, echo_command()), id="data before association"),
        pytest.param(RELEASE_PDU, id="release before association"),
        pytest.param(ABORT_PDU, id="abort before association"),
        pytest.param(associate_pdu({1: (VERIFICATION, IMPLICIT)})[:-1] + b"", id="one byte short"),
    ],
)
def test_garbage_instead_of_an_association_ends_the_connection(server: Server, data: bytes) -> None:
    with Wire(server.port) as peer:
        peer.send(data)

        assert peer.ends() in (0, ABORT, ASSOCIATE_RJ)


def test_oversized_associate_request_is_given_up_at_once_with_one_line(
    patient: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with Wire(patient.port) as peer:
        peer.send(struct.pack(">BBI", 0x01, 0, 0xFFFFFFFF))

        assert peer.ends() == ABORT
        wait_until(lambda: not engine_associations(patient))
    # Not those of an archive of an earlier test, whose index is gone.
    wait_until(lambda: [one for one in caplog.records if one.name.startswith("pacs.wire")])
    assert len([one for one in caplog.records if one.name.startswith("pacs.wire")]) == 1


@pytest.mark.parametrize("with_reset", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">BBIBBBB", ABORT, 0, 4, 0, 0, 75, 99), id="abort by nobody"),
        pytest.param(
            associate_pdu({2: (VERIFICATION, IMPLICIT)}), id="associate with an even context"
        ),
        pytest.param(pdu(0x03, b"\0\x09\x09\x09"), id="reject by nobody"),
        pytest.param(pdu(0x01, bytes(70)), id="associate of zeros"),
    ],
)
@pytest.mark.parametrize("is_established", [False, True])
def test_pdu_with_values_that_do_not_exist_is_no_unforeseen_error(
    server: Server,
    caplog: pytest.LogCaptureFixture,
    is_established: bool,
    data: bytes,
    with_reset: bool,
) -> None:
    with Wire(server.port) as peer:
        if is_established:
            peer.associate()
        peer.send(data)
        if with_reset:
            peer.reset()
        else:
            peer.ends()
    wait_until(lambda: not engine_associations(server))

    assert not [record for record in caplog.records if record.exc_info]


def test_connection_without_a_word_is_closed_in_time(server: Server) -> None:
    started = time.monotonic()

    with Wire(server.port) as peer:
        assert peer.ends() in (0, ABORT)

    assert time.monotonic() - started < 4


def test_associate_request_that_drips_in_costs_the_acse_timeout(patient: Server) -> None:
    started = time.monotonic()

    with Wire(patient.port) as peer:
        for value in associate_pdu({1: (VERIFICATION, IMPLICIT)})[:-1]:
            peer.send(bytes((value,)))
            if select.select([peer.sock], [], [], 0.05)[0]:
                break

        assert peer.ends() == ABORT
    assert time.monotonic() - started < 3


def test_associate_request_cut_at_any_byte_leaves_nothing(server: Server) -> None:
    request = associate_pdu({1: (VERIFICATION, IMPLICIT)})

    for cut in range(0, len(request), 9):
        with Wire(server.port) as peer:
            peer.send(request[:cut])

    wait_until(lambda: not engine_associations(server))


def test_associate_request_byte_by_byte_is_accepted(server: Server) -> None:
    with Wire(server.port) as peer:
        for value in associate_pdu({1: (VERIFICATION, IMPLICIT)})[:-1]:
            peer.send(bytes((value,)))
        peer.send(b"9")
        assert peer.receive()[0] == 0x02
        peer.send(RELEASE_PDU)
        assert peer.ends() == RELEASE_RP


def test_requestor_without_a_maximum_length_is_served(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, maximum_length=None))
        assert peer.receive()[0] == 0x02
        peer.send(message(1, echo_command()))
        assert peer.answer()["Status"] == 0x0000


def test_requestor_with_a_tiny_maximum_length_gets_fragments_that_fit(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, maximum_length=16))
        assert peer.receive()[0] == 0x02
        peer.send(message(1, echo_command()))
        first = peer.receive()
        assert first[0] == P_DATA
        assert len(first[1]) <= 16


# Inside an association


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">BBI", 0x04, 0, 0xFFFFFFFF), id="4 GiB announced"),
        pytest.param(struct.pack(">BBI", 0x04, 0, 131_072 + 65), id="more than announced to peers"),
        pytest.param(pdu(0x04, b""), id="no item"),
        pytest.param(pdu(0x04, b"\0\0\0"), id="cut in an item header"),
        pytest.param(pdu(0x04, struct.pack(">IBB", 1, 1, 3)), id="item length one"),
        pytest.param(pdu(0x04, struct.pack(">IBB", 500, 1, 3) + b"x"), id="item beyond the PDU"),
        pytest.param(pdu(0x09, b"abcd"), id="unknown PDU type"),
        pytest.param(pdu(0x00, b""), id="PDU type zero"),
        pytest.param(p_data(3, COMMAND | LAST, echo_command()), id="context never proposed"),
        pytest.param(p_data(2, COMMAND | LAST, echo_command()), id="even context"),
        pytest.param(p_data(1, DATA | LAST, b"data"), id="data before command"),
        pytest.param(p_data(1, COMMAND | LAST, b""), id="empty command set"),
        pytest.param(p_data(1, COMMAND | LAST, b"\xff" * 40), id="command set of ones"),
        pytest.param(p_data(1, COMMAND | LAST, echo_command()[:-1]), id="command set cut short"),
        pytest.param(
            p_data(1, COMMAND | LAST, echo_command(CommandField=0x8FF0)), id="unknown response"
        ),
        pytest.param(
            p_data(1, COMMAND | LAST, echo_command(CommandField=None)), id="no command field"
        ),
        pytest.param(p_data(1, COMMAND | LAST, echo_command(MessageID=None)), id="no message ID"),
        pytest.param(
            p_data(1, COMMAND, echo_command()[:20]) + p_data(1, DATA | LAST, b"x"),
            id="data inside a command",
        ),
        pytest.param(
            p_data(1, COMMAND | LAST, echo_command(CommandDataSetType=1))
            + p_data(1, COMMAND | LAST, echo_command(2)),
            id="command inside a data set",
        ),
        pytest.param(pdu(0x04, pdv(1, COMMAND, bytes(60_000)) * 2), id="command set over 64 KiB"),
        pytest.param(
            pdu(0x04, b"".join(pdv(1, COMMAND | LAST, echo_command(n)) for n in range(40))),
            id="40 requests at once",
        ),
        pytest.param(associate_pdu({1: (VERIFICATION, IMPLICIT)}), id="a second association"),
    ],
)
def test_protocol_violation_aborts_the_association(patient: Server, data: bytes) -> None:
    with Wire(patient.port) as peer:
        peer.associate()

        peer.send(data)

        assert peer.ends() == ABORT
    wait_until(lambda: not engine_associations(patient))


def test_interleaved_messages_of_two_contexts_abort_the_association(patient: Server) -> None:
    whole = echo_command()
    with Wire(patient.port) as peer:
        peer.associate({1: (VERIFICATION, IMPLICIT), 3: (VERIFICATION, EXPLICIT)})

        peer.send(p_data(1, COMMAND, whole[:10]) + p_data(3, COMMAND | LAST, whole[10:]))

        assert peer.receive()[0] == ABORT


def test_stall_inside_a_pdu_costs_the_network_timeout(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate()
        started = time.monotonic()

        peer.send(message(1, echo_command())[:11])

        assert peer.ends() == ABORT
    assert time.monotonic() - started < 3


def test_pdu_that_drips_in_is_given_up(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate()
        started = time.monotonic()
        thread = threading.Thread(target=_drip, args=(peer, message(1, echo_command())))
        thread.start()

        assert peer.ends() == ABORT
        assert time.monotonic() - started < 3
        thread.join()


def _drip(peer: Wire, data: bytes) -> None:
    for value in data[:12]:
        peer.send(bytes((value,)))
        time.sleep(0.2)


def test_idle_association_is_aborted_after_the_network_timeout(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate()

        assert peer.ends() == ABORT


def test_command_set_cut_into_two_fragments_at_any_byte_is_served(server: Server) -> None:
    whole = echo_command()
    with Wire(server.port) as peer:
        peer.associate()

        for cut in range(len(whole) + 1):
            peer.send(p_data(1, COMMAND, whole[:cut]) + p_data(1, COMMAND | LAST, whole[cut:]))
            assert peer.answer()["Status"] == 0x0000


def test_command_set_byte_by_byte_in_one_pdu_is_served(server: Server) -> None:
    whole = echo_command()
    items = [pdv(1, COMMAND, bytes((value,))) for value in whole] + [pdv(1, COMMAND | LAST, b"")]
    with Wire(server.port) as peer:
        peer.associate()

        peer.send(pdu(P_DATA, b"".join(items)))

        assert peer.answer()["Status"] == 0x0000


def test_message_packed_into_one_pdu_is_stored(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        half = len(DATA_SET) // 2
        items = [
            pdv(1, COMMAND | LAST, STORE),
            pdv(1, DATA, DATA_SET[:half]),
            pdv(1, DATA, b""),
            pdv(1, DATA | LAST, DATA_SET[half:]),
        ]
        peer.send(pdu(P_DATA, b"".join(items)))

        assert peer.answer()["Status"] == 0x0000
    assert stored_bytes(server.archive, UID) == DATA_SET


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_data_set_in_small_fragments_is_stored_whole(server: Server, size: int) -> None:
    fragments = [DATA_SET[at : at + size] for at in range(0, len(DATA_SET), size)]
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(p_data(1, COMMAND | LAST, STORE))
        for fragment in fragments:
            peer.send(p_data(1, DATA, fragment))
        peer.send(p_data(1, DATA | LAST, b""))

        assert peer.answer()["Status"] == 0x0000
    assert stored_bytes(server.archive, UID) == DATA_SET


def test_data_set_that_is_empty_is_answered(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, STORE, b""))

        assert int(str(peer.answer()["Status"])) & 0xF000 in (0xA000, 0xC000)


def test_store_that_announces_no_data_set_is_answered(server: Server) -> None:
    bare = store_command(SOP_CLASS, UID, CommandDataSetType=command.NO_DATA_SET)
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, bare))
        assert int(str(peer.answer()["Status"])) not in (0x0000, 0xB000)
        peer.send(message(1, STORE, DATA_SET))
        assert peer.answer()["Status"] == 0x0000


@pytest.mark.parametrize(
    "uid", ["../../etc/passwd", "1.2.3/4", "abc", "1.2\n3", "1." + "2" * 80, "", "1.2.\xff"]
)
def test_store_under_a_uid_that_is_none_is_refused_and_the_association_lives(
    server: Server, uid: str
) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, store_command(SOP_CLASS, uid), DATA_SET))
        refused = int(str(peer.answer()["Status"]))
        peer.send(message(1, store_command(SOP_CLASS, UID, 2), DATA_SET))
        accepted = peer.answer()

    assert refused & 0xF000 in (0xA000, 0xC000) or refused == 0x0212
    assert (accepted["Status"], accepted["MessageIDBeingRespondedTo"]) == (0x0000, 2)
    assert accepted["AffectedSOPInstanceUID"] == UID


@pytest.mark.parametrize("ending", ["abort", "close", "reset", "stall", "release"])
@pytest.mark.parametrize(
    "data",
    [b"", DATA_SET[:100], LARGE_DATA_SET[:70_000], LARGE_DATA_SET[:-1]],
    ids=["nothing", "a part of a small one", "a part", "all but one byte"],
)
def test_sender_that_ends_in_the_middle_of_a_store_leaves_nothing(
    server: Server, ending: str, data: bytes
) -> None:
    before = server.archive.index.stats().instances
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)
        peer.send(p_data(1, COMMAND | LAST, store_command(SOP_CLASS, "1.2.3.9")))
        for at in range(0, len(data), 10_000):
            peer.send(p_data(1, DATA, data[at : at + 10_000]))
        # What is small has no file yet.
        wait_until(lambda: engine_associations(server))
        wait_until(lambda: bool(spool_files(server.archive)) == (len(data) > SMALL_BYTES))

        {
            "abort": lambda: peer.send(ABORT_PDU),
            "close": peer.sock.close,
            "reset": peer.reset,
            "stall": lambda: None,
            "release": lambda: peer.send(RELEASE_PDU),
        }[ending]()

        wait_until(lambda: not spool_files(server.archive))
    wait_until(lambda: not engine_associations(server))
    assert server.archive.index.stats().instances == before


def test_store_under_a_uid_with_leading_zeros_is_stored_without_a_warning(server: Server) -> None:
    proper = data_set_bytes(make_instance(SOPInstanceUID="1.2.33.444"))
    data = proper.replace(b"1.2.33.444", b"1.2.03.004")
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, store_command(SOP_CLASS, "1.2.03.004"), data))

        assert peer.answer()["Status"] == 0x0000
    assert stored_bytes(server.archive, "1.2.03.004") == data


def test_release_during_find_is_answered(server: Server) -> None:
    query = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
    find = command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_FIND,
            "CommandField": 0x0020,
            "MessageID": 1,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
        }
    )
    with Wire(server.port) as peer:
        peer.associate({1: (STUDY_ROOT_FIND, IMPLICIT)})

        peer.send(message(1, find, query) + RELEASE_PDU)

        assert peer.ends() == RELEASE_RP


def test_release_directly_after_a_store_request_is_answered_after_the_store(
    server: Server,
) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, STORE, DATA_SET) + RELEASE_PDU)

        assert peer.ends() == RELEASE_RP
    assert stored_bytes(server.archive, UID) == DATA_SET


def test_requests_sent_ahead_are_answered_in_order(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate()

        peer.send(b"".join(message(1, echo_command(number)) for number in range(1, 11)))

        answered = [peer.answer()["MessageIDBeingRespondedTo"] for _ in range(10)]
    assert answered == list(range(1, 11))


def test_request_with_the_message_id_of_one_in_progress_is_0210(server: Server) -> None:
    echo = pdv(1, COMMAND | LAST, echo_command(7))

    with Wire(server.port) as wire:
        wire.associate()
        wire.send(pdu(P_DATA, echo + echo))
        answers = [wire.answer() for _ in range(2)]
        wire.send(pdu(P_DATA, echo))
        later = wire.answer()

    assert [answer["Status"] for answer in answers] == [0x0000, 0x0210]
    assert later["Status"] == 0x0000


def test_cancels_without_a_request_are_ignored(server: Server) -> None:
    cancels = b"".join(
        message(
            1,
            command.encode(
                {
                    "CommandField": 0x0FFF,
                    "MessageIDBeingRespondedTo": number,
                    "CommandDataSetType": command.NO_DATA_SET,
                }
            ),
        )
        for number in range(1000)
    )
    with Wire(server.port) as peer:
        peer.associate()

        peer.send(cancels + message(1, echo_command(5)))

        assert peer.answer()["MessageIDBeingRespondedTo"] == 5


def test_response_that_nobody_waits_for_is_ignored(server: Server) -> None:
    response = echo_command(CommandField=0x8030, MessageIDBeingRespondedTo=7, Status=0)
    with Wire(server.port) as peer:
        peer.associate()

        peer.send(message(1, response) + message(1, echo_command(5)))

        assert peer.answer()["MessageIDBeingRespondedTo"] == 5


# Command sets that say what cannot be (PS3.7 C.5)


def _wrong_length(keyword: str, whole: bytes) -> bytes:
    """The command set with four bytes where a US element has two."""
    number = next(one for one, (name, _) in command.ELEMENTS.items() if name == keyword)
    at = whole.index(struct.pack("<HHI", 0, number, 2))
    return whole[:at] + struct.pack("<HHII", 0, number, 4, 1) + whole[at + 10 :]


def test_message_id_of_wrong_length_aborts(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate()

        peer.send(message(1, _wrong_length("MessageID", echo_command())))

        assert peer.ends() == ABORT


def test_priority_of_wrong_length_is_0212(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, _wrong_length("Priority", STORE), DATA_SET))
        answer = peer.answer()

    assert answer["Status"] == 0x0212
    assert "Priority" in str(answer["ErrorComment"])


def _move_command(destination: str | None) -> bytes:
    return command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_MOVE,
            "CommandField": 0x0021,
            "MessageID": 1,
            "MoveDestination": destination,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
        }
    )


@pytest.mark.parametrize("destination", [None, "", "   ", "SEVENTEENLETTERS1", "A\\B"])
def test_move_destination_that_is_no_ae_title_is_0212(
    server: Server, destination: str | None
) -> None:
    with Wire(server.port) as peer:
        peer.associate({1: (STUDY_ROOT_MOVE, IMPLICIT)})

        peer.send(message(1, _move_command(destination), b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "))
        answer = peer.answer()

    assert answer["Status"] == 0x0212


@pytest.mark.parametrize("missing", ["AffectedSOPClassUID", "AffectedSOPInstanceUID"])
def test_store_without_a_mandatory_element_is_0212(server: Server, missing: str) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, store_command(SOP_CLASS, UID, **{missing: None}), DATA_SET))
        answer = peer.answer()

    assert answer["Status"] == 0x0212
    assert missing in str(answer["ErrorComment"])


def test_other_sop_class_than_the_context_has_is_0122(server: Server) -> None:
    with Wire(server.port) as peer:
        peer.associate(STORAGE_CONTEXT)

        peer.send(message(1, store_command("1.2.840.10008.5.1.4.1.1.4", UID), DATA_SET))

        assert peer.answer()["Status"] == 0x0122


@pytest.mark.parametrize(
    ("context", "field"),
    [
        pytest.param((VERIFICATION, IMPLICIT), 0x0130, id="N-ACTION on Verification"),
        pytest.param((VERIFICATION, IMPLICIT), 0x0110, id="N-GET on Verification"),
        pytest.param((VERIFICATION, IMPLICIT), 0x0001, id="C-STORE on Verification"),
        pytest.param((VERIFICATION, IMPLICIT), 0x0020, id="C-FIND on Verification"),
        pytest.param((SOP_CLASS, EXPLICIT), 0x0030, id="C-ECHO on CT"),
        pytest.param((SOP_CLASS, EXPLICIT), 0x0010, id="C-GET on CT"),
        pytest.param((SOP_CLASS, EXPLICIT), 0x0140, id="N-CREATE on CT"),
        pytest.param((STUDY_ROOT_MOVE, IMPLICIT), 0x0020, id="C-FIND on MOVE"),
        pytest.param((STUDY_ROOT_FIND, IMPLICIT), 0x0021, id="C-MOVE on FIND"),
        pytest.param((STUDY_ROOT_FIND, IMPLICIT), 0x0001, id="C-STORE on FIND"),
    ],
)
def test_operation_that_the_sop_class_has_not_is_0211(
    server: Server, context: tuple[str, str], field: int
) -> None:
    request = command.encode(
        {
            "AffectedSOPClassUID": context[0],
            "RequestedSOPClassUID": context[0] if field & 0x0100 else None,
            "CommandField": field,
            "MessageID": 3,
            "MoveDestination": "DEST" if field == 0x0021 else None,
            "Priority": 0,
            "CommandDataSetType": command.NO_DATA_SET,
            "AffectedSOPInstanceUID": UID,
            "RequestedSOPInstanceUID": UID if field & 0x0100 else None,
            "ActionTypeID": 1 if field == 0x0130 else None,
        }
    )
    with Wire(server.port) as peer:
        peer.associate({1: context})

        peer.send(message(1, request))
        answer = peer.answer()

    assert answer["Status"] == 0x0211
    assert answer["MessageIDBeingRespondedTo"] == 3
    assert answer["CommandField"] == field | 0x8000


@engine_on_sqlite
def test_peer_that_stalls_does_not_delay_another(service: RunningArchive) -> None:
    with Wire(service.port) as stalled:
        stalled.associate(STORAGE_CONTEXT)
        stalled.send(message(1, STORE, DATA_SET)[:200])
        started = time.monotonic()

        with Wire(service.port) as peer:
            peer.associate()
            peer.send(message(1, echo_command()))
            assert peer.answer()["Status"] == 0x0000

        # The network time-out, which is how long the stalled one may stay, is 10 s here.
        assert time.monotonic() - started < 5
