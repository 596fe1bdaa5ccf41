"""Associations over TLS, both roles, and what peers do to them (PS3.15 B.12)."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable
from pacs.wire.ae import EngineAE
from pacs.wire.association import EngineAssociation
from pacs.wire.tls import TLSOptions, new_requestor_context, use_requestor_context
from pacs.wire.transport import Connection, ConnectionLost
from tests.certificates import Authority, Identity, client_context, server_context
from tests.dimse.retrieving import CT_CONTEXT, SUCCESS, make_study, study_query, uids_of
from tests.factories import make_instance
from tests.peers import (
    CALLED,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Destination,
    RunningArchive,
    associate,
    association,
    data_set_bytes,
    deposit,
    end,
    register,
    responses,
    send,
    stored_bytes,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite, on_sqlite
from tests.wire.wire import (
    ABORT,
    ABORT_PDU,
    EXPLICIT,
    IMPLICIT,
    RELEASE_PDU,
    RELEASE_RP,
    Wire,
    associate_pdu,
    echo_command,
    message,
    store_command,
)

pytestmark = pytest.mark.timeout(60)

#: Over many TLS records, PDUs and send blocks, and no multiple of any of them.
_LARGE = 5_000_002


@pytest.fixture(scope="module")
def identity(authority: Authority) -> Identity:
    """What the archive shows."""
    return authority.issue("archive")


@pytest.fixture(scope="module")
def peers_identity(authority: Authority) -> Identity:
    """What peers show."""
    return authority.issue("peer")


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("strange"), "Strange CA")


@pytest.fixture
def secure(authority: Authority, identity: Identity) -> dict[str, Any]:
    """Settings of an archive that serves with TLS, and calls with it."""
    return {
        "tls": "required",
        "tls_certificate": identity.certificate,
        "tls_key": identity.key,
        "tls_ca": authority.certificate,
    }


@pytest.fixture
def calling(authority: Authority, peers_identity: Identity) -> ssl.SSLContext:
    """What a peer calls with."""
    return client_context(authority.certificate, peers_identity)


def options(identity: Identity | None = None, ca: Path | None = None, **tls: Any) -> Options:
    """Our SCU's."""
    if identity is not None:
        tls |= {"certificate": identity.certificate, "key": identity.key}
    limits = dict.fromkeys(("acse_timeout_seconds", "connect_timeout_seconds"), 5.0)
    return Options(ae_title="SCU", tls=TLSOptions(ca=ca, **tls), **limits)


def peer(port: int, host: str = "127.0.0.1") -> Peer:
    return Peer(CALLED, host, port, tls=True)


def large_study() -> list[Any]:
    return [
        *make_study(1, PixelData=bytes(_LARGE), Rows=1, Columns=_LARGE & 0xFFFF),
        make_instance(StudyInstanceUID="1.2.276.9"),
    ]


class TLSWire(Wire):
    """A peer that writes bytes into TLS records."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.plain = self.sock
        self.sock = context.wrap_socket(self.sock, server_hostname="127.0.0.1")


# Services


@on_sqlite
def test_large_instance_is_stored_byte_for_byte(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**secure)
    instance = make_instance(PixelData=bytes(range(256)) * (_LARGE // 256))

    with association(running, CT_CONTEXT, context=calling) as assoc:
        status = send(assoc, instance)

    assert status.Status == SUCCESS
    assert stored_bytes(running.archive, instance.SOPInstanceUID) == data_set_bytes(instance)


@on_sqlite
def test_move_to_a_destination_with_tls(
    serve: Serve,
    secure: dict[str, Any],
    calling: ssl.SSLContext,
    peers_identity: Identity,
    authority: Authority,
    start_destination: Callable[..., Destination],
) -> None:
    # The destination wants a certificate of ours, too.
    context = server_context(peers_identity, authority.certificate)
    destination = start_destination(context=context)
    running = serve(**secure)
    register(running.archive, "DEST", destination.port, tls=True)
    instances = large_study()
    deposit(running.archive, *instances)

    with association(running, STUDY_ROOT_MOVE, context=calling) as assoc:
        final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]

    assert (final.status, final.comment) == (SUCCESS, "")
    assert {one.sop_instance_uid: one.data for one in destination.received} == {
        str(one.SOPInstanceUID): data_set_bytes(one) for one in instances
    }


@on_sqlite
def test_get_over_tls(serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext) -> None:
    running = serve(**secure)
    instances = large_study()
    deposit(running.archive, *instances)
    received: dict[str, bytes] = {}

    def keep(event: Any) -> int:
        received[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return SUCCESS

    from pynetdicom import evt

    contexts = (STUDY_ROOT_GET, CT_CONTEXT)
    bound = [(evt.EVT_C_STORE, keep)]
    with association(running, *contexts, bound=bound, get=True, context=calling) as assoc:
        final = responses(assoc.send_c_get(study_query(), STUDY_ROOT_GET))[-1]

    assert (final.status, sorted(received)) == (SUCCESS, sorted(uids_of(instances)))
    assert received[instances[0].SOPInstanceUID] == data_set_bytes(instances[0])


@engine_on_sqlite
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_our_scu_calls_our_scp(
    serve: Serve, secure: dict[str, Any], authority: Authority, version: ssl.TLSVersion
) -> None:
    running = serve(**secure)
    chosen = options(ca=authority.certificate)
    query_scu.requestor_context(chosen.tls).maximum_version = version
    try:
        query_scu.echo(chosen, peer(running.port))
    finally:
        use_requestor_context(chosen.tls, new_requestor_context(chosen.tls))


@engine_on_sqlite
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(
    serve: Serve,
    secure: dict[str, Any],
    calling: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = serve(**secure)
    calling.set_ciphers("ALL:@SECLEVEL=0")
    calling.minimum_version = calling.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises(ssl.SSLError):
        TLSWire(running.port, calling)
    wait_until(lambda: "handshake with 127.0.0.1 failed" in caplog.text)

    assert "the peer does not speak TLS 1.2 or newer" in caplog.text


# PDVs and records


@engine_on_sqlite
def test_bytes_in_records_of_their_own(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**secure)

    with TLSWire(running.port, calling) as wire:
        for byte in associate_pdu({1: (VERIFICATION, IMPLICIT)}) + message(1, echo_command()):
            wire.send(bytes((byte,)))
        assert wire.receive()[0] == 2
        answer = wire.answer()
        wire.send(RELEASE_PDU)
        ending = wire.ends()

    assert (answer["Status"], ending) == (0x0000, RELEASE_RP)


@engine_on_sqlite
def test_several_pdus_in_one_record(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**secure)
    instance = make_instance()
    store = store_command(str(CTImageStorage), str(instance.SOPInstanceUID))

    with TLSWire(running.port, calling) as wire:
        wire.associate({1: (str(CTImageStorage), EXPLICIT), 3: (VERIFICATION, IMPLICIT)})
        wire.send(
            message(1, store, data_set_bytes(instance)) + message(3, echo_command(2)) + RELEASE_PDU
        )
        answers = [wire.answer(), wire.answer()]
        ending = wire.ends()

    assert [one["Status"] for one in answers] == [0x0000, 0x0000]
    assert ending == RELEASE_RP


class Records:
    """A TLS client whose records we carry to the socket ourselves, whole or in part."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                self._incoming.write(self._sock.recv(65_536))
            else:
                self._sock.sendall(self._outgoing.read())
                return

    def record(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()


@contextmanager
def connected(
    ours: ssl.SSLContext, theirs: ssl.SSLContext
) -> Iterator[tuple[Connection, socket.socket, Records]]:
    """Our side of a TLS connection as acceptor, and the peer's socket and records."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname(), 5)
        accepted, _ = listener.accept()
        accepted.settimeout(5)
        records = Records(sock, theirs)
        shaking = threading.Thread(target=records.shake_hands)
        shaking.start()
        secured = ours.wrap_socket(accepted, server_side=True)
        shaking.join(5)
        ae = EngineAE("PACS")
        ae.acse_timeout = 0.3
        connection = Connection(EngineAssociation(ae, "acceptor"), client_socket=secured)
        with sock:
            try:
                yield connection, sock, records
            finally:
                connection.close()


def test_part_of_a_record_is_nothing_to_read_yet(
    identity: Identity, calling: ssl.SSLContext
) -> None:
    with connected(server_context(identity), calling) as (connection, sock, records):
        record = records.record(RELEASE_PDU)

        sock.sendall(record[:-1])
        time.sleep(0.05)
        started = time.monotonic()
        before = connection.wait_readable(0.05)
        waited = time.monotonic() - started
        sock.sendall(record[-1:])
        after = connection.wait_readable(5)
        pdu_type, body = connection.read_pdu(100)

        assert (before, after) == (False, True)
        assert waited < 0.25  # far less than a PDU may take
        assert (pdu_type, bytes(body)) == (RELEASE_PDU[0], RELEASE_PDU[6:])


def test_session_tickets_are_nothing_to_read(identity: Identity, authority: Authority) -> None:
    context = server_context(identity)
    assert context.num_tickets == 2  # sent after the handshake, to a client that waits for a PDU
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[ssl.SSLSocket] = []

        def accept() -> None:
            accepted.append(context.wrap_socket(listener.accept()[0], server_side=True))

        accepting = threading.Thread(target=accept)
        accepting.start()
        sock = client_context(authority.certificate).wrap_socket(
            socket.create_connection(listener.getsockname(), 5), server_hostname="127.0.0.1"
        )
        accepting.join(5)
        connection = Connection(EngineAssociation(EngineAE("PACS"), "requestor"), sock)
        try:
            assert not connection.wait_readable(0.05)
            accepted[0].sendall(RELEASE_PDU + ABORT_PDU)
            assert connection.wait_readable(5)
            assert connection.read_pdu(100)[0] == RELEASE_PDU[0]
            assert connection.wait_readable(0)
            assert connection.read_pdu(100)[0] == ABORT_PDU[0]
        finally:
            connection.close()
            accepted[0].close()


def test_peer_that_stops_inside_a_pdu_costs_a_bounded_time(
    identity: Identity, calling: ssl.SSLContext
) -> None:
    with connected(server_context(identity), calling) as (connection, sock, records):
        sock.sendall(records.record(RELEASE_PDU[:5]))

        assert connection.wait_readable(5)
        with pytest.raises(TimeoutError):
            connection.read_pdu(100)


def test_peer_that_stops_reading_costs_a_bounded_time(
    identity: Identity, calling: ssl.SSLContext
) -> None:
    with connected(server_context(identity), calling) as (connection, _sock, _records):
        with pytest.raises(TimeoutError):
            connection.send_gathered([bytes(1 << 20)] * 100)

        connection.close()  # what is half written does not hold it up


def test_garbage_instead_of_a_record_ends_the_connection(
    identity: Identity, calling: ssl.SSLContext
) -> None:
    with connected(server_context(identity), calling) as (connection, sock, _records):
        sock.sendall(bytes(100))

        with pytest.raises(ConnectionLost):
            connection.wait_readable(5)


def test_gathered_write_arrives_in_order(identity: Identity, calling: ssl.SSLContext) -> None:
    parts = [bytes((number % 256,)) * (number * 37) for number in range(200)]
    expected = b"".join(parts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = bytearray()

        def receive() -> None:
            sock = socket.create_connection(listener.getsockname(), 5)
            with calling.wrap_socket(sock, server_hostname="127.0.0.1") as secured:
                while chunk := secured.recv(65_536):
                    received.extend(chunk)

        receiving = threading.Thread(target=receive)
        receiving.start()
        accepted, _ = listener.accept()
        secured = server_context(identity).wrap_socket(accepted, server_side=True)
        connection = Connection(EngineAssociation(EngineAE("PACS"), "acceptor"), secured)
        connection.send_gathered(parts)
        connection.close()
        receiving.join(5)

    assert bytes(received) == expected


# The end of an association


@engine_on_sqlite
@pytest.mark.parametrize("how", ["abort", "close_notify", "cut", "reset"])
def test_peer_that_ends_without_release_leaves_nothing(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext, how: str
) -> None:
    running = serve(**secure)
    with TLSWire(running.port, calling) as wire:
        wire.associate()
        assert len(active(running)) == 1
        if how == "abort":
            wire.send(ABORT_PDU)
        elif how == "close_notify":
            wire.sock.settimeout(0)
            with suppress(ssl.SSLWantReadError):  # the answer may be there already
                wire.sock.unwrap()  # type: ignore[attr-defined] - a TLS socket's
        elif how == "cut":
            socket.socket.shutdown(wire.sock, socket.SHUT_WR)
        else:
            wire.reset()

        wait_until(lambda: not active(running))


def active(running: RunningArchive) -> list[Any]:
    return running._running.scp.ae.active_associations  # type: ignore[attr-defined] - the engine's


@engine_on_sqlite
def test_release_ends_with_a_close_notify(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**secure)
    with TLSWire(running.port, calling) as wire:
        wire.associate()
        wire.send(RELEASE_PDU)
        assert wire.ends() == RELEASE_RP
        secured = wire.sock
        assert isinstance(secured, ssl.SSLSocket)
        secured.suppress_ragged_eofs = False

        # It waits for us to close (PS3.8 9.1.5), which unwrap() does; this returns with its own.
        plain = secured.unwrap()

        assert plain.recv(1) == b""


@engine_on_sqlite
def test_stop_aborts_an_idle_association_over_tls(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**secure)
    with TLSWire(running.port, calling) as wire:
        wire.associate()
        wait_until(lambda: len(active(running)) == 1)

        cut_off = running.stop()

        assert wire.receive() == (ABORT, ABORT_PDU[6:])
        assert cut_off == 0


# Handshakes that fail


@engine_on_sqlite
def test_mutual_authentication(
    serve: Serve, secure: dict[str, Any], authority: Authority, peers_identity: Identity
) -> None:
    running = serve(**secure, tls_require_client_certificate=True)

    query_scu.echo(options(peers_identity, authority.certificate), peer(running.port))


@engine_on_sqlite
@pytest.mark.parametrize(
    ("shown", "told", "logged"),
    [
        ("none", "the peer wants a certificate of ours", "the peer sent no certificate"),
        ("strange", "it does not know its CA", "unable to get local issuer certificate"),
        ("expired", "the peer refuses our certificate: expired", "certificate has expired"),
    ],
)
def test_mutual_authentication_refused(
    serve: Serve,
    secure: dict[str, Any],
    authority: Authority,
    strange: Authority,
    caplog: pytest.LogCaptureFixture,
    shown: str,
    told: str,
    logged: str,
) -> None:
    running = serve(**secure, tls_require_client_certificate=True)
    identities = {
        "none": lambda: None,
        "strange": lambda: strange.issue("stranger"),
        "expired": lambda: authority.issue("expired", days=-1),
    }

    with pytest.raises(DestinationUnreachable) as caught:
        query_scu.echo(options(identities[shown](), authority.certificate), peer(running.port))
    wait_until(lambda: "TLS handshake with 127.0.0.1 failed" in caplog.text)

    assert told in caught.value.message
    assert logged in caplog.text


@engine_on_sqlite
def test_refused_peer_can_read_why_though_it_has_sent_more(
    serve: Serve, secure: dict[str, Any], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(**secure, tls_require_client_certificate=True)
    with TLSWire(running.port, client_context(authority.certificate)) as wire:
        # With TLS 1.3 the handshake is done for a client before its certificate is missed.
        wait_until(lambda: "the peer sent no certificate" in caplog.text)
        for _ in range(2):
            time.sleep(0.05)
            wire.sock.sendall(associate_pdu({1: (VERIFICATION, IMPLICIT)}))

        with pytest.raises(ssl.SSLError) as caught:
            wire.sock.recv(1)

    assert caught.value.reason == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@pytest.mark.parametrize(
    ("issued", "trusts", "told"),
    [
        ({}, "strange", "the certificate is not valid: unable to get local issuer certificate"),
        ({"days": -1}, "it", "the certificate is not valid: certificate has expired"),
        (
            {"hosts": "DNS:elsewhere.example.org"},
            "it",
            "IP address mismatch, certificate is not valid for '127.0.0.1'",
        ),
        ({"usage": "clientAuth"}, "it", "unsuitable certificate purpose"),
    ],
    ids=["unknown CA", "expired", "other host", "only for clients"],
)
def test_destination_whose_certificate_is_not_valid(
    authority: Authority,
    strange: Authority,
    start_destination: Callable[..., Destination],
    issued: dict[str, Any],
    trusts: str,
    told: str,
) -> None:
    context = server_context(authority.issue("invalid", **issued))
    destination = start_destination(context=context)
    ca = (strange if trusts == "strange" else authority).certificate

    with pytest.raises(DestinationUnreachable) as caught:
        query_scu.echo(options(ca=ca), peer(destination.port))

    assert told in caught.value.message


def test_host_name_check_can_be_switched_off(
    authority: Authority, start_destination: Callable[..., Destination]
) -> None:
    context = server_context(authority.issue("elsewhere", hosts="DNS:elsewhere.example.org"))
    destination = start_destination(title=CALLED, context=context)

    query_scu.echo(options(ca=authority.certificate, check_host_name=False), peer(destination.port))


def test_single_certificate_can_be_trusted(
    authority: Authority, start_destination: Callable[..., Destination]
) -> None:
    issued = authority.issue("device")
    destination = start_destination(title=CALLED, context=server_context(issued))

    query_scu.echo(options(ca=issued.certificate), peer(destination.port))


@on_sqlite
def test_move_says_why_tls_failed(
    serve: Serve,
    secure: dict[str, Any],
    calling: ssl.SSLContext,
    strange: Authority,
    start_destination: Callable[..., Destination],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A stock AE says it in its own log, which our commands silence for the whole process.
    caplog.set_level(logging.ERROR, "pynetdicom")
    destination = start_destination(context=server_context(strange.issue("destination")))
    running = serve(**secure)
    register(running.archive, "DEST", destination.port, tls=True)
    deposit(running.archive, *make_study(1))

    with association(running, STUDY_ROOT_MOVE, context=calling) as assoc:
        final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]

    assert final.status in {0xA702, 0xA801}  # a stock AE answers the latter whatever the reason is
    # Error Comment has room for 64 characters, the log for all.
    wait_until(lambda: re.search("certificate verify failed|is not valid: unable", caplog.text))
    assert destination.established == 0


@engine_on_sqlite
@pytest.mark.parametrize(
    ("wants_tls", "reason"),
    [(False, "the peer does not speak TLS there"), (True, "connection closed; does it want TLS?")],
    ids=["TLS to a port without", "no TLS to a port with"],
)
def test_move_hints_at_tls_that_only_one_side_uses(
    serve: Serve,
    secure: dict[str, Any],
    authority: Authority,
    start_destination: Callable[..., Destination],
    wants_tls: bool,
    reason: str,
) -> None:
    context = server_context(authority.issue("destination")) if wants_tls else None
    destination = start_destination(context=context)
    running = serve(**secure | {"tls": "off"})
    register(running.archive, "DEST", destination.port, tls=not wants_tls)
    deposit(running.archive, *make_study(1))

    with association(running, STUDY_ROOT_MOVE) as assoc:
        final = responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))[-1]

    assert final.status == 0xA702
    assert final.comment == f"DEST at 127.0.0.1:{destination.port}: {reason}"


# Peers with and without TLS


@engine_on_sqlite
def test_peer_without_tls_is_refused_where_it_is_required(
    serve: Serve, secure: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(**secure)

    with Wire(running.port) as wire:
        wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}))
        ending = wire.ends()

    assert ending == 0
    said = "connection from 127.0.0.1 refused: it is without TLS, which is required"
    wait_until(lambda: said in caplog.text)


@engine_on_sqlite
def test_peers_with_and_without_tls_share_a_port_where_it_is_optional(
    serve: Serve, secure: dict[str, Any], calling: ssl.SSLContext
) -> None:
    running = serve(**(secure | {"tls": "optional"}))

    with (
        association(running, VERIFICATION) as plain,
        association(running, VERIFICATION, context=calling) as secured,
    ):
        statuses = [plain.send_c_echo().Status, secured.send_c_echo().Status]

    assert statuses == [SUCCESS, SUCCESS]


@engine_on_sqlite
def test_ae_registered_with_tls_is_let_in_with_it_only(
    serve: Serve,
    secure: dict[str, Any],
    calling: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    running = serve(**(secure | {"tls": "optional"}))
    register(running.archive, "CAREFUL", 104, tls=True)

    plain = associate(running, VERIFICATION, calling="CAREFUL")
    end(plain)
    with association(running, VERIFICATION, calling="CAREFUL", context=calling) as secured:
        status = secured.send_c_echo()

    # A stock requestor sometimes takes the close that follows for an abort, and forgets the rejection.
    assert plain.is_rejected or plain.is_aborted
    wait_until(lambda: "AE 'CAREFUL' at 127.0.0.1 is registered with --tls" in caplog.text)
    assert status.Status == SUCCESS


@engine_on_sqlite
def test_peer_with_tls_is_told_apart_where_there_is_none(
    service: RunningArchive, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DestinationUnreachable) as caught:
        query_scu.echo(options(), peer(service.port))
    wait_until(lambda: "the peer calls with TLS, and this port is without" in caplog.text)

    assert "the peer does not speak TLS there" in caught.value.message


def test_calling_a_peer_with_tls_without_it(
    authority: Authority, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination(context=server_context(authority.issue("secure")))

    with pytest.raises(DestinationUnreachable) as caught:
        query_scu.echo(options(), Peer("DEST", "127.0.0.1", destination.port))

    assert "no association with DEST" in caught.value.message


# Peers that are slow or gone


@engine_on_sqlite
@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01"], ids=["silent", "begins"])
def test_stalled_handshake_holds_up_nobody_and_ends(
    serve: Serve,
    secure: dict[str, Any],
    calling: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    first: bytes,
) -> None:
    running = serve(**secure, acse_timeout_seconds=1)
    threads = threading.active_count()

    with Wire(running.port) as stalled:
        stalled.send(first)
        with association(running, VERIFICATION, context=calling) as assoc:
            status = assoc.send_c_echo()
        ending = stalled.ends()
        wait_until(lambda: "the peer was silent during the TLS handshake" in caplog.text)
        wait_until(lambda: threading.active_count() <= threads)

    assert (status.Status, ending) == (SUCCESS, 0)


@engine_on_sqlite
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["silent", "part-of-a-handshake"])
def test_handshakes_count_as_connections(
    serve: Serve,
    secure: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
) -> None:
    running = serve(**secure, maximum_associations=1, acse_timeout_seconds=30)
    limit = 2 + 16
    begun: list[ssl.SSLSocket] = []
    do_handshake = ssl.SSLSocket.do_handshake

    def noted(sock: ssl.SSLSocket, block: bool = False) -> None:
        begun.append(sock)
        do_handshake(sock, block)

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", noted)

    wires = [Wire(running.port) for _ in range(limit)]
    try:
        for wire in wires:
            wire.send(sent)
        wait_until(lambda: len(begun) == (limit if sent else 0))
        wait_until(lambda: len(running._running.server.admission) == limit)  # type: ignore[attr-defined]
        wires.append(Wire(running.port))
        assert wires[0].ends() == 0, "the oldest one goes"
    finally:
        for wire in wires:
            wire.sock.close()

    wait_until(lambda: "too many connections" in caplog.text)
    wait_until(lambda: len(running._running.server.admission) == 0)  # type: ignore[attr-defined]


@engine_on_sqlite
def test_connection_without_a_word_is_not_worth_a_warning(
    serve: Serve, secure: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(**secure)
    caplog.set_level(logging.DEBUG, "pacs")
    caplog.clear()

    Wire(running.port).sock.close()  # as a port check does
    wait_until(lambda: "closed without a word" in caplog.text)

    assert [one for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_peer_that_stalls_the_handshake_we_requested() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        chosen = Options(ae_title="SCU", connect_timeout_seconds=0.3)

        with pytest.raises(DestinationUnreachable) as caught:
            query_scu.echo(chosen, peer(silent.getsockname()[1]))

    assert "the peer was silent during the TLS handshake" in caught.value.message
