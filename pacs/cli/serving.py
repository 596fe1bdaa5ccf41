"""``pacs serve``."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pacs.cli.options import ALL_SETTINGS, with_settings
from pacs.cli.output import configure_logging, console
from pacs.config import Settings
from pacs.last_resort import end_when_out_of_memory
from pacs.server import Server
from pacs.workers.supervisor import Supervisor

LOGGER = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command("serve")
@with_settings(*ALL_SETTINGS)
def serve_command(settings: Settings) -> int:
    """Start the archive and serve until SIGTERM or Ctrl-C.

    Without any configuration: AE title PACS on port 11112, everything under ./pacs-data.
    """
    end_when_out_of_memory()
    # Not while there is nothing yet, or no more, that could be reloaded.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server = _server(settings)
    server.start()
    with _signals() as signals:
        # The summary is for people; a process that waits for the server reads its last line.
        for what, value in server.summary():
            console.print(f"{what} {value}")
        if settings.allow_any:
            LOGGER.warning("allow_any is on: every host may read, write and move everything")
        server.wait(signals)
    LOGGER.info("stopping: waiting for running operations")
    cut_off = server.stop()
    if cut_off:
        LOGGER.warning("%d associations were still busy and have been cut off", cut_off)
    LOGGER.info("stopped")
    return 0


def _server(settings: Settings) -> Server | Supervisor:
    if settings.workers == 1:
        return Server(settings)

    def begin_worker(name: str) -> None:
        # What ends the process when it is out of memory was inherited.
        configure_logging(settings.log_level, identifiers=settings.log_identifiers, origin=name)

    return Supervisor(settings, begin_worker)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor to read a byte from, its number, for each SIGTERM, SIGINT or SIGHUP.

    Afterwards the first two end the process at once.

    Not a handler that sets an Event which the main thread waits for: the kernel may give the signal to any
    thread, Python runs handlers in the main thread only, and what came to another thread does not wake that from
    a lock. About one SIGTERM in ten went unheard while a C-MOVE was running.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (*_STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        # Whoever sends a second one does not want to wait for running operations.
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)
