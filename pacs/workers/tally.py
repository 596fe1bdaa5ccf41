"""How many connections each worker serves, counted in memory that all processes share.

Each number has one writer: the supervisor counts what it hands to a worker, that worker counts what has ended. So
nothing is locked between processes, and a worker that is killed at any point leaves numbers that can be put right.
"""

from __future__ import annotations

import mmap
import threading

_NUMBER_BYTES = 8


class Tally:
    """Connections by worker (0, 1, ...); made before the first worker is forked."""

    def __init__(self, workers: int) -> None:
        self._workers = range(workers)
        # Anonymous and shared. A number is aligned, so it is written and read as a whole.
        numbers = memoryview(mmap.mmap(-1, 3 * workers * _NUMBER_BYTES)).cast("Q")
        self._handed, self._ended = numbers[:workers], numbers[workers : 2 * workers]
        self._associations = numbers[2 * workers :]

    def of(self, worker: int) -> int:
        """Connections that a worker serves, or is about to be given."""
        return self._handed[worker] - self._ended[worker]

    @property
    def total(self) -> int:
        """Connections of all workers."""
        return sum(map(self.of, self._workers))

    def hand(self, worker: int) -> None:
        """Count one in, before the worker has it: it may have ended a moment later."""
        self._handed[worker] += 1

    def take_back(self, worker: int) -> None:
        """Undo ``hand``: the worker did not get it."""
        self._handed[worker] -= 1

    def end(self, worker: int) -> None:
        """Count one out; only by that worker, one thread at a time."""
        self._ended[worker] += 1

    def bury(self, worker: int) -> None:
        """Count out all of a worker that has ended."""
        self._ended[worker] = self._handed[worker]
        self._associations[worker] = 0

    @property
    def workers(self) -> int:
        """How many there are."""
        return len(self._workers)

    @property
    def associations(self) -> int:
        """Those connections of all workers on which an association was requested."""
        return sum(self._associations)

    def associations_of(self, worker: int) -> int:
        """Those of a worker."""
        return self._associations[worker]

    def note_associations(self, worker: int, count: int) -> None:
        """Learn how many a worker has; only by that worker."""
        self._associations[worker] = count


class Seat:
    """One worker's view of the tally; implements ``pacs.wire.handed.Census``."""

    def __init__(self, tally: Tally, worker: int) -> None:
        self._tally = tally
        self._worker = worker
        self._lock = threading.Lock()

    @property
    def elsewhere(self) -> int:
        """Connections of the other workers."""
        return self._tally.total - self._tally.of(self._worker)

    @property
    def associations_elsewhere(self) -> int:
        """Associations of the other workers."""
        return self._tally.associations - self._tally.associations_of(self._worker)

    @property
    def processes(self) -> int:
        """How many workers there are."""
        return self._tally.workers

    def associations(self, count: int) -> None:
        """Say how many this worker has."""
        self._tally.note_associations(self._worker, count)

    def ended(self) -> None:
        """Count one of this worker out."""
        with self._lock:
            self._tally.end(self._worker)
