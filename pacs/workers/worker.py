"""A worker: a whole archive server, except that it is handed its connections instead of accepting them."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

from pacs.archive.archive import Archive
from pacs.archive.examination import Examiner
from pacs.config import Settings
from pacs.errors import PacsError
from pacs.scp import Scp, make_scp
from pacs.server import HealthSocket, Housekeeper, open_archive, sweep_leftovers, with_log
from pacs.wire.handed import Census, HandedServer, handed_server
from pacs.wire.repeated import RepeatedLine
from pacs.workers.channel import Failed, Ready, Stopped, SupervisorGone, WorkerEnd

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Duties:
    """What distinguishes a worker from its siblings."""

    #: The address that the supervisor listens on.
    address: tuple[Any, ...]
    census: Census
    #: It takes the place of one that has ended, and clears up after it.
    is_replacement: bool
    #: It does what only one process of an archive does.
    keeps_house: bool
    #: Shared by all of them.
    health: HealthSocket


@dataclass(slots=True)
class _Running:
    archive: Archive
    scp: Scp
    server: HandedServer
    housekeeper: Housekeeper | None
    examiner: Examiner | None


def work(settings: Settings, duties: Duties, channel: WorkerEnd) -> int:
    """Serve until the supervisor asks to stop, or is gone; return the exit status of the process."""
    try:
        try:
            running = _start(settings, duties)
        except PacsError as error:
            channel.report(Failed(error))
            return 1
        channel.report(Ready())
        lost = RepeatedLine(LOGGER, logging.ERROR)
        reloading = running.scp.reloading(settings, running.server)
        # The supervisor has said what is new.
        for connection in channel.connections(lambda: reloading.reload(says=False)):
            if connection is None:
                lost("a connection is lost: this process has too many open files")
                duties.census.ended()
            else:
                running.server.serve(connection)
        channel.report(Stopped(_stop(running, settings, channel)))
    except SupervisorGone:
        # As if this process had been killed with it: whoever does that does not want to wait.
        return 1
    return 0


def _start(settings: Settings, duties: Duties) -> _Running:
    # The supervisor has migrated the index. If a newer release has done so since, this one must not serve it.
    archive = open_archive(settings, upgrade=False)
    archive.storage.spool.require()
    try:
        if duties.is_replacement:
            sweep_leftovers(archive)
        archive = with_log(settings, archive)
        scp = make_scp(settings, archive)
    except BaseException:
        archive.close()
        raise
    server = handed_server(
        scp.ae, duties.address, scp.handlers, open_sink=scp.open_sink, census=duties.census
    )
    housekeeper = (
        Housekeeper(archive, settings.retrieve_record_days) if duties.keeps_house else None
    )
    scp.start()
    return _Running(archive, scp, server, housekeeper, duties.health.examiner(archive))


def _stop(running: _Running, settings: Settings, channel: WorkerEnd) -> int:
    """Let running operations finish (bounded), close; return how many were cut off."""
    # A second signal ends the supervisor at once; this process must notice while it waits.
    threading.Thread(target=_end_with, args=(channel,), name="watcher", daemon=True).start()
    if running.examiner is not None:
        running.examiner.stop()
    cut_off = running.scp.ae.drain(settings.drain_timeout_seconds)
    running.scp.stop()
    if running.housekeeper is not None:
        running.housekeeper.stop()
    running.archive.close()
    return cut_off


def _end_with(channel: WorkerEnd) -> None:
    channel.wait_until_gone()
    os._exit(1)
