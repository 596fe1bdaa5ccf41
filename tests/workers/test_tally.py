"""Counting connections; that the memory is shared between processes is for tests/acceptance/test_workers.py."""

from __future__ import annotations

import threading

from pacs.workers.tally import Seat, Tally


def test_connections_count_from_being_handed_until_they_end() -> None:
    tally = Tally(2)
    seat = Seat(tally, 1)

    tally.hand(0)
    tally.hand(1)
    tally.hand(1)
    seat.ended()

    assert (tally.of(0), tally.of(1), tally.total) == (1, 1, 2)


def test_seat_counts_the_connections_of_the_others() -> None:
    tally = Tally(3)
    for worker in (0, 0, 1, 2):
        tally.hand(worker)

    assert [Seat(tally, worker).elsewhere for worker in range(3)] == [2, 3, 3]


def test_connection_that_was_not_taken_does_not_count() -> None:
    tally = Tally(1)

    tally.hand(0)
    tally.take_back(0)

    assert tally.total == 0


def test_associations_of_the_others_are_known_and_end_with_their_worker() -> None:
    tally = Tally(3)
    for worker in range(3):
        Seat(tally, worker).associations(worker + 1)

    seat = Seat(tally, 0)
    assert (seat.associations_elsewhere, seat.processes) == (5, 3)

    tally.bury(2)
    assert seat.associations_elsewhere == 2


def test_buried_worker_has_no_connections_and_its_successor_starts_with_none() -> None:
    tally = Tally(2)
    for worker in (0, 0, 1):
        tally.hand(worker)

    tally.bury(0)
    tally.hand(0)

    assert (tally.of(0), tally.of(1)) == (1, 1)


def test_connections_that_end_at_the_same_time_are_all_counted() -> None:
    tally = Tally(1)
    seat = Seat(tally, 0)
    for _ in range(4000):
        tally.hand(0)

    def end_some() -> None:
        for _ in range(1000):
            seat.ended()

    threads = [threading.Thread(target=end_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tally.total == 0
