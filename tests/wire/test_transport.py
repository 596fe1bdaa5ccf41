"""The TCP connection of an association."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from pacs.wire import transport
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation
from pacs.wire.transport import Connection

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection on the loopback interface: ours and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peers = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        with ours, peers:
            yield ours, peers


def test_close_of_a_connection_that_was_reset_closes_the_descriptor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, peers = ends
    connection = Connection(EngineAssociation(EngineAE("PACS"), "acceptor"), client_socket=ours)
    peers.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    peers.close()
    with pytest.raises(ConnectionResetError):
        ours.recv(1)

    connection.close()

    assert ours.fileno() == -1


def test_association_that_begins_while_draining_is_ended(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, _peers = ends
    ae = EngineAE("PACS")
    assoc = EngineAssociation(ae, "acceptor")
    assoc.set_socket(Connection(assoc, client_socket=ours))
    ours.settimeout(5)

    ae.drain(0)
    ae.association_started(assoc)

    assert ours.recv(1) == b""  # it reads nothing more from its peer


@pytest.mark.parametrize(("limit", "is_larger"), [(4 << 20, True), (212_992, False)])
def test_send_buffer_is_enlarged_only_where_the_system_allows_as_much(
    ends: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    is_larger: bool,
) -> None:
    monkeypatch.setattr(transport, "_send_buffer_limit", lambda: limit)
    ours, _ = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    before = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    connection = Connection(EngineAssociation(EngineAE("PACS"), "acceptor"), client_socket=ours)

    connection.enlarge_send_buffer()

    assert (ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > before) is is_larger


def test_connection_sends_without_waiting_for_acknowledgements(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = ends
    connection = Connection(EngineAssociation(EngineAE("PACS"), "acceptor"), client_socket=ours)

    connection.send(b"\0")

    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
