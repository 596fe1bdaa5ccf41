"""The storage on a file system: ``<root>/YYYY/MM/DD/HHMM/<name>.dcm``, by the UTC minute of receipt.

A name is 16 hexadecimal digits of microseconds since 1970 and 16 random ones, so no text that a
peer chose is ever part of a path, the order of paths is the order of receipt, and an operator can
back up by day. Files are written once and never changed.

What makes ``put`` durable, in this order: the file's bytes (fsync), the directories above it, the
rename out of the spool, and the directory that has the new name (fsync). The file is fsynced before
the rename so that no crash leaves half an instance under a final name. ``place`` does the rename
alone, for files of which somebody else keeps the bytes until ``settle``.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from pacs.errors import InvalidSetting, PacsError, StorageUnavailable
from pacs.storage.base import Spooled, StoredFile
from pacs.storage.durability import (
    DIRECTORY_MODE,
    can_sync_file_system,
    make_directories,
    sync,
    sync_directory,
    sync_file_system,
    take_name,
    write_new,
    write_whole,
)
from pacs.storage.faults import storage_faults
from pacs.storage.spool import FILE_MODE, Spool

_SPOOL_DIRECTORY = "spool"
_LOG_DIRECTORY = "log"
#: For files that neither belong to the archive nor may be deleted without a person having looked.
_QUARANTINE_DIRECTORY = "quarantine"
_IDENTITY_FILE = "storage-id"
_IDENTITY_MODE = 0o640
#: So many files are synced faster together with all else that waits in their file system.
_MANY = 16
_DIRECTORY_LEVELS = tuple(
    re.compile(pattern)
    for pattern in ("[0-9]{4}", "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])", "[0-9]{4}")
)
_NAME = re.compile(r"([0-9a-f]{16})[0-9a-f]{16}\.dcm")
_LOCATION = re.compile(r"[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9]{4}/[0-9a-f]{32}\.dcm")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FilesystemStorage:
    """Keeps SOP Instances in files; any number of threads and processes may share one root."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        #: Where data sets are received; on the same file system, so that ``put`` can rename.
        self.spool = Spool(self._root / _SPOOL_DIRECTORY)
        #: Where the logs of processes are; on the same file system, so that it is full when the log is.
        self.log_directory = self._root / _LOG_DIRECTORY
        self._guard = threading.Lock()
        self._last_microseconds = 0
        #: For syncing all of it at once, where that can be trusted.
        self._file_system: int | None = None
        self._has_looked_at_file_system = False
        self._minute = -1
        self._minute_directory = ""
        # The directory of the current minute, once it is known to be durable.
        self._durable_directory = ""

    @property
    def root(self) -> Path:
        """The directory that everything is kept under."""
        return self._root

    @property
    def folders(self) -> tuple[Path, ...]:
        """What nothing is to be imported from (``storage.Storage.folders``)."""
        return (self._root,)

    @property
    def description(self) -> str:
        """The directory, for people."""
        return str(self._root)

    def identity(self) -> str | None:
        """What tells this storage from every other (``storage.Storage.identity``).

        Raises:
            StorageUnavailable: it cannot be read.
        """
        with storage_faults("read the identity of the storage"):
            try:
                return (self._root / _IDENTITY_FILE).read_text(errors="replace").strip() or None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def make_identity(self) -> str:
        """Give the storage an identity if it has none (``storage.Storage.make_identity``).

        Raises:
            StorageFull, StorageUnavailable: it has none.
        """
        if (identity := self.identity()) is not None:
            return identity
        identity = secrets.token_hex(16)
        with storage_faults("write the identity of the storage"):
            make_directories(self._root)
            path = self._root / _IDENTITY_FILE
            new = path.with_name(f"{_IDENTITY_FILE}.{identity}")
            try:
                write_new(new, f"{identity}\n".encode(), _IDENTITY_MODE)
                take_name(new, path)
            finally:
                new.unlink(missing_ok=True)
            sync_directory(self._root)
        # Another process may have been faster.
        return self.identity() or identity

    def put(self, spooled: Spooled) -> str:
        """Make a spooled file durable and return its location (``storage.Storage.put``).

        Raises:
            StorageFull: no space or quota is left.
            StorageUnavailable: the storage cannot be written.
        """
        with storage_faults("write to the storage"), self._in_spool(spooled) as file:
            if not file.is_synced:
                sync(file.path)
            location = self._move(file)
            target = self._root / location
            try:
                sync_directory(target.parent)
            except OSError:
                # Whether the name would survive a crash is not known, so it must not be there.
                with suppress(OSError):
                    target.unlink()
                raise
        return location

    def place(self, spooled: Spooled) -> str:
        """Move a spooled file to its location, not yet durably (``storage.Storage.place``).

        Raises:
            StorageFull, StorageUnavailable: as for ``put``.
        """
        with storage_faults("write to the storage"):
            if not self._has_looked_at_file_system:
                self._open_file_system()
            with self._in_spool(spooled) as file:
                return self._move(file)

    def new_location(self) -> str:
        """A location for one more file (``storage.Storage.new_location``)."""
        directory, name = self._next_name()
        return f"{directory}/{name}"

    def place_content(self, location: str, content: bytes) -> None:
        """Write a file to a new location, not yet durably (``storage.Storage.place_content``).

        Raises:
            StorageFull, StorageUnavailable: there is nothing at the location.
        """
        with storage_faults("write to the storage"):
            directory = location.rpartition("/")[0]
            if directory != self._durable_directory:
                self.spool.require_there()
            self._make_durable(directory)
            if not self._has_looked_at_file_system:
                self._open_file_system()
            try:
                _write_new(f"{self._root}/{location}", content)
            except FileNotFoundError:
                # An operator removed the empty directory after it was made.
                self.spool.require_there()
                self._durable_directory = ""
                self._make_durable(directory)
                _write_new(f"{self._root}/{location}", content)

    def settle(self, locations: Iterable[str]) -> list[str]:
        """Make files that were placed durable; return which were not there (``storage.Storage.settle``).

        Raises:
            StorageFull, StorageUnavailable: which of them are durable is not known.
        """
        # A Path for each takes longer than all else that is done here.
        paths = {location: self._path(location) for location in locations}
        missing = []
        with storage_faults("write to the storage"):
            if len(paths) >= _MANY and self._file_system is not None and self._is_same_system():
                sync_file_system(self._file_system)
                return [location for location, path in paths.items() if not _is_there(path)]
            directories = set()
            for location, path in paths.items():
                try:
                    sync(Path(path))
                    directories.add(Path(path).parent)
                except FileNotFoundError:
                    missing.append(location)
            for directory in directories:
                with suppress(FileNotFoundError):
                    sync_directory(directory)
        return missing

    def _is_same_system(self) -> bool:
        """Whether the storage is still on the file system that is synced as a whole: it may be mounted anew."""
        assert self._file_system is not None
        return os.fstat(self._file_system).st_dev == self._root.stat().st_dev

    def restore(self, location: str, content: bytes) -> bool:
        """Write a file again, durably (``storage.Storage.restore``).

        Raises:
            StorageFull, StorageUnavailable: whether the file has this content, and durably, is not known.
        """
        path = self.path(location)
        with storage_faults(f"restore {location}"):
            is_sound = path.is_file() and path.read_bytes() == content
        # Also if it seems to be sound: after a failed sync the kernel takes what it could not write for written.
        with self.spool.create(content, may_fill=True) as writer:
            spooled = self.spool.write(writer.finish())
        try:
            with storage_faults(f"restore {location}"):
                sync(spooled.path)
                make_directories(path.parent)
                spooled.path.replace(path)
                sync_directory(path.parent)
        except BaseException:
            # It is tried again and again: each attempt would leave a file.
            self.spool.discard(spooled)
            raise
        return not is_sound

    def has(self, location: str) -> bool:
        """Whether there is a file at a location; takes 2 us.

        Raises:
            StorageUnavailable: the location is none of this storage, or it cannot be told: a file that nobody may look
                at is not lost.
        """
        path = self.path(location)
        # Without its name: a requester is told of one reason that holds for all (``SubOperations.reason``).
        with storage_faults("look at the stored file"):
            try:
                os.stat(path)  # noqa: PTH116 - a Path costs as much as the call
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def open(self, location: str) -> BinaryIO:
        """Open a stored file for reading; the caller closes it.

        Raises:
            StorageUnavailable: the file is missing or cannot be read.
        """
        path = self.path(location)
        with storage_faults(f"read {location}"):
            return path.open("rb")

    def remove(self, location: str) -> None:
        """Remove a stored file for good; one that is gone already is no error.

        Raises:
            StorageUnavailable: the storage cannot be written.
        """
        path = self.path(location)
        with storage_faults(f"remove {location}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            # Bytes that came back after a power loss would be adopted as an instance received.
            sync_directory(path.parent)

    def files(self) -> Iterator[StoredFile]:
        """Every stored file, oldest first.

        Whatever else lies in the directories is passed over. Memory holds the names of one minute.

        Raises:
            StorageUnavailable: a directory cannot be read.
        """
        for directory in self._minutes(""):
            with storage_faults("list the storage"):
                entries = sorted(_entries(self._root / directory), key=lambda entry: entry.name)
            for entry in entries:
                stored = _stored_file(
                    directory, entry.name, partial(entry.stat, follow_symlinks=False)
                )
                if stored is not None:
                    yield stored

    def stored_file(self, location: str) -> StoredFile | None:
        """What there is at a location (``storage.Storage.stored_file``).

        Raises:
            StorageUnavailable: it cannot be told.
        """
        directory, _, name = location.rpartition("/")
        with storage_faults(f"look at {location}"):
            return _stored_file(directory, name, self.path(location).lstat)

    def size(self, location: str) -> int | None:
        """The bytes of the file at a location (``storage.Storage.size``).

        Raises:
            StorageUnavailable: the location is none of this storage, or it cannot be told.
        """
        path = self.path(location)
        with storage_faults(f"look at {location}"):
            try:
                return path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                return None

    def set_aside(self, location: str) -> None:
        """Move a file to ``<root>/quarantine/``, durably (``storage.Storage.set_aside``).

        It keeps its name, so its time of receipt can still be read from it.

        Raises:
            StorageUnavailable: the file is gone, or the storage cannot be written.
        """
        source = self.path(location)
        directory = self._root / _QUARANTINE_DIRECTORY
        with storage_faults(f"move {location} into quarantine"):
            directory.mkdir(DIRECTORY_MODE, exist_ok=True)
            sync_directory(self._root)
            source.rename(directory / source.name)
            # The new name first: a crash in between leaves the file under both or under the new one.
            sync_directory(directory)
            sync_directory(source.parent)

    def path(self, location: str) -> Path:
        """The path of a location.

        Raises:
            StorageUnavailable: the location is none that ``put`` gave out; no path leaves the root.
        """
        return Path(self._path(location))

    def _path(self, location: str) -> str:
        if not _LOCATION.fullmatch(location):
            raise StorageUnavailable(f"{location[:80]!r} is not a location of this storage")
        return f"{self._root}/{location}"

    @contextmanager
    def _in_spool(self, spooled: Spooled) -> Iterator[Spooled]:
        """Have a file of it; one that is made here is gone if the block fails."""
        file = self.spool.write(spooled)
        try:
            yield file
        except BaseException:
            if file is not spooled:
                with suppress(OSError, PacsError):
                    self.spool.discard(file)
            raise

    def _open_file_system(self) -> None:
        with self._guard:
            if self._has_looked_at_file_system:
                return
            if can_sync_file_system(self._root):
                # Before anything is placed, and kept open: each descriptor is told of a failed write once.
                self._file_system = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._file_system)
            self._has_looked_at_file_system = True

    def _move(self, spooled: Spooled) -> str:
        directory, name = self._next_name()
        self._make_durable(directory)
        location = f"{directory}/{name}"
        target = f"{self._root}/{location}"
        try:
            _rename_to_new(spooled.file_name, target)
        except FileNotFoundError:
            # An operator removed the empty directory after it was made.
            self._durable_directory = ""
            self._make_durable(directory)
            _rename_to_new(spooled.file_name, target)
        return location

    def _next_name(self) -> tuple[str, str]:
        # Never earlier than the name before, whatever the clock does: of two versions of an instance
        # ``reindex`` takes the one with the later name.
        with self._guard:
            now = time.time_ns() // 1000
            self._last_microseconds = max(now, self._last_microseconds + 1)
            microseconds = self._last_microseconds
            minute = microseconds // 60_000_000
            if minute != self._minute:
                received_at = _EPOCH + timedelta(minutes=minute)
                self._minute, self._minute_directory = minute, f"{received_at:%Y/%m/%d/%H%M}"
            return self._minute_directory, f"{microseconds:016x}{secrets.token_hex(8)}.dcm"

    def _make_durable(self, directory: str) -> None:
        if directory == self._durable_directory:
            return
        # Also when the directories are there: the thread or process that made them may not have
        # come to its fsync yet. Threads wait here, so none relies on a directory that another is
        # still syncing.
        with self._guard:
            if directory == self._durable_directory:
                return
            make_directories(self._root)
            parent = self._root
            for part in directory.split("/"):
                child = parent / part
                with suppress(FileExistsError):
                    child.mkdir(DIRECTORY_MODE)
                sync_directory(parent)
                parent = child
            self._durable_directory = directory

    def _minutes(self, directory: str) -> Iterator[str]:
        depth = directory.count("/") + 1 if directory else 0
        if depth == len(_DIRECTORY_LEVELS):
            yield directory
            return
        with storage_faults("list the storage"):
            names = sorted(entry.name for entry in _entries(self._root / directory))
        for name in names:
            child = f"{directory}/{name}" if directory else name
            if _DIRECTORY_LEVELS[depth].fullmatch(name):
                yield from self._minutes(child)


def storage_from_url(url: str) -> FilesystemStorage:
    """The storage that a setting names: ``file:///absolute/path`` or a plain path.

    Raises:
        InvalidSetting: the URL is of another kind, or names no path.
    """
    supported = "use file:///absolute/path or a plain path"
    if "://" not in url and not url.startswith("file:"):
        if not url.strip() or "\0" in url:
            raise InvalidSetting(f"The storage URL is empty: {supported}")
        return FilesystemStorage(Path(url))
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "file":
        raise InvalidSetting(f"There is no storage of kind {parts.scheme!r}: {supported}")
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise InvalidSetting(f"The storage URL {url!r} names no local directory: {supported}")
    return FilesystemStorage(Path(path))


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        # Removed since it was listed, or a stranger.
        return []


def _stored_file(
    directory: str, file_name: str, status: Callable[[], os.stat_result]
) -> StoredFile | None:
    name = _NAME.fullmatch(file_name)
    if name is None:
        return None
    try:
        found = status()
        if not stat.S_ISREG(found.st_mode):
            return None
        stored_at = _EPOCH + timedelta(microseconds=int(name[1], 16))
    except (FileNotFoundError, NotADirectoryError, OverflowError):
        return None
    return StoredFile(f"{directory}/{file_name}", found.st_size, stored_at)


def _is_there(path: str) -> bool:
    """Whether there is a file; that nobody may look at it does not say that there is none (OSError)."""
    try:
        os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _write_new(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        write_whole(descriptor, content)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - it is no Path
        raise
    finally:
        os.close(descriptor)


def _rename_to_new(source: str, target: str) -> None:
    # rename replaces silently, but 64 random bits and a microsecond do not come twice; the check is
    # for a broken random source, and costs 2 us.
    if os.path.exists(target):  # noqa: PTH110 - a Path costs as much as the rename
        raise FileExistsError(None, "a file of that name is there", target)
    os.rename(source, target)  # noqa: PTH104 - as above
