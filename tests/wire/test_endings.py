"""What ends an operation or an association before its time: C-CANCEL, A-ABORT, release, time-outs.

PS3.7 9.3.2.3 (cancel), PS3.8 7.2 to 7.4 and 9.2 (release, its collision, abort, ARTIM).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pynetdicom import evt

from pacs.dimse.ae import Options, make_ae
from pacs.wire import association as engine_association
from pacs.wire import command
from tests.peers import STUDY_ROOT_FIND, VERIFICATION, identifier, wait_until
from tests.wire.wire import (
    ABORT,
    ABORT_PDU,
    COMMAND,
    DATA,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_ANSWER_PDU,
    RELEASE_PDU,
    RELEASE_RP,
    RELEASE_RQ,
    Wire,
    associate_pdu,
    echo_command,
    message,
    p_data,
    pdu,
    pdv,
)

_CONTEXTS = {1: (VERIFICATION, IMPLICIT), 3: (STUDY_ROOT_FIND, IMPLICIT)}
_QUERY = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
_LIMIT = 1000
PENDING, SUCCESS, CANCELLED = 0xFF00, 0x0000, 0xFE00


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peers of these tests often leave the connection open."""
    monkeypatch.setattr(engine_association, "_LINGER_SECONDS", 0.3)


class _Bench:
    """Our engine with handlers of the test's own."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.go_on = threading.Event()
        self.port = 0
        self.ae: Any = None
        self.large = False

    def on_find(self, event: Any) -> Iterator[Any]:
        """Answer until cancelled; after the first response wait for the test."""
        found = identifier("STUDY", TextValue="x" * (60_000 if self.large else 10))
        try:
            yield PENDING, found
            assert self.go_on.wait(5)
            for _ in range(_LIMIT):
                if event.is_cancelled:
                    yield CANCELLED, None
                    return
                yield PENDING, found
        finally:
            self.closed.set()


@contextmanager
def _running(*more: tuple[Any, Callable[[Any], Any]], **options: Any) -> Iterator[_Bench]:
    bench = _Bench()
    times = {"acse_timeout_seconds": 5, "network_timeout_seconds": 10} | options
    bench.ae = make_ae(Options(**times))
    bound = [(evt.EVT_C_FIND, bench.on_find), (evt.EVT_C_ECHO, lambda _: 0), *more]
    server = bench.ae.listen(("127.0.0.1", 0), bound)
    bench.port = server.port
    try:
        yield bench
    finally:
        bench.go_on.set()
        server.stop()
        assert bench.ae.drain(5) == 0


def _find(message_id: int) -> bytes:
    return command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_FIND,
            "CommandField": 0x0020,
            "MessageID": message_id,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
        }
    )


def _cancel(message_id: int) -> bytes:
    return command.encode(
        {
            "CommandField": 0x0FFF,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": command.NO_DATA_SET,
        }
    )


def _final(wire: Wire) -> tuple[object, int]:
    """The status of the final response, and how many came before it."""
    for number in range(2 * _LIMIT):
        answer = wire.answer()
        if answer["Status"] != PENDING:
            return answer["Status"], number
    raise AssertionError("no final response")


# C-CANCEL

_WHOLE = _cancel(4)
_CANCELS = [
    pytest.param(message(3, _WHOLE), id="one PDU"),
    pytest.param(p_data(3, COMMAND, _WHOLE[:7]) + p_data(3, COMMAND | LAST, _WHOLE[7:]), id="two"),
    pytest.param(
        b"".join(p_data(3, COMMAND, bytes((one,))) for one in _WHOLE)
        + p_data(3, COMMAND | LAST, b""),
        id="byte by byte",
    ),
    pytest.param(
        b"".join(message(3, _cancel(n)) for n in range(5, 30)) + message(3, _WHOLE), id="last"
    ),
    pytest.param(
        message(3, _WHOLE) + b"".join(message(3, _cancel(n)) for n in range(5, 30)), id="first"
    ),
    pytest.param(message(3, _WHOLE) * 12, id="twelve times"),
    pytest.param(message(1, _WHOLE), id="on another context"),
    pytest.param(message(3, _WHOLE) + message(1, echo_command(9)), id="before another request"),
]


@pytest.mark.parametrize("cancel", _CANCELS)
def test_cancel_in_the_middle_of_a_find_ends_it(cancel: bytes) -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(3, _find(4), _QUERY))
        assert wire.answer()["Status"] == PENDING
        wire.send(cancel)
        bench.go_on.set()

        status, pending = _final(wire)

    assert status == CANCELLED
    assert pending < _LIMIT
    assert bench.closed.is_set()


def test_cancel_in_one_pdu_with_its_request_is_heard() -> None:
    body = pdv(3, COMMAND | LAST, _find(4)) + pdv(3, DATA | LAST, _QUERY)
    with _running() as bench, Wire(bench.port) as wire:
        bench.go_on.set()
        wire.associate(_CONTEXTS)

        wire.send(pdu(P_DATA, body + pdv(3, COMMAND | LAST, _WHOLE)))

        assert _final(wire) == (CANCELLED, 1)


def test_cancel_of_a_request_that_waits_its_turn_is_heard() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(
            message(3, _find(4), _QUERY) + message(3, _find(5), _QUERY) + message(3, _cancel(5))
        )
        assert wire.answer()["Status"] == PENDING
        bench.go_on.set()

        first, second = _final(wire), _final(wire)

    assert first == (SUCCESS, _LIMIT)
    assert second[0] == CANCELLED


def test_cancel_of_another_message_changes_nothing() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(3, _find(4), _QUERY) + message(3, _cancel(5)))
        bench.go_on.set()

        assert _final(wire) == (SUCCESS, _LIMIT + 1)


def test_cancels_without_end_do_not_hold_an_operation_up() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(3, _find(4), _QUERY))
        assert wire.answer()["Status"] == PENDING
        cancels = message(3, _cancel(5)) * 1000
        is_answered = threading.Event()

        def flood() -> None:
            while not is_answered.is_set():
                wire.send(cancels)

        flooding = threading.Thread(target=flood)
        flooding.start()
        try:
            bench.go_on.set()
            assert _final(wire) == (SUCCESS, _LIMIT)
        finally:
            is_answered.set()
            wire.sock.shutdown(socket.SHUT_RDWR)
            flooding.join()


def test_cancel_after_the_last_response_does_not_cancel_the_next_of_that_message_id() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        bench.go_on.set()
        wire.associate(_CONTEXTS)
        wire.send(message(3, _find(4), _QUERY))
        assert _final(wire)[0] == SUCCESS

        wire.send(message(3, _cancel(4)) + message(3, _find(4), _QUERY))

        assert _final(wire) == (SUCCESS, _LIMIT + 1)


# A-ABORT


@pytest.mark.parametrize("ending", ["abort", "reset", "close"])
def test_peer_that_goes_while_responses_are_sent_ends_the_operation(ending: str) -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(3, _find(4), _QUERY))
        assert wire.answer()["Status"] == PENDING
        {"abort": lambda: wire.send(ABORT_PDU), "reset": wire.reset, "close": wire.sock.close}[
            ending
        ]()
        bench.go_on.set()

        assert bench.closed.wait(5)
        wait_until(lambda: not bench.ae.active_associations)


@pytest.mark.parametrize("ending", ["reset", "silence"])
def test_peer_that_does_not_read_costs_the_network_timeout_at_most(ending: str) -> None:
    with _running(network_timeout_seconds=0.5) as bench, Wire(bench.port) as wire:
        bench.large = True
        bench.go_on.set()
        wire.associate(_CONTEXTS)

        wire.send(message(3, _find(4), _QUERY))
        if ending == "reset":
            wire.answer()
            wire.reset()

        assert bench.closed.wait(5)
        wait_until(lambda: not bench.ae.active_associations)


def test_handler_that_aborts_ends_the_association_without_a_response() -> None:
    aborted: list[bool] = []

    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0

    handlers = [(evt.EVT_C_ECHO, abort), (evt.EVT_ABORTED, lambda _: aborted.append(True))]
    with _running(*handlers) as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(1, echo_command()))

        assert wire.receive()[0] == ABORT
        wait_until(lambda: not bench.ae.active_associations)
    assert aborted == [True]


def test_abort_directly_after_a_release_request_is_the_end() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)

        wire.send(RELEASE_PDU + ABORT_PDU)

        assert wire.ends() in (0, RELEASE_RP)
        wait_until(lambda: not bench.ae.active_associations)


# Release


def test_release_request_in_the_middle_of_a_message_is_answered() -> None:
    with _running() as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)

        wire.send(p_data(3, COMMAND | LAST, _find(4)) + RELEASE_PDU)

        assert wire.receive()[0] == RELEASE_RP
        assert wire.receive()[0] == 0


def _release_and_answer(event: Any) -> int:
    event.assoc.release()
    return 0


def test_acceptor_may_release() -> None:
    with _running((evt.EVT_C_ECHO, _release_and_answer)) as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(1, echo_command()))

        assert wire.receive()[0] == RELEASE_RQ
        wire.send(RELEASE_ANSWER_PDU)
        assert wire.receive()[0] == 0


def test_release_collision_of_an_acceptor_is_answered_last() -> None:
    # States 10 and 12: the requestor answers first (PS3.8 9.2.3).
    with _running((evt.EVT_C_ECHO, _release_and_answer)) as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(1, echo_command()))
        assert wire.receive()[0] == RELEASE_RQ

        wire.send(RELEASE_PDU + RELEASE_ANSWER_PDU)

        assert wire.receive()[0] == RELEASE_RP
        assert wire.receive()[0] == 0


def test_data_after_our_release_request_is_dropped() -> None:
    with _running((evt.EVT_C_ECHO, _release_and_answer)) as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        wire.send(message(1, echo_command()))
        assert wire.receive()[0] == RELEASE_RQ

        wire.send(message(1, echo_command(2)) + RELEASE_ANSWER_PDU)

        assert wire.receive()[0] == 0


# Time-outs: what a peer that never closes may cost (ARTIM, PS3.8 9.1.5)


def _reject(event: Any) -> None:
    event.assoc.acse.send_reject(1, 1, 3)
    event.assoc.kill()


@pytest.mark.parametrize("kind", ["silent", "talking"])
@pytest.mark.parametrize("refusal", ["rejection", "abort"])
def test_connection_that_the_peer_does_not_close_is_closed(refusal: str, kind: str) -> None:
    handlers = [(evt.EVT_REQUESTED, _reject)] if refusal == "rejection" else []
    with _running(*handlers) as bench, Wire(bench.port) as wire:
        wire.send(associate_pdu(_CONTEXTS))
        started = time.monotonic()
        if refusal == "abort":
            assert wire.receive()[0] == 0x02
            wire.send(pdu(0x09, b"?"))
        wire.receive()

        while bench.ae.active_associations:
            assert time.monotonic() - started < 3
            if kind == "talking":
                wire.send(bytes(1000))
            time.sleep(0.01)

        assert wire.receive()[0] == 0


@pytest.mark.parametrize("sent", [0, 5, 6, 100])
def test_part_of_an_association_request_costs_the_acse_timeout(sent: int) -> None:
    with _running(acse_timeout_seconds=0.3) as bench, Wire(bench.port) as wire:
        started = time.monotonic()

        wire.send(associate_pdu(_CONTEXTS)[:sent])

        assert wire.ends() in (0, ABORT)
        assert time.monotonic() - started < 3


def test_idle_timeout_starts_again_after_each_service() -> None:
    with _running(network_timeout_seconds=0.6) as bench, Wire(bench.port) as wire:
        wire.associate(_CONTEXTS)
        for number in range(3):
            time.sleep(0.3)
            wire.send(message(1, echo_command(number)))
            assert wire.answer()["Status"] == SUCCESS
        started = time.monotonic()

        assert wire.receive()[0] == ABORT
        assert 0.4 < time.monotonic() - started < 3
