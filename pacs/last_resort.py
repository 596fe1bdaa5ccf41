"""What a process does when it meets something nobody foresaw: it goes on, or it ends for good; never half.

A process that is out of memory cannot be trusted any more: a thread may have died with a lock or a transaction, and the
thread that waits for it waits for ever. It ends at once, with an exit code of its own, and whoever started it (the
supervisor, systemd, Docker) starts another one. What it was doing is lost as if it had been
killed, which is provided for.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import NoReturn

LOGGER = logging.getLogger(__name__)

#: EX_OSERR of sysexits.h: the system could not give what is needed.
EXIT_OUT_OF_MEMORY = 71
_PAUSE_SECONDS = 5.0
# Made beforehand: nothing can be made when it is needed.
_LAST_WORDS = b"pacs: out of memory: this process ends at once, to be replaced\n"


def end_out_of_memory() -> NoReturn:
    """End the process now; nothing is closed, as after SIGKILL."""
    try:
        os.write(2, _LAST_WORDS)
    finally:
        os._exit(EXIT_OUT_OF_MEMORY)


def end_if_out_of_memory(error: BaseException) -> None:
    """End the process if that is what is wrong; for those who go on after whatever else goes wrong."""
    if isinstance(error, MemoryError):
        end_out_of_memory()


def watch_threads() -> None:
    """From now on a thread, or the process, that dies of MemoryError ends the process."""
    default = threading.excepthook

    def thread_died(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_type is not None and issubclass(arguments.exc_type, MemoryError):
            end_out_of_memory()
        default(arguments)

    threading.excepthook = thread_died


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
                end_if_out_of_memory(error)
                LOGGER.exception("%s failed and goes on in %g s", self._name, self._pause_seconds)
            else:
                return
            if self.stopping.wait(self._pause_seconds):
                return
