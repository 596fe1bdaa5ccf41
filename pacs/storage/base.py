"""The contract between the archive and whatever keeps the bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, cast


@dataclass(frozen=True, slots=True)
class Spooled:
    """A received DICOM Part 10 file: complete, not yet durable; in the spool, or in memory if it is small."""

    #: The file in the spool; empty if it is in memory.
    file_name: str
    #: Bytes before the data set: preamble, prefix and File Meta Information.
    data_set_offset: int
    #: Bytes of the data set, exactly as received.
    data_set_size: int
    #: SHA-256 of the data set, lower-case hexadecimal.
    digest: str
    #: The first bytes of the file: all of it, or enough for reading the header without opening the file.
    head: bytes
    #: Whether the bytes are on stable storage already (the name is not).
    is_synced: bool

    @property
    def path(self) -> Path:
        """The file; only for one that has a file."""
        assert self.file_name
        return Path(self.file_name)

    @property
    def content(self) -> bytes | None:
        """The whole file, if it is small."""
        return self.head if len(self.head) == self.size else None

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self.data_set_offset + self.data_set_size

    def open(self) -> BinaryIO:
        """Open the file for reading; what is in ``head`` costs no system call.

        Raises:
            OSError: reading raises it when the file is gone.
        """
        return io.BytesIO(self.head) if self.content else cast("BinaryIO", _HeadFirst(self))


class _HeadFirst(io.RawIOBase):
    """A spooled file that is opened when somebody reads behind its head."""

    def __init__(self, spooled: Spooled) -> None:
        self._spooled = spooled
        self._position = 0
        self._file: BinaryIO | None = None

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spooled.size}
        self._position = base[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        begin = self._position
        end = self._spooled.size if size < 0 else begin + size
        if end <= len(self._spooled.head):
            data = self._spooled.head[begin:end]
        else:
            self._file = self._file or self._spooled.path.open("rb")
            self._file.seek(begin)
            data = self._file.read(size)
        self._position += len(data)
        return data

    def fileno(self) -> int:
        self._file = self._file or self._spooled.path.open("rb")
        return self._file.fileno()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file found in the storage."""

    location: str
    size_bytes: int
    #: When it was put, aware UTC.
    stored_at: datetime


class Storage(Protocol):
    """Keeps SOP Instances as DICOM Part 10 files, addressed by an opaque location."""

    @property
    def description(self) -> str:
        """Where it is, for people."""
        ...

    def identity(self) -> str | None:
        """What tells this storage from every other, and its copies have too; None if it has none yet.

        Raises:
            StorageUnavailable: it cannot be read.
        """
        ...

    def make_identity(self) -> str:
        """Give the storage an identity if it has none, durably; return the one it has.

        Raises:
            StorageFull, StorageUnavailable: it has none.
        """
        ...

    def put(self, spooled: Spooled) -> str:
        """Make a spooled file durable and return its location.

        When this returns, the bytes are on stable storage under the returned location and the spooled file is
        gone. When it raises, nothing is left at the location; the spooled file may still be there.

        Raises:
            StorageFull: no space or quota is left.
            StorageUnavailable: the storage cannot be written.
        """
        ...

    def place(self, spooled: Spooled) -> str:
        """Move a spooled file to its location and return that, without waiting for the disk.

        For whoever keeps a copy of the bytes until ``settle`` has made the file durable.

        Raises:
            StorageFull, StorageUnavailable: as for ``put``.
        """
        ...

    def new_location(self) -> str:
        """A location for one more file, later in order than all before it."""
        ...

    def place_content(self, location: str, content: bytes) -> None:
        """Write a file to a location that ``new_location`` gave, without waiting for the disk.

        For whoever keeps a copy of the bytes until ``settle`` has made the file durable.

        Raises:
            StorageFull, StorageUnavailable: there is nothing at the location.
        """
        ...

    def settle(self, locations: Iterable[str]) -> list[str]:
        """Make files that were placed durable; return the locations of those that were removed since.

        Raises:
            StorageFull, StorageUnavailable: which of them are durable is not known.
        """
        ...

    def restore(self, location: str, content: bytes) -> bool:
        """Write a file again, durably; return whether it had another content, or was missing.

        Raises:
            StorageFull, StorageUnavailable: whether the file has this content, and durably, is not known.
        """
        ...

    def open(self, location: str) -> BinaryIO:
        """Open a stored file for reading; the caller closes it.

        Raises:
            StorageUnavailable: the file is missing or cannot be read.
        """
        ...

    def remove(self, location: str) -> None:
        """Remove a stored file; removing one that is gone already is not an error.

        Raises:
            StorageUnavailable: the storage cannot be written.
        """
        ...

    def stored_file(self, location: str) -> StoredFile | None:
        """What there is at a location; None if there is no file.

        Raises:
            StorageUnavailable: it cannot be told.
        """
        ...

    def files(self) -> Iterator[StoredFile]:
        """Every stored file, oldest first."""
        ...
