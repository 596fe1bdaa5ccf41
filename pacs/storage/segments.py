"""A log on the disk: entries that are durable after one write and one flush, in files that are used again.

Theory of operation. To flush bytes written over others of a file takes a third of flushing a new file, because nothing
but the bytes has to reach the disk. So a segment is a file written full of zeros beforehand, and is used again when
nobody needs its entries any more. An entry has a sequence number and a checksum, which is also taken over the number
that the segment has in its present use: what is left behind the last entry from an earlier use does not
pass for an entry. Entries of one call are written together; what was torn by a crash was not flushed, so nobody
was told that it is there. A segment in which something could not be written is not written to again, since
the kernel reports a failed flush only once.

A file: a header of 64 bytes (magic, number of the use, first sequence number, checksum), then entries, each a header of
24 bytes (size, checksum, number of the use, sequence number) and its bytes, filled up to a multiple of eight.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacs.storage.durability import sync_directory
from pacs.storage.faults import storage_faults

LOGGER = logging.getLogger(__name__)

#: The size of a segment file.
SEGMENT_BYTES = 16 * 1024 * 1024
#: Segments that are kept for another use; the disk space of more is given back.
_MOST_FREE = 2
_MAGIC = b"PACSLOG1"
_FILE_HEADER = struct.Struct("<8sQQI")
_FILE_HEADER_BYTES = 64
_ENTRY_HEADER = struct.Struct("<IIQQ")
_CHECKED = struct.Struct("<QQ")
_ALIGNMENT = 8
_ZEROS = bytes(1024 * 1024)
_FILE_MODE = 0o640  # patient data: as the directories
#: Of a vector of buffers in one system call (IOV_MAX).
_MOST_BUFFERS = 1000
_PATTERN = "*.segment"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry that was read."""

    sequence: int
    payload: bytes


@dataclass(slots=True)
class _Segment:
    path: Path
    descriptor: int
    number: int = 0
    #: Where the next entry begins.
    position: int = _FILE_HEADER_BYTES
    last_sequence: int = 0
    header: bytes = b""


class SegmentWriter:
    """Appends to the segments of one directory; one thread at a time appends, any may release."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Write into ``directory``, which is there and empty."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._current: _Segment | None = None
        self._full: list[_Segment] = []
        self._free: list[_Segment] = []
        self._numbers = 0
        self._files = 0

    @property
    def longest_payload(self) -> int:
        """The most bytes that one entry may have."""
        return self._segment_bytes - _FILE_HEADER_BYTES - _ENTRY_HEADER.size - _ALIGNMENT

    def append(self, first_sequence: int, payloads: Sequence[bytes]) -> None:
        """Write entries with consecutive sequence numbers; return when they are on the disk.

        If it fails, the next call uses the same numbers, and ``read_segments`` passes over what the failed one left.

        Raises:
            StorageFull, StorageUnavailable: none of the entries counts.
        """
        try:
            with storage_faults("write to the log"):
                self._append(first_sequence, payloads)
        except BaseException:
            self._set_current_aside(first_sequence - 1)
            raise

    def release(self, sequence: int) -> None:
        """Nobody needs entries up to this one any more: their segments may be used again."""
        while self._full and self._full[0].last_sequence <= sequence:
            segment = self._full.pop(0)
            if len(self._free) < _MOST_FREE:
                self._free.append(segment)
            else:
                os.close(segment.descriptor)
                with suppress(OSError):
                    segment.path.unlink()

    def close(self) -> None:
        """Close the files; what is in them stays."""
        for segment in (*self._full, *self._free, *filter(None, [self._current])):
            with suppress(OSError):
                os.close(segment.descriptor)
        self._current, self._full, self._free = None, [], []

    def _append(self, first_sequence: int, payloads: Sequence[bytes]) -> None:
        sequence, buffers = first_sequence, list[bytes]()
        segment = self._current or self._next_segment(sequence)
        end = segment.position
        for payload in payloads:
            padding = -len(payload) % _ALIGNMENT
            size = _ENTRY_HEADER.size + len(payload) + padding
            if end + size > self._segment_bytes:
                self._write(segment, buffers, end, sequence - 1)
                self._set_current_aside(sequence - 1)
                segment, buffers = self._next_segment(sequence), []
                end = segment.position
            checksum = _checksum(segment.number, sequence, payload)
            buffers += [
                _ENTRY_HEADER.pack(len(payload), checksum, segment.number, sequence),
                payload,
                bytes(padding),
            ]
            end += size
            sequence += 1
        self._write(segment, buffers, end, sequence - 1)

    def _write(self, segment: _Segment, buffers: list[bytes], end: int, last: int) -> None:
        if segment.header:
            _write_all(segment.descriptor, [segment.header], 0)
        position = segment.position
        for first in range(0, len(buffers), _MOST_BUFFERS):
            some = buffers[first : first + _MOST_BUFFERS]
            _write_all(segment.descriptor, some, position)
            position += sum(map(len, some))
        os.fdatasync(segment.descriptor)
        segment.header, segment.position, segment.last_sequence = b"", end, last

    def _set_current_aside(self, last_sequence: int) -> None:
        if self._current is not None:
            self._current.last_sequence = last_sequence
            self._full.append(self._current)
            self._current = None

    def _next_segment(self, first_sequence: int) -> _Segment:
        segment = self._free.pop() if self._free else self._new_segment()
        self._numbers += 1
        segment.number, segment.position = self._numbers, _FILE_HEADER_BYTES
        fields = _MAGIC, segment.number, first_sequence
        segment.header = _FILE_HEADER.pack(*fields, _header_checksum(*fields))
        self._current = segment
        return segment

    def _new_segment(self) -> _Segment:
        path = self._directory / f"{self._files:08x}{_PATTERN[1:]}"
        self._files += 1
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, _FILE_MODE)
        try:
            for position in range(0, self._segment_bytes, len(_ZEROS)):
                left = self._segment_bytes - position
                _write_all(descriptor, [_ZEROS[:left]], position)
            os.fsync(descriptor)
            sync_directory(self._directory)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        return _Segment(path, descriptor)


def read_segments(directory: Path) -> Iterator[LogEntry]:
    """The entries in the segments of a directory that nobody writes to, in the order of their sequence numbers.

    Those of segments that were released are among them, as long as these are not in use again. That entries are
    missing in between, which only damage of the disk can cause, is logged.

    Raises:
        StorageUnavailable: a segment cannot be read.
    """
    with storage_faults("read the log"):
        headers = sorted(filter(None, map(_read_header, directory.glob(_PATTERN))))
        for index, (number, first, path) in enumerate(headers):
            following = headers[index + 1] if index + 1 < len(headers) else None
            # What a failed write left has numbers that were used again.
            end = following[1] if following else None
            last = first - 1
            for entry in _entries(path, number, first):
                if end is not None and entry.sequence >= end:
                    break
                last = entry.sequence
                yield entry
            if following and following[0] == number + 1 and end is not None and last + 1 < end:
                LOGGER.error("%s is damaged: %d entries of the log are lost", path, end - 1 - last)


def _read_header(path: Path) -> tuple[int, int, Path] | None:
    """Number, first sequence number and path of a segment that was used."""
    with path.open("rb") as file:
        data = file.read(_FILE_HEADER.size)
    if len(data) < _FILE_HEADER.size:
        return None
    magic, number, first, checksum = _FILE_HEADER.unpack(data)
    if magic != _MAGIC or checksum != _header_checksum(magic, number, first):
        return None
    return number, first, path


def _entries(path: Path, number: int, sequence: int) -> Iterator[LogEntry]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = _FILE_HEADER_BYTES
        while True:
            file.seek(position)
            header = file.read(_ENTRY_HEADER.size)
            if len(header) < _ENTRY_HEADER.size:
                return
            length, checksum, use, found = _ENTRY_HEADER.unpack(header)
            position += _ENTRY_HEADER.size + length + (-length % _ALIGNMENT)
            if (use, found) != (number, sequence) or position > size:
                return
            payload = file.read(length)
            if _checksum(number, sequence, payload) != checksum:
                return
            yield LogEntry(sequence, payload)
            sequence += 1


def _checksum(number: int, sequence: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(number, sequence)))


def _header_checksum(magic: bytes, number: int, first_sequence: int) -> int:
    return zlib.crc32(magic + _CHECKED.pack(number, first_sequence))


def _write_all(descriptor: int, buffers: list[bytes], position: int) -> None:
    written = os.pwritev(descriptor, buffers, position)
    if written == sum(map(len, buffers)):
        return
    # A full disk or a signal may cut a write short.
    rest = memoryview(b"".join(buffers))
    while written < len(rest):
        written += os.pwrite(descriptor, rest[written:], position + written)
