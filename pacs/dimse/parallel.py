"""A C-MOVE over several associations with its Move Destination at once.

Each association is a lane: a thread with a destination of its own, which takes the next instance from a common
queue. Instances arrive in any order and their outcomes come back in the order of completion. The first lane
connects alone, then the others; a destination that accepts fewer gets all instances over those that it accepts.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import evt
from pynetdicom.presentation import PresentationContext

from pacs.archive.retrieve import Completed, OutgoingInstance
from pacs.dimse.destinations import MoveDestination
from pacs.errors import DestinationUnreachable
from pacs.model.sub_operations import Outcome
from pacs.wire.association import EngineAssociation

LOGGER = logging.getLogger(__name__)

#: Instances that wait for a lane, for each of them, besides the one on its way and the one laid out. The thread of
#: the C-MOVE wakes up when half of them are taken: to wake for each one costs more than all else it does.
_WAITING_PER_LANE = 4
#: The longest that what has been completed is held back while the queue is full.
_REPORT_SECONDS = 0.1

#: Requests an association with these contexts and event handlers.
Associate = Callable[[list[PresentationContext], Sequence[Any]], EngineAssociation]


class ParallelDestination:
    """The sub-operations of a C-MOVE on several associations at once."""

    def __init__(
        self,
        count: int,
        associate: Associate,
        make_destination: Callable[..., MoveDestination],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Use up to ``count`` associations.

        Args:
            count: How many.
            associate: See ``Associate``.
            make_destination: Takes ``associate``, ``is_cancelled`` and ``may_give_up``.
            is_cancelled: Whether the C-MOVE is; asked in its own thread only.
        """
        self._is_cancelled = is_cancelled
        self._was_cancelled = False
        self._max_waiting = count * _WAITING_PER_LANE
        #: Guards everything below.
        self._lock = threading.Lock()
        #: For the lanes: there is something to send, or nothing will come any more.
        self._work = threading.Condition(self._lock)
        #: For the thread of the C-MOVE: there is room, or something was completed.
        self._progress = threading.Condition(self._lock)
        self._waiting: deque[OutgoingInstance] = deque()
        self._completed: list[Completed] = []
        self._under_way = 0
        #: The first lane; the others start when it has shown that the destination is there.
        self._connecting = 1
        self._connected = 0
        self._was_reached = False
        self._error: DestinationUnreachable | None = None
        self._is_draining = False
        self._is_closing = False
        self._is_started = False
        self._lanes = [_Lane(self, associate, make_destination, number) for number in range(count)]

    # Called by the thread of the C-MOVE

    def submit(self, instance: OutgoingInstance) -> list[Completed]:
        """Hand one instance to whichever lane is next to have room; return what has been completed.

        Raises:
            DestinationUnreachable: no association could be established.
        """
        if not self._is_started:
            self._is_started = True
            self._lanes[0].start()
        with self._lock:
            self._waiting.append(instance)
            self._under_way += 1
            self._work.notify()
            if len(self._waiting) >= self._max_waiting:
                while not self._has_room() and not self._completed and not self._check_cancel():
                    self._progress.wait_for(self._has_room, _REPORT_SECONDS)
            return self._collect()

    def drain(self) -> list[Completed]:
        """Wait for some of what is under way.

        Raises:
            DestinationUnreachable: as for ``submit``.
        """
        with self._lock:
            self._is_draining = True
            while not self._has_progress():
                if self._check_cancel():
                    self._forget_waiting()
                self._progress.wait_for(self._has_progress, _REPORT_SECONDS)
            self._is_draining = False
            return self._collect()

    def withdraw(self) -> None:
        """Forget what no lane has taken."""
        with self._lock:
            self._was_cancelled = True
            self._forget_waiting()

    def close(self) -> None:
        """Send nothing more, and release the associations."""
        with self._lock:
            self._is_closing = True
            self._waiting.clear()
            self._work.notify_all()
        if self._is_started:
            for lane in self._lanes:
                lane.interrupt()
            for lane in self._lanes:
                lane.join()

    def _check_cancel(self) -> bool:
        # The lanes cannot look themselves: the association of the C-MOVE belongs to its thread.
        self._was_cancelled = self._was_cancelled or self._is_cancelled()
        return self._was_cancelled

    def _forget_waiting(self) -> None:
        self._under_way -= len(self._waiting)
        self._waiting.clear()

    def _has_progress(self) -> bool:
        return self._is_dead or bool(self._completed) or not self._under_way

    def _has_room(self) -> bool:
        return self._is_dead or len(self._waiting) <= self._max_waiting // 2

    @property
    def _is_dead(self) -> bool:
        return not self._connecting and not self._connected

    def _collect(self) -> list[Completed]:
        if self._is_dead:
            if not self._was_reached:
                raise self._error or DestinationUnreachable("No association was tried")
            lost = Outcome.failed("The associations with the destination failed")
            self._completed += [Completed(instance, lost) for instance in self._waiting]
            self._waiting.clear()
        completed, self._completed = self._completed, []
        self._under_way -= len(completed)
        return completed

    # Called by the lanes

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is to be sent."""
        return self._is_closing

    def was_cancelled(self) -> bool:
        """Whether what is not on its way is not to be sent any more."""
        return self._was_cancelled

    def lane_connected(self) -> None:
        """One association is established."""
        with self._lock:
            self._connecting -= 1
            self._connected += 1
            if self._was_reached or self._is_closing:
                return
            self._was_reached = True
            for lane in self._lanes[1:]:
                try:
                    lane.start()
                except RuntimeError as error:  # no thread left
                    LOGGER.error("fewer associations than wanted: %s", error)
                    return
                self._connecting += 1

    def lane_failed(self, error: DestinationUnreachable) -> None:
        """One association could not be established."""
        with self._lock:
            self._connecting -= 1
            self._error = error
            self._progress.notify()

    def lane_may_give_up(self) -> bool:
        """Whether a lane that lost its association may leave its instances to another one; if so, it has to."""
        with self._lock:
            if self._connected < 2:
                return False
            self._connected -= 1
            return True

    def lane_broke(self) -> None:
        """A connected lane ends because of an error of ours."""
        with self._lock:
            self._connected -= 1
            self._progress.notify()

    def take(self, *, wait: bool) -> OutgoingInstance | None:
        """The next instance; None if there is none, or (with ``wait``) will be none."""
        with self._lock:
            if wait:
                self._work.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting:
                return None
            instance = self._waiting.popleft()
            if len(self._waiting) == self._max_waiting // 2:
                self._progress.notify()
            return instance

    def give_back(self, instances: Sequence[OutgoingInstance]) -> None:
        """Have another lane send these."""
        with self._lock:
            if not self._is_closing:
                self._waiting.extendleft(reversed(instances))
            self._work.notify_all()

    def forget(self, instances: Sequence[OutgoingInstance]) -> None:
        """These were taken and will not be sent: the C-MOVE is cancelled."""
        with self._lock:
            self._under_way -= len(instances)
            self._progress.notify()

    def deliver(self, completed: Sequence[Completed]) -> None:
        """These are done."""
        with self._lock:
            self._completed += completed
            if completed and self._is_draining:
                self._progress.notify()


class _Lane:
    """One association and its thread."""

    def __init__(
        self,
        parent: ParallelDestination,
        associate: Associate,
        make_destination: Callable[..., MoveDestination],
        number: int,
    ) -> None:
        self._parent = parent
        self._associate = associate
        self._destination = make_destination(
            self._open, parent.was_cancelled, may_give_up=parent.lane_may_give_up
        )
        self._guard = threading.Lock()
        self._opening: EngineAssociation | None = None
        self._is_connected = False
        # A destination may leave a request for an association unanswered for as long as it likes.
        self._thread = threading.Thread(
            target=self._run, name=f"to {self._destination.title} {number + 1}", daemon=True
        )

    def start(self) -> None:
        """Connect, and send until the parent closes."""
        self._thread.start()

    def interrupt(self) -> None:
        """Give up an association that is not established yet."""
        with self._guard:
            if self._opening is not None and self._opening.dul.socket is not None:
                self._opening.dul.socket.shut_reading()

    def join(self) -> None:
        """Wait for the end of a lane that had an association; one that never had has nothing to end."""
        if self._is_connected:
            self._thread.join()

    def _open(self, contexts: list[PresentationContext]) -> EngineAssociation:
        try:
            return self._associate(contexts, [(evt.EVT_CONN_OPEN, self._on_open)])
        finally:
            with self._guard:
                self._opening = None

    def _on_open(self, event: Any) -> None:
        with self._guard:
            self._opening = event.assoc
        if self._parent.is_closing:
            self.interrupt()

    def _run(self) -> None:
        try:
            self._destination.connect()
        except DestinationUnreachable as error:
            if not self._parent.is_closing:
                LOGGER.info("one association less: %s", error.message)
            self._parent.lane_failed(error)
            return
        except Exception:
            LOGGER.exception("an association with %s failed", self._destination.title)
            self._parent.lane_failed(
                DestinationUnreachable(f"No association with {self._destination.title}")
            )
            return
        self._is_connected = True
        self._parent.lane_connected()
        try:
            self._send()
        finally:
            self._destination.close()

    def _send(self) -> None:
        held: list[OutgoingInstance] = []
        try:
            while (instance := self._parent.take(wait=not held)) is not None or held:
                if instance is None:
                    completed = self._destination.drain()
                else:
                    held.append(instance)
                    completed = self._destination.submit(instance)
                self._done(held, completed)
                if held and not self._destination.is_busy:
                    self._parent.forget(held)
                    held.clear()
        except DestinationUnreachable as error:
            LOGGER.info("one association less: %s", error.message)
            self._done(held, self._destination.take_completed())
            self._parent.give_back(held)
        except Exception:
            LOGGER.exception("sending to %s failed", self._destination.title)
            self._done(held, self._destination.take_completed())
            failed = Outcome.failed("Processing failure")
            self._parent.deliver([Completed(instance, failed) for instance in held])
            self._parent.lane_broke()

    def _done(self, held: list[OutgoingInstance], completed: Sequence[Completed]) -> None:
        for instance, _ in completed:
            held.remove(instance)
        self._parent.deliver(completed)
