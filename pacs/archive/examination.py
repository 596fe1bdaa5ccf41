"""What a server can do right now, found out by doing it: answers the health check (``pacs.health``)."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from pacs import __version__
from pacs.archive.archive import Archive
from pacs.errors import PacsError
from pacs.foreign_text import visible
from pacs.last_resort import LastingThread

LOGGER = logging.getLogger(__name__)

#: How long index and storage together may take; the client waits a little longer.
TIMEOUT_SECONDS = 5.0
_STOP_SECONDS = 5.0
_SEND_SECONDS = 1.0
#: Written to the spool and removed again: one block of most file systems.
_SAMPLE = bytes(4096)
_NOBODY = "0"


class _Question:
    """One thing to try, in a thread of its own, since a database or a disk may not answer at all."""

    def __init__(self, what: str, work: Callable[[], None]) -> None:
        self._what = what
        self._work = work
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._problem = ""

    def problem(self, deadline: float) -> str:
        """What is wrong with it; empty if nothing is. An earlier attempt that still runs is waited for."""
        if self._thread is None or not self._thread.is_alive():
            self._since = time.monotonic()
            self._thread = threading.Thread(target=self._try, name=self._what, daemon=True)
            self._thread.start()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            seconds = time.monotonic() - self._since
            return f"{self._what}: no answer for {seconds:.0f} s"
        return self._problem

    def _try(self) -> None:
        self._problem = "did not end"
        try:
            self._work()
        except PacsError as error:
            self._problem = f"{self._what}: {visible(error.message)}"
        else:
            self._problem = ""


class Examiner:
    """A thread that examines the archive whenever somebody asks; several processes may share the socket."""

    def __init__(self, listening: socket.socket, archive: Archive, lease_seconds: float) -> None:
        """Answer on ``listening``, which stays the caller's."""
        self._listening = listening
        self._archive = archive
        self._lease_seconds = lease_seconds
        self._to_find = _Question("index", self._find)
        self._to_store = _Question("store", self._store)
        self._wake, self._woken = socket.socketpair()
        self._thread = LastingThread("health", self._work)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    def stop(self) -> None:
        """Do not answer any more."""
        self._thread.stopping.set()
        self._wake.send(b"s")
        self._thread.join(_STOP_SECONDS)
        self._wake.close()
        self._woken.close()

    def examine(self) -> dict[str, object]:
        """What can be done, and what is wrong."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        find, store = self._to_find.problem(deadline), self._to_store.problem(deadline)
        problems = [problem for problem in (find, store) if problem]
        return {
            "ok": not problems,
            "find": not find,
            "store": not problems,
            "problems": problems,
            "version": __version__,
            "process": os.getpid(),
        }

    def _find(self) -> None:
        self._archive.index.find_by_uid(_NOBODY)

    def _store(self) -> None:
        spool = self._archive.storage.spool
        with spool.create(_SAMPLE) as writer:
            # It has no file before one is asked for.
            spool.discard(spool.write(writer.finish()))
        # A commit of our own: the index may be read while it cannot be written.
        self._archive.index.leases.renew(self._lease_seconds)

    def _work(self) -> None:
        while not self._thread.stopping.is_set():
            select.select([self._listening, self._woken], [], [])
            if self._thread.stopping.is_set():
                return
            try:
                connection, _ = self._listening.accept()
            except OSError:  # another process was quicker, or the client has gone
                continue
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(_SEND_SECONDS)
        answer = json.dumps(self.examine()).encode() + b"\n"
        try:
            connection.sendall(answer)
        except OSError as error:
            LOGGER.debug("whoever asked for our health did not wait: %s", error)
