"""Which connection has to go when there are too many: one that nobody has asked for an association on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class Entry:
    """A connection that is served."""

    host: str
    #: Another one once it is under TLS.
    socket: Any
    since: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Wake up the thread that reads, which finds the end of the stream and closes."""
        with contextlib.suppress(OSError):
            # Not SSLSocket's own method, which would have that thread go on in plain text.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Admission:
    """The connections of one process; safe to share between threads.

    A silent connection costs its peer nothing, so of these the oldest one goes for a new one: of the host that has the
    most of them, or one host would have those of the others go. An association is never ended for a newcomer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: Without an association, oldest first.
        self._waiting: dict[Entry, None] = {}
        self._established: set[Entry] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._established)

    def enter(self, host: str, sock: Any) -> Entry:
        """Count a connection in."""
        entry = Entry(host, sock)
        with self._lock:
            self._waiting[entry] = None
        return entry

    def establish(self, entry: Entry) -> None:
        """It has become an association."""
        with self._lock:
            if self._waiting.pop(entry, entry) is None:
                self._established.add(entry)

    def leave(self, entry: Entry) -> None:
        """Count it out; does nothing for one that was made to go."""
        with self._lock:
            self._waiting.pop(entry, None)
            self._established.discard(entry)

    def make_room(self) -> Entry | None:
        """Take out the connection that has to go, for the caller to close; None if all are associations."""
        with self._lock:
            hosts: dict[str, int] = {}
            for entry in self._waiting:
                hosts[entry.host] = hosts.get(entry.host, 0) + 1
            most = max(hosts.values(), default=0)
            for entry in self._waiting:
                if hosts[entry.host] == most:
                    del self._waiting[entry]
                    return entry
        return None
