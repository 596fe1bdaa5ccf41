"""What a storage takes and what it says of what it has."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast


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
