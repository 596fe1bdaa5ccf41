"""The composition root: builds storage, index, archive and the DIMSE edge from the settings; starts and stops."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pacs import __version__
from pacs.archive.archive import Archive
from pacs.config import Settings
from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dimse.access import AccessPolicy
from pacs.dimse.ae import Options, handlers, make_ae, sink_opener
from pacs.dimse.engine.ae import EngineAE, EngineServer, PendingCadence
from pacs.dimse.remote import RemoteAEs
from pacs.errors import InvalidSetting, PacsError, StorageFull, StorageUnavailable
from pacs.index import engine, migrate
from pacs.index.index import Index
from pacs.index.records import DuplicatePolicy, RemoteAE
from pacs.storage.durability import make_directories
from pacs.storage.filesystem import storage_from_url

LOGGER = logging.getLogger(__name__)

_PRUNE_INTERVAL_SECONDS = 6 * 3600.0


def open_archive(settings: Settings, *, upgrade: bool = True) -> Archive:
    """Open storage and index as the settings say, making and migrating them if need be.

    Raises:
        InvalidSetting: a place cannot be used, or the index belongs to a newer release.
        IndexUnavailable: the database cannot be reached.
        StorageUnavailable: the storage cannot be written.
    """
    make_directory(settings.data_dir)
    index = Index.open(settings.database_url, upgrade=upgrade)
    try:
        storage = storage_from_url(settings.storage_url)
    except PacsError:
        index.close()
        raise
    return Archive(storage, index, DuplicatePolicy(settings.duplicate_policy))


def upgrade_index(settings: Settings) -> tuple[str | None, str]:
    """Migrate the index; return its revision before and after.

    Raises:
        InvalidSetting, IndexUnavailable: as for :func:`open_archive`.
    """
    before, newest = current_revision(settings)
    with closing(engine.create(settings.database_url)) as database:
        migrate.upgrade(database)
    return before, newest


def current_revision(settings: Settings) -> tuple[str | None, str]:
    """The schema revision of the index (None if it is empty), and the newest one."""
    make_directory(settings.data_dir)
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


def configured_remotes(settings: Settings) -> list[RemoteAE]:
    """The remote AEs named by the ``remote_aes`` setting."""
    return [
        RemoteAE(title=remote.title, host=remote.host, port=remote.port)
        for remote in settings.remote_aes
    ]


def options_of(settings: Settings) -> Options:
    """What of the settings concerns the network."""
    return Options(
        ae_title=settings.ae_title,
        require_called_ae_title=settings.require_called_ae_title,
        maximum_associations=settings.maximum_associations,
        maximum_pdu_bytes=settings.maximum_pdu_bytes,
        acse_timeout_seconds=settings.acse_timeout_seconds,
        dimse_timeout_seconds=settings.dimse_timeout_seconds,
        network_timeout_seconds=settings.network_timeout_seconds,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        find_limit=settings.find_limit,
        destination_retries=settings.destination_retries,
        pending=PendingCadence(
            settings.pending_interval_responses, settings.pending_interval_seconds
        ),
    )


@dataclass(slots=True)
class _Running:
    archive: Archive
    ae: EngineAE
    server: EngineServer


class Server:
    """One serving process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._running: _Running | None = None
        self._stopping = threading.Event()
        self._housekeeper: threading.Thread | None = None

    def start(self) -> None:
        """Open the archive, sweep what a killed process left, and listen.

        Raises:
            PacsError: as for :func:`open_archive`; InvalidSetting if the port cannot be bound.
        """
        archive = open_archive(self.settings)
        try:
            swept = archive.storage.spool.sweep()
            _prove_storage(archive)
            restored = archive.redo.recover()
            interrupted = archive.index.mark_interrupted()
            self._listen(archive)
        except BaseException:
            archive.close()
            raise
        if archive.index.attribute_set_version() != ATTRIBUTE_SET_VERSION:
            LOGGER.warning(
                "this release indexes other Attributes than the index holds: run 'pacs reindex'"
            )
        if swept:
            LOGGER.warning("%d unfinished transfers of an earlier process removed", swept)
        if restored:
            LOGGER.warning("%d stored files written again that an earlier process lost", restored)
        if interrupted:
            LOGGER.warning("%d retrieves of an earlier process were interrupted", interrupted)
        self._housekeeper = threading.Thread(
            target=self._housekeep, args=(archive,), name="housekeeper", daemon=True
        )
        self._housekeeper.start()

    def _listen(self, archive: Archive) -> None:
        settings = self.settings
        options = options_of(settings)
        remotes = RemoteAEs(archive.index, configured_remotes(settings))
        access = AccessPolicy(
            remotes,
            allow_any=settings.allow_any,
            verify_calling_host=settings.verify_calling_host,
        )
        ae = make_ae(options)
        try:
            server = ae.listen(
                (settings.host, settings.port),
                handlers(archive, remotes, access, options),
                open_sink=sink_opener(archive),
            )
        except OSError as error:
            raise InvalidSetting(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
            ) from error
        self._running = _Running(archive, ae, server)

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
        """What an operator wants to see at start-up: (what, value) lines."""
        stats = self.archive.index.stats()
        shown = self.settings.describe()
        return [
            ("pacs", __version__),
            ("AE title", shown["ae_title"]),
            ("index", shown["database_url"]),
            ("storage", shown["storage_url"]),
            ("holds", f"{stats.studies} studies, {stats.instances} instances"),
            ("access", _access(self.settings)),
            ("listening on", f"{self.settings.host}:{self.port}"),
        ]

    def stop(self) -> int:
        """Stop listening, let running operations finish (bounded), close; return how many were cut off."""
        self._stopping.set()
        if self._running is None:
            return 0
        running, self._running = self._running, None
        running.server.stop()
        cut_off = running.ae.drain(self.settings.drain_timeout_seconds)
        if self._housekeeper is not None:
            self._housekeeper.join(5)
        running.archive.close()
        return cut_off

    def _housekeep(self, archive: Archive) -> None:
        days = self.settings.retrieve_record_days
        while days:
            try:
                archive.index.prune_retrieves(datetime.now(UTC) - timedelta(days=days))
            except PacsError as error:
                LOGGER.error("old retrieve records cannot be removed: %s", error)
            if self._stopping.wait(_PRUNE_INTERVAL_SECONDS):
                return


def _prove_storage(archive: Archive) -> None:
    """Check that instances can be received, so that an operator hears of it before the modalities do.

    A full storage is no reason not to start: what is in it can still be found and retrieved.
    """
    try:
        with archive.storage.spool.create(b""):
            pass  # leaving it unfinished removes it
    except StorageFull as error:
        LOGGER.error("%s; nothing can be stored until there is space", error)
    except StorageUnavailable as error:
        raise StorageUnavailable(f"{archive.storage.root}: {error.message}") from error


def _access(settings: Settings) -> str:
    if settings.allow_any:
        return "OPEN: any host and AE title may do everything (allow_any)"
    return "loopback peers and registered AEs"
