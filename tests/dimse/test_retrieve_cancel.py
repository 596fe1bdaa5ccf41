"""C-CANCEL of a retrieve, whenever it comes (PS3.4 C.4.2.3.1, C.4.3.3.1; PS3.7 9.3.2.3)."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pacs.wire import command
from tests.dimse.retrieving import (
    CANCELLED,
    SUCCESS,
    Retriever,
    make_study,
    recorded,
    store_study,
    study_query,
)
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    deposit,
    engine_associations,
    register,
    responses,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import IMPLICIT, Wire, message

NO_DATA_SET = command.NO_DATA_SET


def _move_bytes(message_id: int) -> bytes:
    request = command.encode(
        {
            "AffectedSOPClassUID": STUDY_ROOT_MOVE,
            "CommandField": 0x0021,
            "MessageID": message_id,
            "Priority": 0,
            "CommandDataSetType": command.HAS_DATA_SET,
            "MoveDestination": "DEST",
        }
    )
    level = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
    uid = str(study_query().StudyInstanceUID).encode()
    uid += b"\0" * (len(uid) % 2)
    return message(1, request, level + b"\x20\x00\x0d\x00" + len(uid).to_bytes(4, "little") + uid)


def _cancel_bytes(message_id: int) -> bytes:
    return message(
        1,
        command.encode(
            {
                "CommandField": 0x0FFF,
                "MessageIDBeingRespondedTo": message_id,
                "CommandDataSetType": NO_DATA_SET,
            }
        ),
    )


def _until_final(peer: Wire) -> dict[str, Any]:
    while True:
        answer = peer.answer()
        if answer["Status"] != 0xFF00:
            return answer


@engine_on_sqlite
def test_cancel_before_the_first_sub_operation_sends_nothing(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 3)

    with Wire(service.port) as peer:
        peer.associate({1: (STUDY_ROOT_MOVE, IMPLICIT)})
        peer.send(_move_bytes(5) + _cancel_bytes(5))
        final = _until_final(peer)

    assert final["Status"] == CANCELLED
    assert final["NumberOfRemainingSuboperations"] == 3
    assert final["NumberOfCompletedSuboperations"] == 0
    assert final["CommandDataSetType"] == NO_DATA_SET
    assert destination.received == []


@engine_on_sqlite
def test_cancel_of_another_message_changes_nothing(
    service: RunningArchive, retriever: Retriever
) -> None:
    retriever.prepare(service)
    uids = store_study(service, 4)

    outcome = retriever.retrieve(
        service,
        study_query(),
        on_pending=lambda assoc: assoc.send_c_cancel(6, query_model=retriever.study_root),
        message_id=5,
    )

    assert outcome.final.status == SUCCESS
    assert outcome.uids == uids


@engine_on_sqlite
def test_cancel_after_the_last_response_does_not_cancel_the_next_of_that_message_id(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 2)

    with Wire(service.port) as peer:
        peer.associate({1: (STUDY_ROOT_MOVE, IMPLICIT)})
        peer.send(_move_bytes(5))
        first = _until_final(peer)
        peer.send(_cancel_bytes(5) + _move_bytes(5))
        second = _until_final(peer)

    assert (first["Status"], second["Status"]) == (SUCCESS, SUCCESS)
    assert len(destination.received) == 4


@engine_on_sqlite
@pytest.mark.parametrize("associations", [1, 3])
def test_cancel_during_a_slow_sub_operation_lets_those_under_way_finish_and_sends_no_more(
    service: RunningArchive, start_destination: Callable[..., Destination], associations: int
) -> None:
    under_way, may_answer = threading.Semaphore(0), threading.Event()

    def hold(_event: Any) -> int:
        under_way.release()
        return 0x0000 if may_answer.wait(10) else 0xC000

    destination = start_destination(answer=hold)
    register(service.archive, "DEST", destination.port, parallel_associations=associations)
    deposit(service.archive, *make_study(40))

    with association(service, STUDY_ROOT_MOVE) as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        next(answers)
        for _ in range(associations):
            assert under_way.acquire(timeout=5)
        _cancel_and_wait(service, assoc)
        if associations > 1:
            # The thread of the C-MOVE sends nothing itself: it looks now and then, and tells the others.
            wait_until(lambda: not _is_unread(service))
        may_answer.set()
        final = responses(answers)[-1]

    assert final.status == CANCELLED
    remaining, completed, failed, warning = final.counts
    assert len(destination.received) == associations
    assert (completed, failed, warning) == (len(destination.received), 0, 0)
    assert remaining == 40 - len(destination.received)
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.remaining, len(operations)) == (remaining, completed)
    wait_until(lambda: destination.released == associations)


@engine_on_sqlite
def test_cancel_during_the_last_but_one_sub_operation_leaves_the_last_one_remaining(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    under_way, may_answer = threading.Event(), threading.Event()

    def hold(_event: Any) -> int:
        under_way.set()
        return 0x0000 if may_answer.wait(10) else 0xC000

    destination = start_destination(answer=hold)
    register(service.archive, "DEST", destination.port)
    store_study(service, 2)

    with association(service, STUDY_ROOT_MOVE) as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        next(answers)
        assert under_way.wait(5)
        _cancel_and_wait(service, assoc)
        may_answer.set()
        final = responses(answers)[-1]

    assert (final.status, final.counts) == (CANCELLED, (1, 1, 0, 0))


@engine_on_sqlite
def test_cancel_of_move_to_silent_destination_costs_one_timeout_and_no_retry(
    serve: Serve, start_destination: Callable[..., Destination]
) -> None:
    service = serve(dimse_timeout_seconds=0.5, destination_retries=100)
    under_way, is_over = threading.Event(), threading.Event()

    def hold(_event: Any) -> int:
        under_way.set()
        is_over.wait(10)
        return 0xC000

    destination = start_destination(answer=hold)
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)

    with association(service, STUDY_ROOT_MOVE) as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        next(answers)
        assert under_way.wait(5)
        _cancel_and_wait(service, assoc)
        final = responses(answers)[-1]
    is_over.set()

    assert (final.status, final.counts) == (CANCELLED, (2, 0, 1, 0))
    assert final.failed_uids == uids[:1]


def _cancel_and_wait(service: RunningArchive, assoc: Any) -> None:
    """Send a C-CANCEL of message 5 and wait until the archive has it."""
    assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
    [serving] = engine_associations(service)
    wait_until(lambda: 5 in serving.dimse.cancel_req or _is_unread(service))


def _is_unread(service: RunningArchive) -> bool:
    """Whether there is something in the socket of the association, whose thread waits for its destination."""
    [serving] = engine_associations(service)
    return bool(select.select([serving.dul.socket.socket], [], [], 0)[0])
