"""The contract between the archive and whatever keeps the bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from pacs.storage.base import Spooled, StoredFile
from pacs.storage.spool import Spool


class Storage(Protocol):
    """Keeps SOP Instances as DICOM Part 10 files, addressed by an opaque location."""

    @property
    def spool(self) -> Spool:
        """Where data sets are received, on this machine."""
        ...

    @property
    def log_directory(self) -> Path:
        """Where the logs of processes are, on this machine, or where other machines see them too."""
        ...

    @property
    def folders(self) -> Sequence[Path]:
        """The folders of this machine that it keeps something in: nothing of them is to be imported."""
        ...

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
        """Open a stored file for reading; the caller closes it. Reading it raises OSError.

        Raises:
            StorageUnavailable: the file is missing, and then the cause is FileNotFoundError (``faults.is_missing``); or
                it cannot be read.
        """
        ...

    def remove(self, location: str) -> None:
        """Remove a stored file; removing one that is gone already is not an error.

        Raises:
            StorageUnavailable: the storage cannot be written.
        """
        ...

    def has(self, location: str) -> bool:
        """Whether there is a file at a location.

        Raises:
            StorageUnavailable: the location is none of this storage, or it cannot be told.
        """
        ...

    def size(self, location: str) -> int | None:
        """The bytes of the file at a location; None if there is none.

        Raises:
            StorageUnavailable: as for ``has``.
        """
        ...

    def set_aside(self, location: str) -> None:
        """Take a file out of the archive's sight, durably, where a person can look at it.

        Raises:
            StorageUnavailable: the file is gone, or the storage cannot be written.
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
