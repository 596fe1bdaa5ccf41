"""What a process does when it meets something nobody foresaw: it goes on, or it ends for good; never half.

A process that is out of memory cannot be trusted any more: a thread may have died with a lock or a transaction, and the
thread that waits for it waits for ever. It ends at once, with an exit code of its own, and whoever started it (the
supervisor, systemd, Docker) starts another one. What it was doing is lost as if it had been
killed, which is provided for.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

LOGGER = logging.getLogger(__name__)

#: EX_OSERR of sysexits.h: the system could not give what is needed.
EXIT_OUT_OF_MEMORY = 71
#: EX_SOFTWARE: a thread that all depend on does not go on.
EXIT_STUCK = 70
_PAUSE_SECONDS = 5.0
#: What a thread takes of the address space, twice over.
_THREAD_BYTES = 16 << 20
# Made beforehand: nothing can be made when it is needed.
_LAST_WORDS = b"pacs: out of memory: this process ends at once, to be replaced\n"


def end_out_of_memory() -> NoReturn:
    """End the process now; nothing is closed, as after SIGKILL."""
    try:
        os.write(2, _LAST_WORDS)
    finally:
        os._exit(EXIT_OUT_OF_MEMORY)


def end_stuck(what: str) -> NoReturn:
    """End the process now, because a part of it that all depend on does not go on."""
    LOGGER.critical("%s: this process ends at once, to be replaced", what)
    os._exit(EXIT_STUCK)


def end_when_out_of_memory() -> None:
    """From now on a MemoryError that is logged, kills a thread, or comes where it cannot be raised ends the process.

    Whoever answers a request in spite of what went wrong logs the traceback, so none of them has to know of this.
    To be called once, after the log was set up.
    """
    default = threading.excepthook, sys.unraisablehook

    def thread_died(arguments: threading.ExceptHookArgs) -> None:
        _end_if_out_of_memory(arguments.exc_value)
        default[0](arguments)

    def not_raised(arguments: sys.UnraisableHookArgs) -> None:
        _end_if_out_of_memory(arguments.exc_value)
        default[1](arguments)

    threading.excepthook = thread_died
    sys.unraisablehook = not_raised
    logging.getLogger("pacs").addHandler(_Watch(logging.WARNING))


class _Watch(logging.Handler):
    """Looks at what is logged for the one thing nobody may go on after."""

    def handle(self, record: logging.LogRecord) -> bool:
        """End the process, or do nothing; takes no lock."""
        if record.exc_info:
            _end_if_out_of_memory(record.exc_info[1])
        for argument in record.args if isinstance(record.args, tuple) else ():
            _end_if_out_of_memory(argument)
        return True


def _end_if_out_of_memory(error: object) -> None:
    if isinstance(error, MemoryError):
        end_out_of_memory()
    # A thread that cannot be started, for one, has many causes.
    is_perhaps = isinstance(error, RuntimeError) or getattr(error, "errno", None) == errno.ENOMEM
    if is_perhaps and not _has_memory():
        end_out_of_memory()


def _has_memory() -> bool:
    try:
        mmap.mmap(-1, _THREAD_BYTES).close()
    except (OSError, MemoryError):
        return False
    return True


class LastingThread:
    """A thread in the background that is there until it is stopped, whatever its work meets."""

    def __init__(
        self, name: str, work: Callable[[], None], *, pause_seconds: float = _PAUSE_SECONDS
    ) -> None:
        """Call ``work`` in a thread, again after each failure; it returns when ``stopping`` is set."""
        self.stopping = threading.Event()
        self._name = name
        self._work = work
        self._pause_seconds = pause_seconds
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start working."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Have it end, and wait for that, but not for long."""
        self.stopping.set()
        self.join(timeout_seconds)

    def join(self, timeout_seconds: float) -> None:
        """Wait for its end, if it was started."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            try:
                self._work()
            except Exception as error:
                # Without it records, reports or leases would stop coming and nobody would know.
                _end_if_out_of_memory(error)
                LOGGER.exception("%s failed and goes on in %g s", self._name, self._pause_seconds)
            else:
                return
            if self.stopping.wait(self._pause_seconds):
                return
