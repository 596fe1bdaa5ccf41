"""The loop of a retrieve over a destination of the test's own: how it ends, and what it counts and records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.archive.retrieving import Ending, How, Journal, Retrieving
from pacs.errors import DestinationUnreachable, IndexUnavailable
from pacs.model.retrieves import RetrieveOutcome, SubOperationOutcome, SubOperationRecord
from pacs.model.sub_operations import Outcome, SubOperations


class _Records:
    """In place of the index: what is recorded."""

    key = 1

    def __init__(self) -> None:
        self.index = self.journal_writer = self
        self.outcomes: list[SubOperationRecord] = []
        self.endings: list[RetrieveOutcome] = []

    def begin(self, _request: Any) -> _Records:
        return self

    def finish(
        self, _entry: Any, outcome: RetrieveOutcome, batch: list[SubOperationRecord]
    ) -> None:
        self.endings.append(outcome)
        self.outcomes += batch


@dataclass
class _Destination:
    """Has up to ``room`` instances under way, and completes the oldest when one more comes."""

    room: int = 2
    fails_at: int = -1
    error: Exception = field(default_factory=lambda: DestinationUnreachable("Nobody there"))
    taken: list[Any] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    withdrawn: int = 0

    def submit(self, instance: Any) -> list[Completed]:
        if len(self.sent) + len(self.taken) == self.fails_at:
            raise self.error
        self.taken.append(instance)
        return self._complete() if len(self.taken) > self.room else []

    def drain(self) -> list[Completed]:
        return self._complete() if self.taken else []

    def _complete(self) -> list[Completed]:
        instance = self.taken.pop(0)
        self.sent.append(instance.sop_instance_uid)
        return [Completed(instance, Outcome(SubOperationOutcome.COMPLETED, 0))]

    def withdraw(self) -> None:
        # The first is on its way.
        self.withdrawn += 1
        del self.taken[1:]

    def close(self) -> None:
        raise AssertionError("it is the caller's to close")


def _instances(count: int) -> Iterator[OutgoingInstance]:
    for number in range(count):
        instance: Any = SimpleNamespace(sop_class_uid="1.2", sop_instance_uid=f"1.{number}")
        yield instance


def _conclude(ending: Ending, operations: SubOperations) -> tuple[int, str]:
    return operations.failed, ending.how.name


@dataclass
class _Bench:
    total: int
    destination: _Destination
    instances: Iterator[OutgoingInstance] | None = None
    cancelled_after: int = 1000
    abandoned_after: int = 1000
    records: _Records = field(default_factory=_Records)

    def __post_init__(self) -> None:
        archive: Any = self.records
        request: Any = None
        self.retrieving = Retrieving(
            Journal(archive, request, self.total),
            _instances(self.total) if self.instances is None else self.instances,
            self.destination,
            _conclude,
            is_cancelled=lambda: self._handed_over >= self.cancelled_after,
            is_abandoned=lambda: self._handed_over >= self.abandoned_after,
        )

    @property
    def _handed_over(self) -> int:
        return len(self.destination.sent) + len(self.destination.taken)

    def run(self) -> list[list[str]]:
        return [
            [one.instance.sop_instance_uid for one in completed]
            for completed in self.retrieving.run()
        ]

    def assert_ended(self, how: How, completed: int, failed: int, remaining: int) -> None:
        assert self.retrieving.ending is not None
        assert self.retrieving.ending.how is how
        [ending] = self.records.endings
        counts = (ending.completed, ending.failed, ending.remaining)
        assert counts == (completed, failed, remaining)
        assert (ending.status, ending.error_comment) == (failed, how.name)
        assert (self.retrieving.status, self.retrieving.comment) == (failed, how.name)
        operations = self.retrieving.operations
        assert (operations.completed, operations.failed, operations.remaining) == counts


def test_all_are_sent_in_order_and_the_record_is_finished_once() -> None:
    bench = _Bench(4, _Destination())

    assert bench.run() == [[], [], [], ["1.0"], ["1.1"], ["1.2"], ["1.3"]]

    bench.assert_ended(How.COMPLETE, 4, 0, 0)
    assert [one.sop_instance_uid for one in bench.records.outcomes] == bench.destination.sent


def test_instances_that_have_gone_since_they_were_planned_count_as_failed() -> None:
    bench = _Bench(3, _Destination(), instances=_instances(1))

    bench.run()

    bench.assert_ended(How.COMPLETE, 1, 2, 0)


def test_a_cancelled_retrieve_ends_when_what_is_on_its_way_has_arrived() -> None:
    bench = _Bench(5, _Destination(), cancelled_after=2)

    bench.run()

    bench.assert_ended(How.CANCELLED, 1, 0, 4)
    assert bench.destination.withdrawn == 1


def test_a_retrieve_that_is_cancelled_after_all_were_handed_over_is_complete_if_they_arrive() -> (
    None
):
    bench = _Bench(2, _Destination(), cancelled_after=2)

    bench.run()

    bench.assert_ended(How.COMPLETE, 2, 0, 0)


@pytest.mark.parametrize(("handed_over", "remaining"), [(2, 4), (5, 4)])
def test_an_abandoned_retrieve_sends_no_more_than_is_on_its_way(
    handed_over: int, remaining: int
) -> None:
    bench = _Bench(5, _Destination(room=9), abandoned_after=handed_over)

    bench.run()

    bench.assert_ended(How.ABANDONED, 1, 0, remaining)


def test_when_the_next_cannot_be_looked_up_the_rest_has_failed() -> None:
    def instances() -> Iterator[OutgoingInstance]:
        yield from _instances(2)
        raise IndexUnavailable

    bench = _Bench(5, _Destination(), instances=instances())

    bench.run()

    bench.assert_ended(How.CUT_SHORT, 2, 3, 0)


def test_when_the_destination_is_not_there_everything_is_recorded_as_failed_for_that() -> None:
    bench = _Bench(4, _Destination(fails_at=1))

    assert bench.run() == [[], [], ["1.0"], ["1.1"], ["1.2"], ["1.3"]]

    bench.assert_ended(How.UNREACHABLE, 0, 4, 0)
    assert bench.retrieving.is_lost
    assert {one.error_comment for one in bench.records.outcomes} == {"Nobody there"}


def test_an_error_that_nobody_foresaw_is_raised_and_recorded() -> None:
    bench = _Bench(4, _Destination(room=0, fails_at=2, error=RuntimeError("no")))

    with pytest.raises(RuntimeError):
        bench.run()

    bench.assert_ended(How.BROKEN, 2, 0, 2)


def test_a_retrieve_that_is_closed_on_its_way_is_recorded_as_abandoned() -> None:
    bench = _Bench(4, _Destination(room=0))

    steps = bench.retrieving.run()
    assert [len(next(steps)) for _ in range(3)] == [0, 1, 1]
    steps.close()

    bench.assert_ended(How.ABANDONED, 2, 0, 2)
