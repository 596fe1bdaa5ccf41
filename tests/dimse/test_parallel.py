"""C-MOVE over several associations with one destination: everything arrives, once, and adds up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from pacs.model.retrieves import RetrieveState, SubOperationOutcome
from tests.dimse.retrieving import (
    CANCELLED,
    SUCCESS,
    WARNING,
    Outcome,
    collect,
    recorded,
    store_study,
    study_query,
)
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    closed_port,
    engine_associations,
    register,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite

pytestmark = engine_on_sqlite

StartDestination = Callable[..., Destination]
LANES = 3
UNABLE = 0xA702


def _move(
    running: RunningArchive,
    destination: Destination,
    on_pending: Callable[[Any], object] = lambda _assoc: None,
) -> Outcome:
    with association(running, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        return Outcome(collect(generator, lambda: on_pending(assoc)), destination.received)


def _destination(
    running: RunningArchive, start_destination: StartDestination, lanes: int = LANES, **fields: Any
) -> Destination:
    destination = start_destination(**fields)
    register(running.archive, "DEST", destination.port, parallel_associations=lanes)
    return destination


def _lane_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("to DEST")]


def _assert_all_released(destination: Destination) -> None:
    wait_until(lambda: destination.released + destination.aborted == destination.established)
    wait_until(lambda: not _lane_threads())


def test_move_stores_over_all_associations_at_once(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    uids = store_study(service, 12)
    # Passed by so many stores only if they are going on at the same time.
    barrier = threading.Barrier(LANES)
    destination.answer = lambda _event: 0x0000 if barrier.wait(5) >= 0 else 0xC000

    outcome = _move(service, destination)

    assert outcome.final.status == SUCCESS
    assert outcome.final.counts == (None, 12, 0, 0)
    assert all(sum(count or 0 for count in one.counts) == 12 for one in outcome.pending)
    assert destination.established == LANES
    assert sorted(destination.uids) == sorted(uids)
    record, operations = recorded(service)
    assert record.state is RetrieveState.FINISHED
    assert [one.number for one in operations] == list(range(1, 13))
    assert sorted(one.sop_instance_uid for one in operations) == sorted(uids)
    _assert_all_released(destination)
    assert destination.aborted == 0


def test_move_of_fewer_instances_than_associations_opens_no_more_than_needed(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination, lanes=4)
    uids = store_study(service, 2)

    outcome = _move(service, destination)

    assert outcome.final.counts == (None, 2, 0, 0)
    assert sorted(destination.uids) == uids
    _assert_all_released(destination)
    assert destination.established <= 2


def test_move_counts_and_names_what_failed_on_any_association(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    uids = store_study(service, 9)
    destination.answers = {uids[0]: 0xA700, uids[4]: 0xB000, uids[8]: 0xC001}

    outcome = _move(service, destination)

    assert outcome.final.status == WARNING
    assert outcome.final.counts == (None, 6, 2, 1)
    assert sorted(outcome.final.failed_uids) == [uids[0], uids[8]]
    _, operations = recorded(service)
    failed = {one.sop_instance_uid for one in operations if one.status in (0xA700, 0xC001)}
    assert failed == {uids[0], uids[8]}


def test_move_with_one_association_killed_midway_sends_its_instance_again(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    uids = store_study(service, 12)
    destination.answers = {uids[5]: _abort_first(lambda: None)}

    outcome = _move(service, destination)

    assert outcome.final.status == SUCCESS
    assert outcome.final.counts == (None, 12, 0, 0)
    assert set(destination.uids) == set(uids)
    assert destination.uids.count(uids[5]) == 2
    _assert_all_released(destination)


def test_move_with_one_association_lost_for_good_sends_its_instances_over_another(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination, lanes=2)
    uids = store_study(service, 12)
    both, stores = threading.Barrier(2), count(1)

    def together(_event: Any) -> int:
        if next(stores) <= 2:
            both.wait(5)  # both associations are in use before one of them is lost
        return 0x0000

    def refuse_more() -> None:
        destination.rejects = True

    destination.answer = together
    destination.answers = {uids[7]: _abort_first(refuse_more)}

    outcome = _move(service, destination)

    assert outcome.final.status == SUCCESS
    assert outcome.final.counts == (None, 12, 0, 0)
    assert set(destination.uids) == set(uids)
    assert destination.established == 2
    _assert_all_released(destination)


def _abort_first(before: Callable[[], None]) -> Callable[[Any], int]:
    tries: list[int] = []

    def answer(event: Any) -> int:
        tries.append(1)
        if len(tries) == 1:
            before()
            event.assoc.abort()
        return 0x0000

    return answer


def test_move_whose_destination_goes_away_fails_the_rest_quickly(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    uids = store_study(service, 20)
    has_left = threading.Event()

    def leave(event: Any) -> int:
        if not has_left.is_set():
            has_left.set()
            destination._server.shutdown()
            destination._server.server_close()
        event.assoc.abort()
        return 0x0000

    destination.answers = dict.fromkeys(uids[4:], leave)
    started = time.monotonic()

    outcome = _move(service, destination)

    assert time.monotonic() - started < 10
    assert outcome.final.status == WARNING
    assert outcome.final.counts == (None, 4, 16, 0)
    assert sorted(outcome.final.failed_uids) == sorted(uids[4:])
    _, operations = recorded(service)
    assert sorted(one.sop_instance_uid for one in operations) == sorted(uids)


def test_move_cancelled_midway_finishes_what_is_under_way_and_sends_no_more(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    store_study(service, 60)
    is_cancelled = threading.Event()
    destination.answer = lambda _event: 0x0000 if is_cancelled.wait(5) else 0xC000

    def cancel(assoc: Any) -> None:
        assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
        is_cancelled.set()

    outcome = _move(service, destination, cancel)

    assert outcome.final.status == CANCELLED
    remaining, completed, failed, warning = outcome.final.counts
    assert completed == len(destination.received)
    assert (failed, warning) == (0, 0)
    assert remaining + completed == 60
    assert remaining > 30
    record, operations = recorded(service)
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.remaining) == (CANCELLED, remaining)
    assert sorted(one.sop_instance_uid for one in operations) == sorted(destination.uids)
    _assert_all_released(destination)


def test_move_cancelled_while_its_queue_is_full_sends_no_more(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    # By then each association has one on its way and one laid out, and four for each of them wait. Some of these
    # are taken until the C-CANCEL is seen, not all.
    destination = _destination(service, start_destination)
    store_study(service, 60)
    may_answer = threading.Event()

    def answer(_event: Any) -> int:
        may_answer.wait(5)
        time.sleep(0.05)
        return 0x0000

    destination.answer = answer

    with association(service, STUDY_ROOT_MOVE) as assoc:
        generator = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        next(generator)
        wait_until(lambda: len(destination.received) == LANES)
        assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
        may_answer.set()
        final = collect(generator, lambda: None)[-1]

    assert final.status == CANCELLED
    assert len(destination.received) == final.counts[1] <= 5 * LANES


def test_move_to_destination_that_rejects_all_but_one_association_uses_that(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination)
    destination._ae.maximum_associations = 1
    uids = store_study(service, 8)

    outcome = _move(service, destination)

    assert outcome.final.status == SUCCESS
    assert sorted(destination.uids) == sorted(uids)
    assert destination.established == 1
    _assert_all_released(destination)


def test_move_to_destination_that_answers_one_association_at_a_time_does_not_wait(
    serve: Serve, start_destination: StartDestination
) -> None:
    # DCMTK's storescp without --fork is one: it leaves a request unanswered until the association before ends.
    service = serve(acse_timeout_seconds=30)
    destination = _destination(service, start_destination, lanes=2)
    uids = store_study(service, 8)
    may_go_on = threading.Event()
    first: list[int] = []

    def accept(_sop_class: str, _syntax: str) -> bool:
        first.append(threading.get_ident())
        return first[0] == threading.get_ident() or may_go_on.wait(10)

    destination.accepts = accept
    started = time.monotonic()

    try:
        outcome = _move(service, destination)
        assert time.monotonic() - started < 5
        wait_until(lambda: not _lane_threads())
    finally:
        may_go_on.set()

    assert outcome.final.status == SUCCESS
    assert sorted(destination.uids) == sorted(uids)


def test_move_to_destination_without_any_association_is_a702_and_recorded(
    service: RunningArchive,
) -> None:
    register(service.archive, "DEST", closed_port(), parallel_associations=LANES)
    uids = store_study(service, 12)

    outcome = _move(service, Destination())

    assert outcome.final.status == UNABLE
    assert outcome.final.counts == (None, 0, 12, 0)
    assert sorted(outcome.final.failed_uids) == sorted(uids)
    assert "DEST" in outcome.final.comment
    _, operations = recorded(service)
    assert len(operations) == 12
    assert {one.outcome for one in operations} == {SubOperationOutcome.FAILED}
    wait_until(lambda: not _lane_threads())


def test_move_of_requester_that_vanishes_is_recorded_and_ends(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = _destination(service, start_destination, lanes=2)
    store_study(service, 30)
    is_gone = threading.Event()
    destination.answer = lambda _event: 0x0000 if is_gone.wait(5) else 0xC000

    with association(service, STUDY_ROOT_MOVE) as assoc:
        next(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))
        wait_until(lambda: len(destination.received) == 2)
        assoc.abort()
        is_gone.set()

    wait_until(lambda: not engine_associations(service))
    record, operations = recorded(service)
    assert record.outcome is not None
    assert record.outcome.completed == len(operations) == len(destination.received) < 30
    assert record.outcome.remaining == 30 - len(operations)
    assert record.outcome.status not in (SUCCESS, WARNING)
    _assert_all_released(destination)
