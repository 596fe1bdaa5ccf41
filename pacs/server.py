"""The composition root: builds storage, index, archive and the DIMSE edge from the settings; starts and stops."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pacs import __version__, health
from pacs.archive import instance_log
from pacs.archive.archive import Archive
from pacs.archive.examination import Examiner
from pacs.archive.indexing import conclude
from pacs.archive.instance_log import InstanceLog
from pacs.archive.lease_keeper import report_swept
from pacs.archive.log_replay import recover
from pacs.archive.mounted import learn_storage, require_files, require_own_storage
from pacs.archive.redo import Redo
from pacs.config import Settings
from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.errors import IndexUnavailable, InvalidSetting, PacsError, StorageFull, StorageUnavailable
from pacs.index import engine, migrate
from pacs.index.index import Index
from pacs.last_resort import LastingThread, end_stuck
from pacs.model.instances import DuplicatePolicy
from pacs.model.statistics import Stats
from pacs.reloading import Reloading, tls_options_of
from pacs.scp import Scp, make_scp
from pacs.storage.durability import make_directories
from pacs.storage.filesystem import storage_from_url
from pacs.storage.spool import SpoolLimits
from pacs.wire.ae import EngineServer
from pacs.wire.tls import certificate_problem

LOGGER = logging.getLogger(__name__)

_PRUNE_INTERVAL_SECONDS = 6 * 3600.0
#: So often in ``worker_timeout_seconds`` a process without supervisor looks after itself.
_LOOKS = 4
_STOP_SECONDS = 5.0


def open_archive(settings: Settings, *, upgrade: bool = True, make: bool = True) -> Archive:
    """Open storage and index as the settings say, migrating them if need be, and making them unless told not to.

    Raises:
        NoArchive: there is no index, and none is to be made.
        InvalidSetting: a place cannot be used, or the index belongs to a newer release.
        IndexUnavailable: the database cannot be reached.
        StorageUnavailable: the storage cannot be written.
    """
    storage = storage_from_url(settings.storage_url)
    storage.spool.limit(
        SpoolLimits(
            instance_bytes=settings.maximum_instance_bytes, free_bytes=settings.minimum_free_bytes
        )
    )
    if make:
        make_directory(settings.data_dir)
    index = Index.open(
        settings.database_url,
        upgrade=upgrade,
        make=make,
        query_timeout_seconds=settings.query_timeout_seconds,
    )
    redo, duplicates = Redo(storage, index), DuplicatePolicy(settings.duplicate_policy)
    return Archive(storage, index, redo, duplicates, strict_uids=settings.strict_uids)


def with_log(settings: Settings, archive: Archive) -> Archive:
    """The archive that C-STORE stores into, as ``acknowledge_after`` says; closing it closes both."""
    if settings.acknowledge_after == "index":
        return archive
    log = InstanceLog(
        archive.storage,
        archive.index,
        archive.storage.log_directory,
        lambda record, result: conclude(archive, record, instance_log.POLICY, result),
    )
    archive.index.before_reads(log.wait_until_indexed)
    return replace(archive, log=log)


def has_files(settings: Settings) -> bool:
    """Whether there is an instance in the storage.

    Raises:
        InvalidSetting: the storage cannot be used.
        StorageUnavailable: it cannot be read.
    """
    return next(storage_from_url(settings.storage_url).files(), None) is not None


def upgrade_index(settings: Settings, *, make: bool) -> tuple[str | None, str]:
    """Migrate the index, or ``make`` one; return its revision before and after.

    Raises:
        InvalidSetting, IndexUnavailable: as for :func:`open_archive`.
    """
    if make:
        make_directory(settings.data_dir)
    before, newest = current_revision(settings)
    with closing(engine.create(settings.database_url)) as database:
        if not make:
            migrate.require_existing(database)
        migrate.upgrade(database)
    return before, newest


def current_revision(settings: Settings) -> tuple[str | None, str]:
    """The schema revision of the index (None if it is empty or there is none), and the newest one."""
    with closing(engine.create(settings.database_url)) as database:
        return migrate.current(database), migrate.head()


def make_directory(path: Path) -> None:
    """Make the data directory.

    Raises:
        InvalidSetting: it cannot be made.
    """
    try:
        make_directories(path)
    except OSError as error:
        raise InvalidSetting(f"data_dir: cannot make {path}: {error.strerror}") from error


def sweep_leftovers(archive: Archive) -> None:
    """Clear up after ended processes: the spool, files not yet on the disk, retrieves that were under way.

    Raises:
        IndexUnavailable, StorageUnavailable: it could not be done.
    """
    with _only_reading("unfinished transfers of an earlier process stay in the spool"):
        if swept := archive.storage.spool.sweep():
            LOGGER.warning("unfinished transfers of an earlier process removed: %d", swept)
    with _only_reading("what an earlier process had acknowledged may be missing until then"):
        recover(archive)
    with _only_reading("retrieves and storage commitments of an earlier process are not taken up"):
        report_swept(archive.index.leases.sweep())


@contextmanager
def _only_reading(consequence: str) -> Iterator[None]:
    """Go on with an archive that cannot be written: what is in it can be found and retrieved.

    A volume without space or a read-only one is no reason not to start. One that cannot be read either is noticed soon.
    """
    try:
        yield
    except (StorageFull, IndexUnavailable) as error:
        LOGGER.error("%s; %s", error, consequence)
    except StorageUnavailable as error:
        if getattr(error.__cause__, "errno", None) != errno.EROFS:
            raise
        LOGGER.error("%s; %s", error, consequence)


def prepare(settings: Settings, archive: Archive) -> None:
    """What is done once, before an archive is served, whatever number of processes then serves it.

    Raises:
        PacsError: the archive cannot be served.
    """
    require_own_storage(archive.storage, archive.index)
    sweep_leftovers(archive)
    # After files were written again that only the index had.
    require_files(archive.storage, archive.index)
    _prove_storage(archive)
    with _only_reading("the index does not know its storage yet"):
        learn_storage(archive.storage, archive.index)
    _look_for_lost_index(archive)
    for line in archive.index.close_to_others():
        LOGGER.warning("%s", line)
    _look_at_certificate(settings)
    if archive.index.attribute_set_version() != ATTRIBUTE_SET_VERSION:
        LOGGER.warning(
            "this release indexes other Attributes than the index holds: run 'pacs reindex'"
        )


def _look_at_certificate(settings: Settings) -> None:
    if settings.tls == "off":
        return
    if problem := certificate_problem(tls_options_of(settings)):
        # No reason not to start: other peers may be served, some do not look.
        LOGGER.error("tls_certificate: peers will refuse it: %s", problem)


@contextmanager
def refused_address(settings: Settings) -> Iterator[None]:
    """Turn the system's refusal of the address to listen on into InvalidSetting."""
    try:
        yield
    except OSError as error:
        raise InvalidSetting(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error


def summary(settings: Settings, stats: Stats, port: int) -> list[tuple[str, str]]:
    """What an operator wants to see at start-up: (what, value) lines; the last one names the port."""
    shown = settings.describe()
    lines = [
        ("pacs", __version__),
        ("AE title", shown["ae_title"]),
        ("index", shown["database_url"]),
        ("storage", shown["storage_url"]),
        ("holds", f"{stats.studies} studies, {stats.instances} instances"),
        ("access", _access(settings)),
        ("TLS", _tls(settings)),
        ("listening on", f"{settings.host}:{port}"),
    ]
    if settings.workers > 1:
        lines.insert(-1, ("workers", shown["workers"]))
    return lines


class Housekeeper:
    """Removes old records now and then; one process of an archive does so."""

    def __init__(self, archive: Archive, retrieve_record_days: int) -> None:
        self._archive = archive
        self._days = retrieve_record_days
        self._thread = LastingThread("housekeeper", self._work)
        self._thread.start()

    def stop(self) -> None:
        """End it; waits for what it is doing, but not for long."""
        self._thread.stop(_STOP_SECONDS)

    def _work(self) -> None:
        while self._days:
            try:
                before = datetime.now(UTC) - timedelta(days=self._days)
                self._archive.index.journal.prune(before)
                self._archive.index.commitments.prune(before)
                self._archive.index.associations.prune(before)
            except PacsError as error:
                LOGGER.error("old records cannot be removed: %s", error)
            if self._thread.stopping.wait(_PRUNE_INTERVAL_SECONDS):
                return


class HealthSocket:
    """Where a server is asked what it can do; made once, whatever number of processes then answers."""

    def __init__(self, settings: Settings) -> None:
        """Listen in the data directory; without it, if that is not possible, all else is served."""
        self._settings = settings
        self._socket: socket.socket | None = None
        try:
            self._socket = health.listen(settings.data_dir)
        except OSError as error:
            # Several servers of one data directory are no fault.
            level = logging.DEBUG if error.errno == errno.EADDRINUSE else logging.WARNING
            LOGGER.log(level, "pacs health cannot ask this server: %s", error.strerror)

    def examiner(self, archive: Archive) -> Examiner | None:
        """Who answers for this process, started."""
        if self._socket is None:
            return None
        examiner = Examiner(self._socket, archive, self._settings.lease_seconds)
        examiner.start()
        return examiner

    def close(self) -> None:
        """Take the name away, and close; for the process that made it."""
        if self._socket is not None:
            health.remove(self._settings.data_dir)
            self._socket.close()
            self._socket = None


@dataclass(slots=True)
class _Running:
    archive: Archive
    scp: Scp
    server: EngineServer
    housekeeper: Housekeeper
    health: HealthSocket
    examiner: Examiner | None
    reloading: Reloading


class Server:
    """An archive served by this process alone; ``pacs.workers`` is the one with several."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running: _Running | None = None

    def start(self) -> None:
        """Open the archive, sweep what a killed process left, and listen.

        Raises:
            PacsError: as for :func:`open_archive`; InvalidSetting if the port cannot be bound.
        """
        archive = open_archive(self.settings)
        try:
            prepare(self.settings, archive)
            archive = with_log(self.settings, archive)
            scp = make_scp(self.settings, archive)
            with refused_address(self.settings):
                server = scp.ae.listen(
                    (self.settings.host, self.settings.port),
                    scp.handlers,
                    open_sink=scp.open_sink,
                )
        except BaseException:
            archive.close()
            raise
        housekeeper = Housekeeper(archive, self.settings.retrieve_record_days)
        scp.start()
        health_socket = HealthSocket(self.settings)
        examiner = health_socket.examiner(archive)
        reloading = scp.reloading(self.settings, server)
        self._running = _Running(
            archive, scp, server, housekeeper, health_socket, examiner, reloading
        )

    @property
    def archive(self) -> Archive:
        """The archive, while the server runs."""
        assert self._running is not None
        return self._running.archive

    @property
    def port(self) -> int:
        """The TCP port that was bound."""
        assert self._running is not None
        return self._running.server.port

    def summary(self) -> list[tuple[str, str]]:
        """See :func:`summary`."""
        return summary(self.settings, self.archive.index.stats(), self.port)

    def wait(self, signals: int) -> None:
        """Serve until one of the bytes read from this descriptor is a signal to stop; reload at SIGHUP.

        Ends the process if it does not accept any more.
        """
        while True:
            if not select.select([signals], [], [], self.settings.worker_timeout_seconds / _LOOKS)[
                0
            ]:
                self._look_after_itself()
            elif os.read(signals, 1)[0] != signal.SIGHUP:
                return
            else:
                self.reload()

    def reload(self) -> None:
        """Take over other certificates and remote AEs; nothing if something of them is bad."""
        assert self._running is not None
        self._running.reloading.reload()

    def _look_after_itself(self) -> None:
        assert self._running is not None
        server, limit = self._running.server, self.settings.worker_timeout_seconds
        since = server.accepting_since
        if since is not None and time.monotonic() - since > limit:
            end_stuck(f"no connection has been accepted for {limit:g} s")
        if server.listener is None or not server.listener.is_alive():
            end_stuck("nobody accepts connections any more")

    def stop(self) -> int:
        """Stop listening, let running operations finish (bounded), close; return how many were cut off."""
        if self._running is None:
            return 0
        running, self._running = self._running, None
        if running.examiner is not None:
            running.examiner.stop()
        running.health.close()
        running.server.stop()
        cut_off = running.scp.ae.drain(self.settings.drain_timeout_seconds)
        running.scp.stop()
        running.housekeeper.stop()
        running.archive.close()
        return cut_off


def _prove_storage(archive: Archive) -> None:
    """Check that instances can be received, so that an operator hears of it before the modalities do.

    A full storage is no reason not to start: what is in it can still be found and retrieved.
    """
    try:
        with (
            _only_reading("nothing can be stored until that is mended"),
            archive.storage.spool.create(b""),
        ):
            pass  # leaving it unfinished removes it
    except StorageUnavailable as error:
        raise StorageUnavailable(f"{archive.storage.description}: {error.message}") from error


def _look_for_lost_index(archive: Archive) -> None:
    if archive.index.stats().instances == 0 and next(archive.storage.files(), None) is not None:
        LOGGER.error(
            "the index %s is empty, but the storage holds instances, which nobody can find: "
            "is it the right index? If it was lost, run 'pacs reindex'",
            archive.index.description,
        )


def _tls(settings: Settings) -> str:
    clients = ", peers must show a certificate" if settings.tls_require_client_certificate else ""
    return settings.tls + clients


def _access(settings: Settings) -> str:
    if settings.allow_any:
        return "OPEN: any host and AE title may do everything (allow_any)"
    return "loopback peers and registered AEs"
