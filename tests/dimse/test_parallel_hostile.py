"""C-MOVE over several associations to destinations that break every rule: it ends, adds up and is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from pacs.model.retrieves import SubOperationOutcome
from pacs.wire import command
from tests.dimse.retrieving import (
    CANCELLED,
    SUCCESS,
    WARNING,
    collect,
    recorded,
    store_study,
    study_query,
)
from tests.peers import (
    STUDY_ROOT_MOVE,
    Response,
    RunningArchive,
    association,
    register,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.scripted import Script, ScriptedAcceptor, accept
from tests.wire.wire import (
    ABORT_PDU,
    COMMAND,
    IMPLICIT,
    LAST,
    P_DATA,
    RELEASE_ANSWER_PDU,
    RELEASE_RQ,
    Wire,
    p_data,
)

pytestmark = [engine_on_sqlite, pytest.mark.timeout(60)]

_LANES = 3
_COUNT = 6
_UNABLE = 0xA702
#: How long an answer may take, so that a test can tell a bounded wait from one that ends by itself; and one PDU, which
#: holds for the association of the requester as well.
_ANSWER_SECONDS = 0.4
_PDU_SECONDS = 1
_QUICK = {
    "dimse_timeout_seconds": _ANSWER_SECONDS,
    "network_timeout_seconds": _PDU_SECONDS,
    "destination_retries": 1,
}


def _store_response(message_id: int, status: int = SUCCESS, **changes: Any) -> bytes:
    values: dict[str, command.CommandValue | None] = {
        "AffectedSOPClassUID": str(CTImageStorage),
        "CommandField": 0x8001,
        "MessageIDBeingRespondedTo": message_id,
        "CommandDataSetType": command.NO_DATA_SET,
        "Status": status,
    }
    return command.encode(values | changes)


def _requests(wire: Wire) -> Any:
    """The context and Message ID of each C-STORE request; ends with the association, which it lets go."""
    part = b""
    message_id = 0
    while True:
        kind, body = wire.receive()
        if kind == RELEASE_RQ:
            wire.send(RELEASE_ANSWER_PDU)
        if kind != P_DATA:
            return
        position = 0
        while position < len(body):
            length = int.from_bytes(body[position : position + 4], "big")
            context, control = body[position + 4], body[position + 5]
            if control & COMMAND:
                part += body[position + 6 : position + 4 + length]
                if control & LAST:
                    values, _ = command.decode(part)
                    part, message_id = b"", int(values["MessageID"])  # type: ignore[arg-type]
            elif control & LAST:
                yield context, message_id
            position += 4 + length


def _silent(wire: Wire, _number: int) -> None:
    accept(wire)
    for _ in _requests(wire):
        pass


def _never_reads(wire: Wire, _number: int) -> None:
    accept(wire)
    time.sleep(3 * _ANSWER_SECONDS)


def _half_a_pdu_then_abort(wire: Wire, _number: int) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number))[:20] + ABORT_PDU)


def _half_a_pdu_then_silence(wire: Wire, _number: int) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number))[:20])


def _reset(wire: Wire, _number: int) -> None:
    accept(wire)
    for _ in _requests(wire):
        wire.reset()


def _garbage(wire: Wire, _number: int) -> None:
    accept(wire)
    for _ in _requests(wire):
        wire.send(bytes(range(256)) * 4)


def _wrong_message_id(wire: Wire, _number: int) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number + 1)))


def _no_status(wire: Wire, _number: int) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number, Status=None)))


def _pending_for_ever(wire: Wire, _number: int) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number, 0xFF00)))


def _accepts_no_context(wire: Wire, _number: int) -> None:
    accept(wire, result=3)
    wire.receive()


def _sound(wire: Wire, _number: int = 0) -> None:
    accept(wire)
    for context, number in _requests(wire):
        wire.send(p_data(context, COMMAND | LAST, _store_response(number)))


_BAD = {
    "silent": _silent,
    "never reads": _never_reads,
    "half a PDU, then abort": _half_a_pdu_then_abort,
    "half a PDU, then silence": _half_a_pdu_then_silence,
    "RST": _reset,
    "garbage": _garbage,
    "wrong Message ID": _wrong_message_id,
    "no Status": _no_status,
    "Pending": _pending_for_ever,
    "no context": _accepts_no_context,
}
_each_bad = pytest.mark.parametrize("script", _BAD.values(), ids=_BAD)


def _move(
    running: RunningArchive, port: int, cancel_when: Callable[[], object] | None = None
) -> Response:
    register(running.archive, "DEST", port, parallel_associations=_LANES)
    with association(running, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        if cancel_when is not None:
            wait_until(cancel_when)
            assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
        return collect(generator, lambda: None)[-1]


def _assert_recorded(running: RunningArchive, final: Response) -> None:
    """What was answered is what is recorded, and nothing is missing."""
    wait_until(lambda: recorded(running)[0].outcome is not None)
    record, operations = recorded(running)
    assert record.outcome is not None
    counts = tuple(count or 0 for count in final.counts)
    outcome = record.outcome
    assert (outcome.remaining, outcome.completed, outcome.failed, outcome.warning) == counts
    assert outcome.status == final.status
    assert sum(counts) == _COUNT
    assert len({one.sop_instance_uid for one in operations}) == len(operations)
    failed = {o.sop_instance_uid for o in operations if o.outcome is SubOperationOutcome.FAILED}
    assert set(final.failed_uids) == failed
    assert len(operations) == _COUNT - counts[0]


@_each_bad
def test_move_to_a_destination_that_is_bad_on_every_association_fails_and_ends(
    serve: Serve, script: Script
) -> None:
    service = serve(**_QUICK)
    store_study(service, _COUNT)

    with ScriptedAcceptor(script) as destination:
        started = time.monotonic()
        final = _move(service, destination.port)

    assert time.monotonic() - started < 12
    assert final.status == _UNABLE
    assert final.counts == (None, 0, _COUNT, 0)
    _assert_recorded(service, final)


@_each_bad
def test_move_to_a_destination_that_is_bad_on_its_second_association_ends(
    serve: Serve, script: Script
) -> None:
    service = serve(**_QUICK)
    store_study(service, _COUNT)

    def second_is_bad(wire: Wire, number: int) -> None:
        (script if number == 1 else _sound)(wire, number)

    with ScriptedAcceptor(second_is_bad) as destination:
        final = _move(service, destination.port)

    assert final.status in (SUCCESS, WARNING)
    assert (final.counts[1] or 0) >= _COUNT - 4
    _assert_recorded(service, final)


@pytest.mark.parametrize(
    "script", [_silent, _never_reads, _half_a_pdu_then_silence, _reset, _wrong_message_id]
)
def test_move_cancelled_while_its_destination_is_bad_ends(serve: Serve, script: Script) -> None:
    service = serve(**_QUICK)
    store_study(service, _COUNT)

    with ScriptedAcceptor(script) as destination:
        started = time.monotonic()
        final = _move(service, destination.port, lambda: destination.connections > 0)

    assert time.monotonic() - started < 12
    assert final.status in (CANCELLED, _UNABLE)
    _assert_recorded(service, final)


def test_move_to_a_destination_that_accepts_other_contexts_on_each_association(
    serve: Serve,
) -> None:
    service = serve(**_QUICK)
    store_study(service, _COUNT)

    def differs(wire: Wire, number: int) -> None:
        accept(wire, *([] if number % 2 else [IMPLICIT]))
        for context, message_id in _requests(wire):
            wire.send(p_data(context, COMMAND | LAST, _store_response(message_id)))

    with ScriptedAcceptor(differs) as destination:
        final = _move(service, destination.port)

    assert (final.status, final.counts) == (SUCCESS, (None, _COUNT, 0, 0))
    _assert_recorded(service, final)
