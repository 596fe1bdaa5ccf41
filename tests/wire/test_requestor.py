"""Our engine as requestor, against peers that end an association in odd ways (PS3.8 9.2)."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pynetdicom import evt
from pynetdicom.presentation import build_context

from pacs.dimse.ae import Options, make_ae
from pacs.wire.association import EngineAssociation
from tests.peers import VERIFICATION, Destination, closed_port
from tests.wire.wire import (
    ABORT,
    ABORT_PDU,
    ASSOCIATE_AC,
    IMPLICIT,
    P_DATA,
    RELEASE_ANSWER_PDU,
    RELEASE_PDU,
    RELEASE_RP,
    RELEASE_RQ,
    Wire,
    associate_pdu,
    echo_command,
    message,
    pdu,
    pdv,
)

Script = Callable[[Wire], None]


@contextmanager
def _acceptor(script: Script) -> Iterator[int]:
    """A peer that accepts one connection and then does what the script says."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)
    problems: list[BaseException] = []

    def serve() -> None:
        wire = Wire.__new__(Wire)
        wire.sock, _ = listener.accept()
        wire.sock.settimeout(5)
        try:
            with wire:
                script(wire)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        thread.join(10)
        listener.close()
    assert problems == []


def _accept(wire: Wire, syntax: str = IMPLICIT) -> None:
    """Answer an association request: its only context is accepted."""
    pdu_type, body = wire.receive()
    assert pdu_type == 0x01
    result = struct.pack(">BBH", 0x40, 0, len(syntax)) + syntax.encode()
    context = struct.pack(">BBHBBBB", 0x21, 0, 4 + len(result), 1, 0, 0, 0) + result
    name = b"1.2.840.10008.3.1.1.1"
    application = struct.pack(">BBH", 0x10, 0, len(name)) + name
    user = struct.pack(">BBHI", 0x51, 0, 4, 16_384) + struct.pack(">BBH", 0x52, 0, 5) + b"1.2.3"
    user = struct.pack(">BBH", 0x50, 0, len(user)) + user
    wire.send(pdu(ASSOCIATE_AC, body[:68] + application + context + user))


def _associate(port: int, **options: float) -> EngineAssociation:
    ae = make_ae(Options(acse_timeout_seconds=options.get("acse", 2), dimse_timeout_seconds=1))
    return ae.associate("127.0.0.1", port, contexts=[build_context(VERIFICATION)], ae_title="PEER")


def test_release_is_answered_and_the_connection_closed() -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        assert wire.receive()[0] == RELEASE_RQ
        wire.send(RELEASE_ANSWER_PDU)
        assert wire.receive()[0] == 0

    with _acceptor(script) as port:
        assoc = _associate(port)
        assert assoc.is_established
        assoc.release()

    assert assoc.is_released


def test_release_collision_ends_well() -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        assert wire.receive()[0] == RELEASE_RQ
        wire.send(RELEASE_PDU)
        assert wire.receive()[0] == RELEASE_RP
        wire.send(RELEASE_ANSWER_PDU)
        assert wire.receive()[0] == 0

    with _acceptor(script) as port:
        assoc = _associate(port)
        started = time.monotonic()
        assoc.release()

    assert time.monotonic() - started < 2


def test_release_that_nobody_answers_is_bounded() -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        while wire.receive()[0]:
            pass

    with _acceptor(script) as port:
        assoc = _associate(port, acse=0.3)
        started = time.monotonic()
        assoc.release()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "unasked",
    [
        message(
            1, echo_command(1, CommandField=0x0FFF, MessageID=None, MessageIDBeingRespondedTo=9)
        ),
        pdu(P_DATA, pdv(1, 0x01, b"")),
    ],
    ids=["cancel requests", "empty fragments"],
)
def test_response_is_not_waited_for_longer_because_something_else_comes(unasked: bytes) -> None:
    has_given_up = threading.Event()

    def script(wire: Wire) -> None:
        _accept(wire)
        assert wire.receive()[0] == P_DATA
        for _ in range(400):  # 20 s
            wire.send(unasked)
            if has_given_up.wait(0.05):
                return
        raise AssertionError("it waits for ever")

    with _acceptor(script) as port:
        assoc = _associate(port)
        assert not assoc.send_c_echo()
        has_given_up.set()
        assoc.abort()


@pytest.mark.parametrize(
    "answer", [b"", ABORT_PDU, b"HTTP/1.1 400 Bad Request\r\n\r\n", associate_pdu({})]
)
def test_associate_with_what_is_no_acceptor_ends_unestablished(answer: bytes) -> None:
    def script(wire: Wire) -> None:
        wire.receive()
        wire.send(answer)

    with _acceptor(script) as port:
        assoc = _associate(port)

    assert not assoc.is_established
    assert not assoc.dul.is_connected


def test_associate_with_silent_peer_is_bounded() -> None:
    def script(wire: Wire) -> None:
        while wire.receive()[0]:
            pass

    with _acceptor(script) as port:
        started = time.monotonic()
        assoc = _associate(port, acse=0.3)
        assert time.monotonic() - started < 2

    assert not assoc.is_established


def test_associate_with_closed_port_leaves_no_socket_open() -> None:
    assoc = _associate(closed_port())

    assert not assoc.is_established
    assert not assoc.dul.is_connected


def test_rejection_says_why(start_destination: Callable[..., Destination]) -> None:
    destination = start_destination(rejects=True)

    assoc = _associate(destination.port)

    assert assoc.is_rejected
    assert "not recognised" in assoc.rejection.lower().replace("z", "s")


def test_peer_that_aborts_while_idle_is_noticed_at_the_next_message() -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        wire.send(ABORT_PDU)

    with _acceptor(script) as port:
        assoc = _associate(port)
        started = time.monotonic()
        status = assoc.send_c_echo() if assoc.is_usable else None
        assert time.monotonic() - started < 2

    assert not status
    assert not assoc.is_usable


@pytest.mark.parametrize("ending", [ABORT_PDU, b"", pdu(0x09, b"?")], ids=["abort", "close", "?"])
def test_peer_that_goes_instead_of_answering_aborts_the_association_once(ending: bytes) -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        assert wire.receive()[0] == P_DATA
        wire.send(ending)
        if ending:
            wire.ends()

    aborted: list[bool] = []
    with _acceptor(script) as port:
        assoc = _associate(port)
        assoc.bind(evt.EVT_ABORTED, lambda _: aborted.append(True))
        assert not assoc.send_c_echo()
        assoc.release()

    assert (assoc.is_aborted, assoc.is_established, aborted) == (True, False, [True])
    assert not assoc.dul.is_connected


def test_peer_that_releases_instead_of_answering_gets_its_answer() -> None:
    def script(wire: Wire) -> None:
        _accept(wire)
        assert wire.receive()[0] == P_DATA
        wire.send(RELEASE_PDU)
        assert wire.receive()[0] == RELEASE_RP

    with _acceptor(script) as port:
        assoc = _associate(port)
        assert not assoc.send_c_echo()

    assert (assoc.is_released, assoc.is_aborted, assoc.is_established) == (True, False, False)


def test_acceptance_with_a_transfer_syntax_of_its_own_is_aborted() -> None:
    def script(wire: Wire) -> None:
        _accept(wire, "1.2.3.4")
        assert wire.ends() == ABORT

    with _acceptor(script) as port:
        assoc = _associate(port)

    assert assoc.is_aborted
    assert not assoc.is_established
    assert assoc.accepted_contexts == []
