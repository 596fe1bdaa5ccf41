"""A forked process and the supervisor's end of its channel."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pacs.errors import PacsError
from pacs.last_resort import EXIT_OUT_OF_MEMORY, end_out_of_memory
from pacs.workers.channel import SupervisorEnd, WorkerEnd

LOGGER = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

#: The supervisor alone decides what these mean. A terminal and some service managers send them to every process.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Child:
    """A worker as the supervisor sees it."""

    pid: int
    channel: SupervisorEnd
    started_at: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    #: Why it could not start.
    failure: PacsError | None = None
    #: Associations that it had to cut off in order to stop; None until it has stopped.
    cut_off: int | None = None
    #: How it ended; empty until then.
    end: str = ""
    #: When it was given a connection last.
    handed_at: float = 0.0
    #: When it said last that it is there.
    heard_at: float = 0.0
    #: Since when it has been asked whether it is there, without an answer; None if it has answered.
    asked_at: float | None = None

    @property
    def age_seconds(self) -> float:
        """How long it has been there."""
        return time.monotonic() - self.started_at

    def kill(self) -> None:
        """End it now; harmless if it has ended and was not buried yet."""
        os.kill(self.pid, signal.SIGKILL)

    def bury(self) -> None:
        """Wait for its end, which has come or is near, and note how it ended."""
        # Its channel is closed, so it is ending. The signal changes nothing then, and else makes sure of it.
        self.kill()
        _, status = os.waitpid(self.pid, 0)
        self.channel.close()
        code = os.waitstatus_to_exitcode(status)
        self.end = _ending(code)


def fork(body: Callable[[WorkerEnd], int]) -> Child:
    """Start a process that runs ``body`` and ends with the exit status it returns.

    Only for a process of one thread, with no connection to the database: a fork would share that.

    Raises:
        OSError: the system allows no more processes.
    """
    assert threading.active_count() == 1
    ours, theirs = SupervisorEnd.pair()
    # What is buffered would be written twice.
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal in between would be handled in the child as the supervisor handles it.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    supervisor = os.getpid()
    try:
        pid = os.fork()
        if pid == 0:
            _die_with(supervisor)
            _run(body, ours, theirs, blocked)
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
    return Child(pid, ours)


def _run(
    body: Callable[[WorkerEnd], int],
    supervisors: SupervisorEnd,
    own: socket.socket,
    signal_mask: set[int | signal.Signals],
) -> None:
    """Be the child; never returns into what the supervisor was doing."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        supervisors.close()
        status = body(WorkerEnd(own))
    except MemoryError:
        end_out_of_memory()
    except BaseException:
        LOGGER.exception("the worker failed")
    finally:
        # Not sys.exit: the exit handlers and open files of the supervisor are not this process's.
        os._exit(status)


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {_signal_name(-code)}"
    return "ran out of memory" if code == EXIT_OUT_OF_MEMORY else f"ended with status {code}"


def _die_with(parent: int) -> None:
    """Have the kernel end this process with the supervisor, also when it is stuck (prctl(2); Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended meanwhile
        os._exit(1)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
