"""Floods of connections cost a bounded number of threads and log lines, and the server is there again afterwards."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from pacs.dimse.engine import repeated
from pacs.dimse.engine.ae import EngineServer, connection_limit
from pacs.dimse.engine.repeated import RepeatedLine
from tests.dimse.engine.wire import ASSOCIATE_AC, VERIFICATION, Wire, associate_pdu
from tests.peers import association, wait_until
from tests.serving import Serve, engine_on_sqlite

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
        endings = [wire.ends() for wire in wires[limit:]]
        wait_until(lambda: len(begun) == limit)
        may_begin.set()

    assert endings == [0] * 5
    wait_until(lambda: caplog.text.count("too many connections") == 1)
    wait_until(lambda: not running._running.server._connections)  # type: ignore[attr-defined]
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
        wait_until(lambda: not running._running.server._connections)  # type: ignore[attr-defined]
        with Wire(running.port) as late:
            late.send(associate_pdu({1: (VERIFICATION, "1.2.840.10008.1.2")}))
            pdu_type, _ = late.receive()

    assert pdu_type == ASSOCIATE_AC


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
