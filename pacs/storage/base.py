"""The contract between the archive and whatever keeps the bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class Spooled:
    """A received DICOM Part 10 file in the spool: complete, closed, not yet durable."""

    path: Path
    #: Bytes before the data set: preamble, prefix and File Meta Information.
    data_set_offset: int
    #: Bytes of the data set, exactly as received.
    data_set_size: int
    #: SHA-256 of the data set, lower-case hexadecimal.
    digest: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file found in the storage."""

    location: str
    size_bytes: int
    #: When it was put, aware UTC.
    stored_at: datetime


class Storage(Protocol):
    """Keeps SOP Instances as DICOM Part 10 files, addressed by an opaque location."""

    def put(self, spooled: Spooled) -> str:
        """Make a spooled file durable and return its location.

        When this returns, the bytes are on stable storage under the returned location and the spooled file is
        gone. When it raises, nothing is left at the location; the spooled file may still be there.

        Raises:
            StorageFull: no space or quota is left.
            StorageUnavailable: the storage cannot be written.
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

    def files(self) -> Iterator[StoredFile]:
        """Every stored file, oldest first."""
        ...
