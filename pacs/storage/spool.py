"""The spool: DICOM files that are being received or imported and are not yet in the storage.

Nothing in it was ever acknowledged, so whatever a killed process left is removed by the next sweep.
It has to be on the file system of the storage, because ``FilesystemStorage`` renames out of it.

Each process has a directory of its own (``pacs.storage.process_directory``); ``sweep`` removes those whose process
has ended. A small data set stays in memory until somebody asks for a file.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pacs.errors import LimitExceeded, StorageFull
from pacs.storage.base import Spooled
from pacs.storage.durability import make_directories, start_writeback, write_whole
from pacs.storage.faults import storage_faults
from pacs.storage.process_directory import ProcessDirectory, has_other_owners

#: A file of up to this size stays in memory until somebody asks for it.
SMALL_BYTES = 64 * 1024
#: The disk begins to write when so much has come in, so that little is left for the final sync.
_WRITEBACK_BYTES = 256 * 1024
#: How much may be written, and for how long, before the file system is asked for its free space again.
_SPACE_STEP_BYTES = 16 * 1024 * 1024
_SPACE_SECONDS = 1.0
_FILE_SUFFIX = ".part"
#: Of files with patient data: as DIRECTORY_MODE.
FILE_MODE = 0o640


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """What is refused before the disk is full, in bytes; zero is no limit."""

    #: The longest data set.
    instance_bytes: int = 0
    #: What is left free of the file system.
    free_bytes: int = 0


class _FreeSpace:
    """Keeps a part of the file system free, and asks how much there is now and then only.

    A full one stops more than storing: an SQLite index beside the files cannot write its log any more.
    """

    def __init__(self, directory: Path, kept_bytes: int) -> None:
        self._directory = directory
        self._kept = kept_bytes
        # Threads may write at the same time: what they count too little is less than what they write at a time.
        self._granted = 0
        self._until = 0.0

    def take(self, size: int) -> None:
        """Have room for so many bytes more.

        Raises:
            StorageFull: what is kept free would be used.
        """
        if not self._kept:
            return
        self._granted -= size
        now = time.monotonic()
        if self._granted >= 0 and now < self._until:
            return
        status = os.statvfs(self._directory)
        left = status.f_bavail * status.f_frsize - self._kept - size
        self._granted, self._until = min(_SPACE_STEP_BYTES, left), now + _SPACE_SECONDS
        if left < 0:
            raise StorageFull(f"Disk full: minimum_free_bytes keeps {self._kept >> 20} MiB free")


class Spool:
    """One process's part of the spool directory; any number of threads may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._limits = SpoolLimits()
        self._space = _FreeSpace(root, 0)
        self._guard = threading.Lock()
        self._directory: ProcessDirectory | None = None
        self._numbers = itertools.count(1)
        self._may_be_new = True

    def require(self) -> None:
        """From now on take the spool as it is, and do not make it where there is none.

        Below the mount point of a volume that is not mounted there is none, and what is stored there would be hidden
        by the volume.
        """
        self._may_be_new = False

    def limit(self, limits: SpoolLimits) -> None:
        """From now on refuse what is beyond these."""
        self._limits = limits
        self._space = _FreeSpace(self._root, limits.free_bytes)

    def create(self, meta: bytes, *, may_fill: bool = False) -> SpoolWriter:
        """Begin a file with these bytes before its data set; the caller finishes or discards it.

        What is acknowledged already ``may_fill`` the space that is kept free of what is new.

        Raises:
            StorageFull, StorageUnavailable: nothing is left behind.
        """
        with storage_faults("write to the spool"):
            self._own_directory()
            space = _FreeSpace(self._root, 0) if may_fill else self._space
            space.take(len(meta))
            return SpoolWriter(self._open_new, meta, self._limits, space)

    def write(self, spooled: Spooled) -> Spooled:
        """Give a data set that is in memory a file in the spool; one that has a file is returned as it is.

        Raises:
            StorageFull, StorageUnavailable: nothing is left behind.
        """
        if spooled.file_name:
            return spooled
        with storage_faults("write to the spool"):
            descriptor, path = self._open_new()
            try:
                write_whole(descriptor, spooled.head)
            except BaseException:
                with suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - it is no Path
                raise
            finally:
                os.close(descriptor)
        return replace(spooled, file_name=path)

    def _open_new(self) -> tuple[int, str]:
        directory = self._own_directory()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        path = self._next_path(directory)
        try:
            return os.open(path, flags, FILE_MODE), path
        except FileNotFoundError:
            path = self._next_path(self._renewed_directory(directory))
            return os.open(path, flags, FILE_MODE), path

    def require_there(self) -> None:
        """Check that the storage is where it was: below an empty mount point nothing is to be made.

        Raises:
            StorageFull, StorageUnavailable: it is not.
        """
        with storage_faults("write to the spool"):
            directory = self._own_directory()
            if not directory.is_dir():
                self._renewed_directory(directory)

    def scratch_directory(self) -> str:
        """A directory for files without a name, on the file system of the spool.

        Raises:
            StorageFull, StorageUnavailable: there is none.
        """
        with storage_faults("write to the spool"):
            return str(self._own_directory())

    def take_room(self, size: int) -> None:
        """Have room for so many bytes more in such a file, beside what is left free of the file system.

        Raises:
            StorageFull, StorageUnavailable: there is none.
        """
        with storage_faults("write to the spool"):
            self._space.take(size)

    def discard(self, spooled: Spooled) -> None:
        """Remove a finished file that was refused; one that is gone is no error."""
        with storage_faults("remove from the spool"):
            if spooled.file_name:
                spooled.path.unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what processes that are gone left behind; return how many there were."""
        with storage_faults("sweep the spool"):
            abandoned = 0
            for directory in ProcessDirectory.claim_abandoned(self._root):
                directory.remove()
                abandoned += 1
            return abandoned

    def has_other_users(self) -> bool:
        """Whether another process receives instances, and so may have stored one that it has not indexed yet."""
        with storage_faults("look at the spool"):
            return has_other_owners(self._root, self._directory)

    def close(self) -> None:
        """Remove this process's directory with all that is in it; the spool can be used again."""
        with self._guard:
            directory, self._directory = self._directory, None
        if directory is not None:
            with suppress(OSError):
                directory.remove()

    def _next_path(self, directory: Path) -> str:
        # A Path for each costs as much as opening the file.
        return f"{directory}/{next(self._numbers):x}{_FILE_SUFFIX}"

    def _renewed_directory(self, gone: Path) -> Path:
        # The storage was replaced under the running process. See ``require`` for why no more is made.
        with self._guard:
            if self._directory is not None and self._directory.path != gone:
                return self._directory.path
            before, self._directory = self._directory, ProcessDirectory.make(self._root)
        if before is not None:
            before.release()
        return self._directory.path

    def _own_directory(self) -> Path:
        # Made on first use: commands that only read must not need a writable spool.
        with self._guard:
            if self._directory is None:
                # Durably, though nothing here has to last: the storage's own directory may be among them, and
                # what makes an instance durable finds that one made.
                if self._may_be_new:
                    make_directories(self._root)
                self._directory = ProcessDirectory.make(self._root)
                self._may_be_new = False
            return self._directory.path


class SpoolWriter:
    """One data set while it arrives; it has a file in the spool once it is longer than a small one.

    As a context manager it discards the file unless it was finished. Not for use by two threads at
    once.
    """

    def __init__(
        self,
        open_new: Callable[[], tuple[int, str]],
        meta: bytes,
        limits: SpoolLimits,
        space: _FreeSpace,
    ) -> None:
        self._longest = limits.instance_bytes
        self._space = space
        self._open_new = open_new
        self._path = ""
        self._descriptor = -1
        self._is_over = False
        self._data_set_offset = len(meta)
        self._data_set_size = 0
        self._digest = hashlib.sha256()
        self._head = bytearray(meta)
        self._unwritten = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.discard()

    def write(self, fragment: bytes | bytearray | memoryview) -> None:
        """Append bytes of the data set.

        Raises:
            StorageFull, StorageUnavailable: the file cannot be finished any more, only discarded.
            LimitExceeded: likewise; the data set is longer than the longest that is taken.
        """
        view = memoryview(fragment).cast("B")
        if self._longest and self._data_set_size + len(view) > self._longest:
            raise LimitExceeded(f"The instance is longer than {self._longest} bytes")
        with storage_faults("write to the spool"):
            self._space.take(len(view))
            # What is in memory goes to the file with the first bytes that have no room there any more.
            room = max(SMALL_BYTES - len(self._head), 0)
            if len(view) > room:
                if not self._path:
                    self._descriptor, self._path = self._open_new()
                    self._append(memoryview(bytes(self._head)))
                self._append(view)
        self._head += view[:room]
        self._digest.update(view)
        self._data_set_size += len(view)

    def finish(self) -> Spooled:
        """Hand it over, complete: a small one in memory, another as a file that is closed and synced.

        Raises:
            StorageFull, StorageUnavailable: the file is discarded.
        """
        has_file = bool(self._path)
        try:
            # Some file systems report a failed write no earlier than here.
            with storage_faults("write to the spool"):
                if has_file:
                    os.fsync(self._descriptor)
                self._close()
        except BaseException:
            self.discard()
            raise
        self._is_over = True
        return Spooled(
            self._path,
            self._data_set_offset,
            self._data_set_size,
            self._digest.hexdigest(),
            bytes(self._head),
            is_synced=has_file,
        )

    def discard(self) -> None:
        """Remove the file; does nothing after ``finish`` or a second time."""
        if self._is_over:
            return
        with suppress(OSError):
            self._close()
        self._is_over = True
        # What cannot be removed now, the next sweep removes.
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - it is no Path

    def _append(self, view: memoryview) -> None:
        self._unwritten += len(view)
        write_whole(self._descriptor, view)
        if self._unwritten >= _WRITEBACK_BYTES:
            start_writeback(self._descriptor)
            self._unwritten = 0

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
