"""The parent of several serving processes: accepts connections, hands them out, and replaces workers that end.

It reads no byte of any peer and has no connection to the database, so that there is little in it that can fail.
One loop waits for everything: connections, reports of workers and their ends, stop signals, and the time for the next
attempt to start a worker.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from pacs.config import Settings
from pacs.errors import PacsError
from pacs.reloading import Reloading
from pacs.server import HealthSocket, open_archive, prepare, refused_address, summary
from pacs.wire.ae import connection_limit, listening_socket
from pacs.wire.repeated import RepeatedLine
from pacs.workers import child
from pacs.workers.channel import Failed, Ready, Stopped, There, WorkerEnd
from pacs.workers.child import Child
from pacs.workers.tally import Seat, Tally
from pacs.workers.worker import Duties, work

LOGGER = logging.getLogger(__name__)

#: A worker that ends sooner may do so again, and is replaced ever more slowly.
_SOUND_AFTER_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
#: Attempts in a row that no worker survived to serve anything, before the supervisor gives up: about 8 seconds.
_ATTEMPTS = 5
#: A system that cannot accept connections (no descriptors left) is asked again after this time.
_ACCEPT_PAUSE_SECONDS = 0.1
#: So often in ``worker_timeout_seconds`` a worker is asked whether it is there.
_QUESTIONS = 4
#: What a worker may take beyond ``drain_timeout_seconds`` to close its archive.
_CLOSING_SECONDS = 15.0


@dataclass(slots=True)
class _Slot:
    """The place of one worker, whichever process fills it."""

    number: int
    child: Child | None = None
    #: Workers in a row that did not last.
    short_lived: int = 0
    #: Workers in a row that never served.
    never_ready: int = 0
    #: When the next one is due.
    due_at: float = 0.0

    @property
    def name(self) -> str:
        """As log lines have it."""
        return f"worker {self.number + 1}"

    @property
    def is_ready(self) -> bool:
        """Whether it can be given a connection."""
        return self.child is not None and self.child.is_ready

    def note_end(self) -> None:
        """Its worker has ended: the next one is due, at once if that was the first that did not last."""
        self.short_lived += 1
        pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(self.short_lived - 2, 10)
        is_first = self.short_lived == 1
        self.due_at = time.monotonic() + (0 if is_first else min(pause, _LONGEST_PAUSE_SECONDS))


class Supervisor:
    """An archive served by ``settings.workers`` processes; used as ``pacs.server.Server`` is."""

    def __init__(self, settings: Settings, begin_worker: Callable[[str], None]) -> None:
        """Prepare nothing yet.

        Args:
            settings: As for one process.
            begin_worker: Called with its name in each new worker, to set up its log.
        """
        self.settings = settings
        self._begin_worker = begin_worker
        self._tally = Tally(settings.workers)
        self._slots = [_Slot(number) for number in range(settings.workers)]
        self._selector = selectors.DefaultSelector()
        self._reloading = Reloading(settings)
        self._listening: socket.socket | None = None
        self._health: HealthSocket | None = None
        self._is_accepting = False
        self._summary: list[tuple[str, str]] = []
        self._dropped = RepeatedLine(LOGGER, logging.WARNING)
        self._not_accepted = RepeatedLine(LOGGER, logging.ERROR)
        self._not_taken = RepeatedLine(LOGGER, logging.ERROR)

    # As the command line sees it

    def start(self) -> None:
        """Prepare the archive, listen, start the workers; return when all of them serve.

        Raises:
            PacsError: as for ``Server.start``; also what kept a worker from starting.
        """
        # Whoever started this process may have had it ignored: then nobody could tell how a worker ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with closing(open_archive(self.settings)) as archive:
            prepare(self.settings, archive)
            stats = archive.index.stats()
        address = (self.settings.host, self.settings.port)
        with refused_address(self.settings):
            self._listening = listening_socket(address)
        self._listening.setblocking(False)
        self._health = HealthSocket(self.settings)
        self._summary = summary(self.settings, stats, self.port)
        # What there is now is shared with the workers for as long as nobody writes to it, as the collector would.
        gc.collect()
        gc.freeze()
        try:
            self._start_workers()
        except BaseException:
            self._end_now()
            raise

    def _start_workers(self) -> None:
        for slot in self._slots:
            self._fork(slot, is_replacement=False)
        while not all(slot.is_ready for slot in self._slots):
            for slot in self._select_workers(None):
                process = self._hear(slot)
                if process.end:
                    raise _start_failure(slot, process)

    @property
    def port(self) -> int:
        """The TCP port that was bound."""
        assert self._listening is not None
        return int(self._listening.getsockname()[1])

    def summary(self) -> list[tuple[str, str]]:
        """See ``pacs.server.summary``."""
        return self._summary

    def wait(self, signals: int) -> None:
        """Serve until one of the bytes read from this descriptor is a signal to stop; reload at SIGHUP.

        Raises:
            PacsError: no worker can be started any more.
        """
        self._selector.register(signals, selectors.EVENT_READ)
        try:
            while not self._serve_once(signals):
                self._fork_what_is_due()
        except BaseException:
            self._end_now()
            raise
        self._selector.unregister(signals)

    def _serve_once(self, signals: int) -> bool:
        """Wait for something to do, and do it; return whether to stop."""
        self._accept_only_if_served()
        began = time.monotonic()
        ready = self._selector.select(self._seconds_until_due())
        for key, _ in ready:
            if key.fileobj == signals:
                if os.read(signals, 1)[0] != signal.SIGHUP:
                    return True
                self.reload()
            elif key.fileobj is self._listening:
                self._accept(self._listening)
            else:
                self._look_after(key.data)
        self._ask_workers(began)
        return False

    def reload(self) -> None:
        """Have the workers, and those that replace them, take over other certificates and remote AEs."""
        if not self._reloading.reload():
            return
        self.settings = self._reloading.settings
        for slot in self._slots:
            if slot.child is not None:
                slot.child.channel.reload()

    def _ask_workers(self, began: float) -> None:
        """Ask the workers whether they are there, now and then, and end those whose main thread is stuck.

        What they have answered was read before; a turn of the loop that took long, as when all were stopped, shows
        nothing.
        """
        now = time.monotonic()
        limit = self.settings.worker_timeout_seconds
        was_held_up = now - began > limit / 2
        for slot in self._slots:
            process = slot.child
            if process is None or not process.is_ready:
                continue
            if process.asked_at is None:
                if now - process.heard_at >= limit / _QUESTIONS:
                    process.asked_at = now
                    process.channel.ask()
            elif was_held_up:
                process.asked_at = now
            elif now - process.asked_at > limit:
                LOGGER.error(
                    "%s (process %d) has not answered for %g s and is killed",
                    slot.name,
                    process.pid,
                    limit,
                )
                process.kill()  # its channel ends, and it is replaced
                process.asked_at = now

    def stop(self) -> int:
        """Stop listening, let the workers finish (bounded); return how many associations were cut off."""
        serving = [slot.child for slot in self._slots if slot.child is not None]
        self._stop_listening()
        for process in serving:
            process.channel.stop()
        deadline = time.monotonic() + self.settings.drain_timeout_seconds + _CLOSING_SECONDS
        while any(slot.child for slot in self._slots) and time.monotonic() < deadline:
            for slot in self._select_workers(max(0.0, deadline - time.monotonic())):
                process = self._hear(slot)
                if process.end and process.cut_off is None:
                    LOGGER.error("%s %s before it had stopped", slot.name, process.end)
        for slot in self._slots:
            if slot.child is not None:
                LOGGER.error("%s does not stop and is killed", slot.name)
        self._end_now()
        return sum(process.cut_off or 0 for process in serving)

    def _stop_listening(self) -> None:
        if self._listening is None:
            return
        if self._is_accepting:
            self._selector.unregister(self._listening)
            self._is_accepting = False
        self._listening.close()
        self._listening = None

    def _end_now(self) -> None:
        """End the workers that are left, and close everything."""
        self._stop_listening()
        for slot in self._slots:
            if slot.child is not None:
                self._bury(slot)
        if self._health is not None:
            self._health.close()
        self._selector.close()

    # Connections

    def _accept_only_if_served(self) -> None:
        """Leave connections to the system's queue while no worker could take them."""
        assert self._listening is not None
        can_serve = any(slot.is_ready for slot in self._slots)
        if can_serve and not self._is_accepting:
            self._selector.register(self._listening, selectors.EVENT_READ)
        elif self._is_accepting and not can_serve:
            self._selector.unregister(self._listening)
        self._is_accepting = can_serve

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, address = listening.accept()
        except (BlockingIOError, ConnectionError):  # the peer has thought better of it
            return
        except OSError as error:
            self._not_accepted("cannot accept a connection: %s", error.strerror)
            time.sleep(_ACCEPT_PAUSE_SECONDS)  # it would be reported as acceptable at once
            return
        with connection:  # the worker has a descriptor of its own
            # Up to the limit and beyond it, its worker decides which connection has to go; this is for one that cannot.
            if self._tally.total >= 2 * connection_limit(self.settings.maximum_associations):
                self._dropped("connection from %s dropped: too many connections", address[0])
            elif not any(self._hand(slot, connection) for slot in self._by_load()):
                self._not_taken("connection from %s dropped: no worker takes it", address[0])

    def _by_load(self) -> Iterator[_Slot]:
        """The workers that can serve, least loaded first; of equals the one that had to wait longest."""
        loads = [
            (self._tally.of(slot.number), slot.child.handed_at, slot.number)
            for slot in self._slots
            if slot.child is not None and slot.child.is_ready
        ]
        return (self._slots[number] for _, _, number in sorted(loads))

    def _hand(self, slot: _Slot, connection: socket.socket) -> bool:
        assert slot.child is not None
        self._tally.hand(slot.number)
        if not slot.child.channel.hand(connection):
            self._tally.take_back(slot.number)
            return False
        slot.child.handed_at = time.monotonic()
        return True

    # Workers

    def _fork(self, slot: _Slot, *, is_replacement: bool) -> None:
        assert self._listening is not None
        assert self._health is not None
        duties = Duties(
            address=self._listening.getsockname(),
            census=Seat(self._tally, slot.number),
            is_replacement=is_replacement,
            keeps_house=slot.number == 0,
            health=self._health,
        )

        def be_worker(channel: WorkerEnd) -> int:
            self._close_descriptors()
            self._begin_worker(slot.name)
            return work(self.settings, duties, channel)

        try:
            slot.child = child.fork(be_worker)
        except OSError as error:
            raise PacsError(f"{slot.name} cannot be started: {error.strerror}") from error
        self._selector.register(slot.child.channel, selectors.EVENT_READ, slot)

    def _close_descriptors(self) -> None:
        """In a worker: have none of what would keep the port, or hide the end of the supervisor."""
        # Closed only: what is taken out of a selector here is taken out of the supervisor's as well.
        self._selector.close()
        if self._listening is not None:
            self._listening.close()
        for slot in self._slots:
            if slot.child is not None:
                slot.child.channel.close()

    def _select_workers(self, timeout_seconds: float | None) -> list[_Slot]:
        return [key.data for key, _ in self._selector.select(timeout_seconds) if key.data]

    def _hear(self, slot: _Slot) -> Child:
        """Take in what a worker reports; one that has ended is buried and leaves its slot."""
        process = slot.child
        assert process is not None
        for report in process.channel.reports():
            match report:
                case There():
                    process.asked_at, process.heard_at = None, time.monotonic()
                case Ready():
                    process.is_ready = True
                    process.heard_at = time.monotonic()
                    slot.never_ready = 0
                case Failed(error):
                    process.failure = error
                case Stopped(cut_off):
                    process.cut_off = cut_off
        if process.channel.is_ended:
            self._bury(slot)
        return process

    def _bury(self, slot: _Slot) -> None:
        process, slot.child = slot.child, None
        assert process is not None
        self._selector.unregister(process.channel)
        process.bury()
        self._tally.bury(slot.number)

    def _look_after(self, slot: _Slot) -> None:
        """Hear a worker while the archive is served, and have it replaced if it has ended."""
        was_ready = slot.is_ready
        process = self._hear(slot)
        if not process.end:
            if process.is_ready and not was_ready:
                LOGGER.info("%s serves again (process %d)", slot.name, process.pid)
        elif process.is_ready:
            LOGGER.error("%s (process %d) %s; it is replaced", slot.name, process.pid, process.end)
            if process.age_seconds >= _SOUND_AFTER_SECONDS:
                slot.short_lived = 0
            slot.note_end()
        else:
            self._note_failed_start(slot, _start_failure(slot, process))

    def _note_failed_start(self, slot: _Slot, error: PacsError) -> None:
        slot.never_ready += 1
        if all(one.never_ready >= _ATTEMPTS for one in self._slots):
            raise error
        slot.note_end()
        LOGGER.error("%s; next attempt in %.1f s", error.message, slot.due_at - time.monotonic())

    def _fork_what_is_due(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.child is None and slot.due_at <= now:
                try:
                    self._fork(slot, is_replacement=True)
                except PacsError as error:
                    self._note_failed_start(slot, error)

    def _seconds_until_due(self) -> float:
        """How long there is nothing to do but to listen."""
        due = [slot.due_at for slot in self._slots if slot.child is None]
        until_asked = self.settings.worker_timeout_seconds / _QUESTIONS
        return min(until_asked, max(0.0, min(due) - time.monotonic())) if due else until_asked


def _start_failure(slot: _Slot, process: Child) -> PacsError:
    if process.failure is None:
        return PacsError(f"{slot.name} {process.end} before it could serve")
    return type(process.failure)(f"{slot.name} cannot start: {process.failure.message}")
