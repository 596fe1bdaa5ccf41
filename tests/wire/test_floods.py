"""Floods of connections cost a bounded number of threads and log lines, and the server is there again afterwards."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from pacs.dimse.access import Rights
from pacs.dimse.shares import Shares
from pacs.wire import repeated
from pacs.wire.ae import EngineServer, connection_limit
from pacs.wire.repeated import RepeatedLine
from tests.peers import CALLING, RunningArchive, association, wait_until
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import (
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    IMPLICIT,
    RELEASE_PDU,
    RELEASE_RP,
    VERIFICATION,
    Wire,
    associate_pdu,
)

pytestmark = pytest.mark.timeout(60)

_SUCCESS = 0x0000


@engine_on_sqlite
def test_connections_count_from_their_acceptance_not_from_the_start_of_their_thread(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(maximum_associations=1)
    begun: list[Any] = []
    may_begin = threading.Event()
    finish_request = EngineServer.finish_request

    def late(server: EngineServer, request: Any, address: Any) -> None:
        begun.append(address)
        assert may_begin.wait(10)
        finish_request(server, request, address)

    monkeypatch.setattr(EngineServer, "finish_request", late)
    limit = connection_limit(1)

    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(running.port)) for _ in range(limit + 5)]
        endings = [wire.ends() for wire in wires[:5]]
        wait_until(lambda: len(begun) == limit + 5)
        may_begin.set()

    assert endings == [0] * 5
    wait_until(lambda: caplog.text.count("too many connections") == 1)
    wait_until(lambda: not len(running._running.server.admission))  # type: ignore[attr-defined]
    with association(running, VERIFICATION) as assoc:
        assert assoc.send_c_echo().Status == _SUCCESS


@engine_on_sqlite
@pytest.mark.parametrize("sent", [b"", b"\x01\x00", b"\xff" * 100], ids=["none", "part", "garbage"])
def test_a_thousand_connections_opened_and_closed_leave_nothing(serve: Serve, sent: bytes) -> None:
    running = serve(maximum_associations=5)
    threads = threading.active_count()

    for number in range(1000):
        wire = Wire(running.port)
        wire.send(sent)
        if number % 2:
            wire.reset()
        else:
            wire.sock.close()

    wait_until(lambda: threading.active_count() <= threads)
    with association(running, VERIFICATION) as assoc:
        assert assoc.send_c_echo().Status == _SUCCESS


@engine_on_sqlite
def test_silent_connections_are_gone_after_the_acse_timeout(serve: Serve) -> None:
    running = serve(maximum_associations=2, acse_timeout_seconds=0.5)

    with ExitStack() as stack:
        silent = [stack.enter_context(Wire(running.port)) for _ in range(connection_limit(2))]
        for wire in silent:
            wire.ends()
        wait_until(lambda: not len(running._running.server.admission))  # type: ignore[attr-defined]
        with Wire(running.port) as late:
            late.send(associate_pdu({1: (VERIFICATION, "1.2.840.10008.1.2")}))
            pdu_type, _ = late.receive()

    assert pdu_type == ASSOCIATE_AC


def _silent(running: RunningArchive, host: str) -> Wire:
    """A connection from an address of the loopback interface."""
    wire = Wire.__new__(Wire)
    address = ("127.0.0.1", running.port)
    wire.sock = socket.create_connection(address, 5, source_address=(host, 0))
    return wire


@engine_on_sqlite
def test_silent_connections_of_one_host_shut_nobody_out(serve: Serve) -> None:
    running = serve(maximum_associations=3)
    request = associate_pdu({1: (VERIFICATION, IMPLICIT)})

    with ExitStack() as stack, association(running, VERIFICATION) as established:
        other = stack.enter_context(_silent(running, "127.0.0.2"))
        flood = [stack.enter_context(_silent(running, "127.0.0.1")) for _ in range(60)]
        assert [wire.ends() for wire in flood[:30]] == [0] * 30

        # Neither the association goes, nor the one connection of another host, nor is a newcomer refused.
        assert established.send_c_echo().Status == _SUCCESS
        other.send(request)
        assert other.receive()[0] == ASSOCIATE_AC
        other.send(RELEASE_PDU)
        assert other.ends() == RELEASE_RP
        with association(running, VERIFICATION) as late:
            assert late.send_c_echo().Status == _SUCCESS


@engine_on_sqlite
@pytest.mark.parametrize(
    ("share", "others"),
    [
        ("maximum_associations_per_host", ("127.0.0.2", CALLING)),
        ("maximum_associations_per_ae", ("127.0.0.1", "OTHER")),
    ],
)
def test_association_beyond_a_share_is_rejected_with_2_3_2_and_others_are_served(
    serve: Serve, share: str, others: tuple[str, str]
) -> None:
    running = serve(**{share: 2})

    def answer(stack: ExitStack, host: str, calling: str) -> tuple[int, bytes]:
        wire = stack.enter_context(_silent(running, host))
        wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, calling=calling))
        return wire.receive()

    with ExitStack() as stack:
        for _ in range(2):
            assert answer(stack, "127.0.0.1", CALLING)[0] == ASSOCIATE_AC
        assert answer(stack, "127.0.0.1", CALLING) == (ASSOCIATE_RJ, bytes((0, 2, 3, 2)))
        assert answer(stack, *others)[0] == ASSOCIATE_AC


@engine_on_sqlite
def test_rejected_peers_that_stay_on_the_line_take_no_association_from_others(
    serve: Serve,
) -> None:
    running = serve(maximum_associations=2, maximum_associations_per_ae=1)

    with ExitStack() as stack, association(running, VERIFICATION):
        for _ in range(3):
            wire = stack.enter_context(Wire(running.port))
            wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}))
            assert wire.receive() == (ASSOCIATE_RJ, bytes((0, 2, 3, 2)))

        with association(running, VERIFICATION, calling="OTHER") as other:
            assert other.send_c_echo().Status == _SUCCESS


def test_shares_leave_a_tenth_to_registered_aes() -> None:
    shares = Shares(20)
    others = [Rights(f"AE{number}", f"10.0.0.{number}") for number in range(18)]

    assert shares.refusal(Rights("NEW", "10.1.1.1"), others[:17]) is None
    assert shares.refusal(Rights("NEW", "10.1.1.1"), others) is not None
    assert shares.refusal(Rights("CT1", "10.1.1.2", is_registered=True), others) is None


def test_registered_aes_have_no_share_of_their_host_and_take_none_of_it() -> None:
    shares = Shares(100, per_host=2, per_ae=3)
    routed = [Rights(f"CT{number}", "10.0.0.1", is_registered=True) for number in range(20)]
    others = [Rights(f"WS{number}", "10.0.0.1") for number in range(2)]
    router = Rights("CT1", "10.0.0.1", is_registered=True)

    assert shares.refusal(router, [*routed, *others]) is None
    assert shares.refusal(router, [*routed, router]) is None
    assert shares.refusal(router, [*routed, router, router]) == "AE CT1 has its share"
    assert shares.refusal(Rights("WS3", "10.0.0.1"), [*routed, *others[:1]]) is None
    assert shares.refusal(Rights("WS3", "10.0.0.1"), [*routed, *others]) == (
        "host 10.0.0.1 has its share"
    )


@pytest.mark.parametrize("is_registered", [False, True])
@pytest.mark.parametrize(("maximum", "share"), [(1, 1), (8, 8), (12, 8), (100, 50)])
def test_share_is_half_but_enough_for_a_modality(
    maximum: int, share: int, is_registered: bool
) -> None:
    shares, rights = Shares(maximum), Rights("CT1", "10.0.0.1", is_registered=is_registered)

    assert shares.refusal(rights, [rights] * (share - 1)) is None
    assert shares.refusal(rights, [rights] * share) is not None
    assert Shares(maximum, 4, 4).refusal(rights, [rights] * 2, processes=2) is not None


def test_repeated_line_says_how_often_it_was_not_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(repeated.time, "monotonic", lambda: now)
    line = RepeatedLine(logging.getLogger("pacs.test"), logging.WARNING)

    for _ in range(4):
        line("dropped %s", "10.0.0.1")
    now += 11
    line("dropped %s", "10.0.0.2")

    said = [record.getMessage() for record in caplog.records]
    assert said == ["dropped 10.0.0.1", "dropped 10.0.0.2 (and 3 times more before)"]
