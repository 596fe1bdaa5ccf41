"""What the supervisor and a worker say to each other, over a pair of Unix sockets.

To the worker: one byte for each connection, with its descriptor, one that asks whether it is there, one that has it
read its settings again, and one that asks it to stop. From the worker: a line of JSON for each report. The end of the
stream says that the other process has ended, however it did: the kernel closes what a killed process had open.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from pacs.errors import (
    IndexUnavailable,
    InvalidSetting,
    PacsError,
    StorageFull,
    StorageUnavailable,
)

_CONNECTION = b"c"
_STOP = b"s"
_ASK = b"a"
_RELOAD = b"r"
_RECEIVE_BYTES = 64 * 1024
#: What may keep a worker from starting; each has an exit code of its own.
_FAILURES = {
    kind.__name__: kind
    for kind in (InvalidSetting, IndexUnavailable, StorageUnavailable, StorageFull)
}


class SupervisorGone(Exception):
    """The supervisor has ended without asking its workers to stop."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker serves what it is given."""


@dataclass(frozen=True, slots=True)
class There:
    """The worker's main thread goes on: the answer to being asked."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker could not start."""

    error: PacsError


@dataclass(frozen=True, slots=True)
class Stopped:
    """The worker has stopped, and had to end this many associations that were still busy."""

    cut_off: int


Report = Ready | There | Failed | Stopped


class WorkerEnd:
    """The worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def connections(self, reload: Callable[[], object]) -> Iterator[socket.socket | None]:
        """The connections to serve, until the worker is to stop; None is one that was lost on the way.

        ``reload`` is called when settings are to be read again.

        Raises:
            SupervisorGone: there will be no more.
        """
        # One byte at a time, since each has its own descriptor.
        while (received := self._receive())[0] != _STOP:
            kind, descriptors = received
            if kind == _ASK:
                self.report(There())
                continue
            if kind == _RELOAD:
                reload()
                continue
            if not descriptors:  # this process may not open any more files
                yield None
                continue
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(True)
            yield connection

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        except OSError as error:
            raise SupervisorGone from error
        if not message:
            raise SupervisorGone
        return message, descriptors

    def wait_until_gone(self) -> None:
        """Return when the supervisor has ended."""
        with suppress(SupervisorGone):
            while True:
                self._receive()

    def report(self, report: Report) -> None:
        """Tell the supervisor.

        Raises:
            SupervisorGone: it cannot be told any more.
        """
        match report:
            case Ready():
                said: dict[str, object] = {"ready": True}
            case There():
                said = {"there": True}
            case Failed(error):
                said = {"failed": type(error).__name__, "message": error.message}
            case Stopped(cut_off):
                said = {"cut_off": cut_off}
        try:
            self._socket.sendall(json.dumps(said).encode() + b"\n")
        except OSError as error:
            raise SupervisorGone from error


class SupervisorEnd:
    """The supervisor's end; none of its methods waits."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._unread = b""
        #: Whether the worker's end is closed.
        self.is_ended = False

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """This end, and the socket of the other one."""
        ours, theirs = socket.socketpair()
        return cls(ours), theirs

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def hand(self, connection: socket.socket) -> bool:
        """Give the worker a connection; False if it cannot take it. The caller closes its own descriptor."""
        try:
            socket.send_fds(self._socket, [_CONNECTION], [connection.fileno()])
        except OSError:  # it has just ended, or does not read any more
            return False
        return True

    def ask(self) -> None:
        """Ask whether the worker is there; if it does not even read, no answer comes."""
        with suppress(OSError):
            self._socket.send(_ASK)

    def reload(self) -> None:
        """Have the worker read its settings again."""
        with suppress(OSError):
            self._socket.send(_RELOAD)

    def stop(self) -> None:
        """Ask the worker to stop; one that has ended need not be asked."""
        with suppress(OSError):
            self._socket.send(_STOP)

    def reports(self) -> list[Report]:
        """What the worker has reported since; see also ``is_ended``."""
        try:
            received = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except OSError:  # it ended with something unread
            received = b""
        self.is_ended = not received
        *lines, self._unread = (self._unread + received).split(b"\n")
        return [_report(line) for line in lines]

    def close(self) -> None:
        """Close this end, which ends a worker that is still there."""
        self._socket.close()


def _report(line: bytes) -> Report:
    said = json.loads(line)
    if "failed" in said:
        return Failed(_FAILURES.get(said["failed"], PacsError)(said["message"]))
    if "cut_off" in said:
        return Stopped(int(said["cut_off"]))
    return There() if "there" in said else Ready()
