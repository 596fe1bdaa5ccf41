"""Keeps the lease of a serving process, and takes from those that have ended what they had begun."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Self

from pacs.errors import PacsError
from pacs.index.index import Index
from pacs.index.leases import Swept
from pacs.last_resort import LastingThread

LOGGER = logging.getLogger(__name__)

#: So often in the time of a lease it is renewed: two attempts may fail.
_RENEWALS = 4
_STOP_SECONDS = 5.0


class LeaseKeeper:
    """A thread that renews, then sweeps, four times in the time of a lease."""

    def __init__(
        self,
        index: Index,
        lease_seconds: float,
        on_swept: Callable[[Swept], None],
        take_over: Callable[[], object] = lambda: None,
    ) -> None:
        """Keep a lease of ``lease_seconds``.

        Args:
            index: Where the leases are.
            lease_seconds: How long one lasts.
            on_swept: Is told what was released, if anything was.
            take_over: Takes over what processes that ended have left elsewhere; called as often as a lease is renewed.
        """
        self._index = index
        self._seconds = lease_seconds
        self._on_swept = on_swept
        self._take_over = take_over
        self._thread = LastingThread("lease keeper", self._work)
        #: The last time it was renewed, by our clock and by the database's.
        self._renewed: tuple[float, float] | None = None
        #: Since when it has been renewed in time.
        self._kept_since = 0.0

    def start(self) -> None:
        """Take the lease, and keep it; without one, if the index cannot be written, what can be served is."""
        try:
            self._renew()
        except PacsError as error:
            LOGGER.error("the lease of this process cannot be taken: %s", error)
        self._thread.start()

    def stop(self) -> None:
        """Give the lease up; the process works on nothing any more."""
        self._thread.stop(_STOP_SECONDS)
        try:
            self._index.leases.give_up()
        except PacsError as error:
            LOGGER.warning("the lease of this process is left to run out: %s", error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._thread.stopping.wait(self._seconds / _RENEWALS):
            try:
                self._renew()
                swept = self._index.leases.sweep(by_lease=self._may_judge())
            except PacsError as error:
                LOGGER.error("the lease of this process cannot be renewed: %s", error)
                continue
            if swept != Swept():
                report_swept(swept)
                self._on_swept(swept)
            try:
                self._take_over()
            except PacsError as error:
                LOGGER.error("what an ended process left cannot be taken over: %s", error)

    def _renew(self) -> None:
        database_now = self._index.leases.renew(self._seconds)
        now = _now()
        if not self._is_unbroken(now, database_now):
            self._kept_since = now
        self._renewed = (now, database_now)

    def _is_unbroken(self, now: float, database_now: float) -> bool:
        """Whether the lease was renewed in time, by either clock: nobody's can have run out by an outage or a jump."""
        if self._renewed is None:
            return False
        before, database_before = self._renewed
        return now - before < self._seconds and database_now - database_before < self._seconds

    def _may_judge(self) -> bool:
        """Whether others have had the time to renew theirs since the last outage, as this process had."""
        return _now() - self._kept_since > self._seconds


def report_swept(swept: Swept) -> None:
    """Log what was released."""
    if swept.retrieves:
        LOGGER.warning("retrieves of an ended process that were interrupted: %d", swept.retrieves)
    if swept.commitments:
        LOGGER.warning(
            "storage commitments of an ended process taken up again: %d", swept.commitments
        )


def _now() -> float:
    # It goes on while the system is suspended.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
