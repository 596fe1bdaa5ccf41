"""Connections that another process accepted: served, and counted out exactly once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pacs.dimse.ae import Options, make_ae
from pacs.wire.ae import EngineAE, connection_limit, listening_socket
from pacs.wire.handed import HandedServer, handed_server
from tests.peers import VERIFICATION, wait_until
from tests.wire.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    EXPLICIT,
    RELEASE_PDU,
    RELEASE_RP,
    Wire,
    associate_pdu,
)

REQUEST = associate_pdu({1: (VERIFICATION, EXPLICIT)})


@dataclass
class Count:
    """A census of one process, whose siblings the test invents."""

    elsewhere: int = 0
    associations_elsewhere: int = 0
    processes: int = 1
    noted: int = 0
    ends: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def associations(self, count: int) -> None:
        self.noted = count

    def ended(self) -> None:
        with self._lock:
            self.ends += 1


@dataclass
class Handing:
    """A listening socket of the test's own, and the server that its connections are handed to."""

    listening: socket.socket
    ae: EngineAE
    server: HandedServer
    census: Count

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def hand(self) -> None:
        self.server.serve(self.listening.accept()[0])


@pytest.fixture
def handing() -> Iterator[Handing]:
    census = Count()
    ae = make_ae(Options(maximum_associations=2, acse_timeout_seconds=5))
    with listening_socket(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        server = handed_server(ae, address, [], open_sink=None, census=census)
        yield Handing(listening, ae, server, census)
        ae.drain(5)


def test_handed_connection_is_served_and_counted_out_when_it_ends(handing: Handing) -> None:
    with Wire(handing.port) as peer:
        handing.hand()
        peer.associate()
        assert handing.census.ends == 0
        peer.send(RELEASE_PDU)

        assert peer.ends() == RELEASE_RP

    wait_until(lambda: handing.census.ends == 1)
    assert handing.server.port == handing.port


def test_connection_that_was_reset_before_it_is_served_is_counted_out(handing: Handing) -> None:
    peer = Wire(handing.port)
    connection, _ = handing.listening.accept()
    peer.reset()
    with pytest.raises(ConnectionResetError):
        connection.recv(1)  # returns no sooner than the reset has come

    handing.server.serve(connection)

    wait_until(lambda: handing.census.ends == 1)


def test_connection_that_gets_no_thread_is_closed_and_counted_out(
    handing: Handing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Wire(handing.port) as peer:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            handing.hand()

        assert peer.ends() == 0

    assert handing.census.ends == 1
    assert "could not be served" in caplog.text


@pytest.mark.parametrize(("elsewhere", "answer"), [(1, ASSOCIATE_AC), (2, ASSOCIATE_RJ)])
def test_associations_elsewhere_count_against_the_limit(
    handing: Handing, elsewhere: int, answer: int
) -> None:
    handing.census.associations_elsewhere = elsewhere

    with Wire(handing.port) as peer:
        handing.hand()
        peer.send(REQUEST)

        assert peer.receive()[0] == answer
        if answer == ASSOCIATE_AC:
            assert handing.census.noted == 1
    wait_until(lambda: handing.census.noted == 0)


def test_silent_connections_elsewhere_leave_associations_here(handing: Handing) -> None:
    handing.census.elsewhere = connection_limit(2) - 1

    with Wire(handing.port) as peer:
        handing.hand()
        peer.send(REQUEST)

        assert peer.receive()[0] == ASSOCIATE_AC


def test_connection_over_the_limit_is_closed_and_counted_out_if_none_here_can_go(
    handing: Handing,
) -> None:
    handing.census.elsewhere = connection_limit(2)

    with Wire(handing.port) as peer:
        handing.hand()

        assert peer.ends() == 0
    assert handing.census.ends == 1


def test_stop_of_a_handed_server_returns_at_once(handing: Handing) -> None:
    handing.server.stop()


def test_listening_socket_on_a_port_in_use_is_refused_and_leaves_nothing_open() -> None:
    with (
        listening_socket(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="Address already in use"),
    ):
        listening_socket(taken.getsockname())


def test_connection_limit_leaves_room_for_rejections() -> None:
    assert connection_limit(100) > 100
