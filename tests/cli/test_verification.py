"""``pacs echo`` against an archive, and against peers that do not answer as they should."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from pacs.cli.verification import Calling, echo
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, Unreachable
from pacs.conformance.wire.trace import Trace
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable, PeerAborted
from pacs.wire.tls import TLSOptions
from tests.peers import RunningArchive, closed_port
from tests.serving import engine_on_sqlite
from tests.wire.scripted import ScriptedAcceptor, accept
from tests.wire.wire import ABORT_PDU, IMPLICIT, Wire, echo_command, message

pytestmark = pytest.mark.timeout(30)

CALLING = Calling(
    ae_title="TESTSCU",
    connect_timeout_seconds=5,
    acse_timeout_seconds=5,
    dimse_timeout_seconds=5,
    tls=TLSOptions(),
)


def called(port: int, title: str = "PACS") -> None:
    echo(CALLING, Peer(title, "127.0.0.1", port))


@engine_on_sqlite
def test_echo_of_a_running_archive_says_nothing(service: RunningArchive) -> None:
    called(service.port)


@engine_on_sqlite
def test_echo_with_a_wrong_title_says_why(service: RunningArchive) -> None:
    with pytest.raises(
        DestinationUnreachable, match="rejected the association: Called AE title not recognised"
    ):
        called(service.port, "OTHER")


def test_echo_of_a_closed_port_says_so() -> None:
    with pytest.raises(DestinationUnreachable, match=r"PACS@127\.0\.0\.1:\d+: Connection refused"):
        called(closed_port())


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "."], ids=["long", "empty", "dot"])
def test_a_name_that_no_host_can_have_is_unreachable(host: str) -> None:
    with pytest.raises(DestinationUnreachable, match="no host can have that name"):
        echo(CALLING, Peer("PACS", host, 104))
    with pytest.raises(Unreachable, match="no host can have that name"):
        Association.connect((host, 104), Trace(), 1)


@pytest.mark.parametrize(
    "values", [(pdus.PDV(1, pdus.COMMAND_BIT, bytes(1024)),), ()], ids=["fragments", "no value"]
)
def test_echo_ends_though_the_response_does_not(values: tuple[pdus.PDV, ...]) -> None:
    fragment = pdus.encode(pdus.PData(values))
    impatient = replace(CALLING, dimse_timeout_seconds=0.2)

    def script(wire: Wire, _: int) -> None:
        accept(wire, IMPLICIT)
        wire.receive()
        with suppress(OSError):
            while True:
                wire.sock.sendall(fragment)

    with ScriptedAcceptor(script) as peer, pytest.raises(PeerAborted):
        echo(impatient, Peer("PACS", "127.0.0.1", peer.port))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            message(1, echo_command(CommandField=0x8030, Status=0x0122, ErrorComment="No\x1b[2J")),
            r"answered 0x0122: No",
        ),
        (message(1, echo_command(CommandField=0x8030)), "answered without a status"),
        (ABORT_PDU, "ended the association without a response"),
        (b"", "ended the association without a response"),
        (b"\x04\0\xff\xff\xff\xff", "ended the association without a response"),
    ],
    ids=["failure", "no status", "abort", "closed", "4 GB"],
)
def test_echo_that_is_not_answered_with_success_says_how(answer: bytes, said: str) -> None:
    def script(wire: Wire, _: int) -> None:
        accept(wire, IMPLICIT)
        wire.receive()
        wire.send(answer)

    with ScriptedAcceptor(script) as peer, pytest.raises(PeerAborted, match=said):
        called(peer.port)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ABORT_PDU, "the peer aborted it"),
        (b"", r"connection closed; does it want TLS\?"),
        (b"\x15\x03\x03\0\x02\x02\x46", "the peer wants TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "its answer is no PDU"),
        (b"\x09\0\0\0\0\0", "it answered with PDU type 0x09"),
    ],
    ids=["abort", "closed", "TLS", "HTTP", "unknown"],
)
def test_echo_without_an_association_says_why(answer: bytes, said: str) -> None:
    def script(wire: Wire, _: int) -> None:
        wire.receive()
        wire.send(answer)

    with ScriptedAcceptor(script) as peer, pytest.raises(DestinationUnreachable, match=said):
        called(peer.port)


def test_echo_of_a_peer_without_verification_says_so() -> None:
    with (
        ScriptedAcceptor(lambda wire, _: accept(wire, IMPLICIT, result=3)) as peer,
        pytest.raises(DestinationUnreachable, match="does not support the service"),
    ):
        called(peer.port)
