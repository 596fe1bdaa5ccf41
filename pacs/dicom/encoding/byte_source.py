"""Bytes of an encoded data set by position, in bounded memory, plain or inflated.

Knows nothing of Data Elements. A position counts from the first byte of the data set. Callers move
forward: they may read again what they read last, but nothing before it.
"""

from __future__ import annotations

import io
import os
import zlib
from typing import BinaryIO, Protocol

from pacs.errors import InvalidInstance

# One read takes in the whole header of most instances: the header of a CT is 3 to 10 KB.
_WINDOW_BYTES = 16 * 1024
#: What is inflated into memory: more than any header holds.
MAX_INFLATED_BYTES = 64 * 1024 * 1024
#: What is inflated to find the end of a data set, without being kept: a deflate bomb (about 1000 to 1) costs no memory
#: and 0.2 s. Real images reach 2 to 10 to 1, so a large data set that was deflated beyond 100 to 1 is none.
MAX_WALKED_BYTES = 256 * 1024 * 1024
MAX_RATIO = 100
#: How far ``peek`` looks ahead in what is inflated: a value with a length of 16 bits, and a header after it.
_PEEK_BYTES = 64 * 1024 + 32
# For what a file descriptor would be.
_NONE, _NOT_ASKED = -1, -2
_TOO_MUCH = "The deflated data set inflates to more than can be searched"


class ByteSource(Protocol):
    """Where the bytes of a data set come from."""

    def read_at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer only at the end of the data set."""
        ...

    def reaches(self, position: int) -> bool:
        """Whether the data set has at least ``position`` bytes."""
        ...

    def at_hand(self, position: int) -> tuple[bytes, int]:
        """The bytes in memory, and where in them ``position`` is; it may lie beyond their end."""
        ...

    def peek(self, position: int, size: int) -> bytes | None:
        """As ``read_at``, for a few bytes ahead from which the caller comes back; None if they are too far ahead."""
        ...

    @property
    def end(self) -> int:
        """How many bytes the data set has, once it was told that it does not reach a position."""
        ...

    def is_whole(self) -> bool:
        """Whether the bytes have come to an end of their own, where they have one; they are read to it."""
        ...


class StreamBytes:
    """The bytes of a seekable stream from an offset on; the caller closes the stream."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = stream.seek(0, io.SEEK_END) - offset
        self._start = 0
        self._window = b""
        self._descriptor = _NOT_ASKED

    @property
    def end(self) -> int:
        """How many bytes the data set has."""
        return self._size

    def is_whole(self) -> bool:
        """A stream is what it is."""
        return True

    def peek(self, position: int, size: int) -> bytes:
        """As ``read_at``, but a few bytes far ahead do not cost a window full of them."""
        descriptor = self._descriptor
        if descriptor >= 0 and position >= self._start + len(self._window):
            return os.pread(descriptor, size, self._offset + position)
        at = position - self._start
        if at >= 0 and at + size <= len(self._window):
            return self._window[at : at + size]
        if descriptor == _NOT_ASKED:
            # Not before it is needed: a spooled file is only opened for what is not in memory.
            self._descriptor = _descriptor(self._stream)
        if position >= self._size:
            return b""
        self._stream.seek(self._offset + position)
        return self._stream.read(size)

    def read_at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer only at the end of the data set."""
        at = position - self._start
        if at < 0 or at + size > len(self._window):
            self._load(position, size)
            at = 0
        return self._window[at : at + size]

    def reaches(self, position: int) -> bool:
        """Whether the data set has at least ``position`` bytes."""
        return position <= self._size

    def at_hand(self, position: int) -> tuple[bytes, int]:
        """The bytes in memory, and where in them ``position`` is; it may lie beyond their end."""
        if not self._start <= position < self._start + len(self._window):
            self._load(position, 1)
        return self._window, position - self._start

    def _load(self, position: int, size: int) -> None:
        # Never ask for more than there is: a stream allocates what it is asked for before it reads.
        wanted = max(0, min(max(size, _WINDOW_BYTES), self._size - position))
        self._start = position
        if wanted:
            self._stream.seek(self._offset + position)
            self._window = self._stream.read(wanted)
        else:
            self._window = b""


class InflatedBytes:
    """The bytes that a deflated data set inflates to (PS3.5 A.5), no further than asked for.

    Raises:
        InvalidInstance: from every method, if the bytes cannot be inflated or become too many.
    """

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        deflated_bytes = stream.seek(0, io.SEEK_END) - offset
        self._limit = max(MAX_WALKED_BYTES, MAX_RATIO * deflated_bytes)
        stream.seek(offset)
        self._stream = stream
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._inflated_bytes = 0
        self._start = 0
        self._window = b""

    @property
    def end(self) -> int:
        """How many bytes were inflated so far."""
        return self._start + len(self._window)

    def is_whole(self) -> bool:
        """Whether the deflated bytes have come to their own end (RFC 1951 3.2.3), inflating what is left of them."""
        while self._move_on():
            pass
        return self._inflater.eof

    def read_at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer only at the end of the data set."""
        self._advance(position)
        self._fill(position + size)
        at = position - self._start
        assert at >= 0, "callers move forward"
        return self._window[at : at + size]

    def reaches(self, position: int) -> bool:
        """Whether the data set has at least ``position`` bytes; the one before it can still be read."""
        while self.end < position and self._move_on():
            pass
        return self.end >= position

    def at_hand(self, position: int) -> tuple[bytes, int]:
        """The bytes in memory, and where in them ``position`` is; it may lie beyond their end."""
        self.read_at(position, 1)
        return self._window, position - self._start

    def peek(self, position: int, size: int) -> bytes | None:
        """As ``read_at`` without forgetting anything, up to 64 KiB ahead."""
        if position + size > self.end:
            # What was last read begins within the first window full of bytes.
            if position + size > self._start + _WINDOW_BYTES + _PEEK_BYTES:
                return None
            self._fill(position + size)
        at = position - self._start
        return self._window[at : at + size] if at >= 0 else b""

    def _advance(self, position: int) -> None:
        # Inflates up to the position and forgets what lies before it.
        if not self.reaches(position):
            return
        if position - self._start > _WINDOW_BYTES:
            self._window = self._window[position - self._start :]
            self._start = position

    def _fill(self, end: int) -> None:
        # Joined once: to append piece by piece copies what is there each time.
        pieces, size = [self._window], self.end
        while size < end and (piece := self._next()):
            pieces.append(piece)
            size += len(piece)
        self._window = b"".join(pieces)

    def _move_on(self) -> bool:
        # To the next piece, forgetting the one before.
        piece = self._next()
        if piece:
            self._start, self._window = self.end, piece
        return bool(piece)

    def _next(self) -> bytes:
        inflater = self._inflater
        while not inflater.eof:
            encoded = inflater.unconsumed_tail or self._stream.read(_WINDOW_BYTES)
            try:
                inflated = inflater.decompress(encoded, _WINDOW_BYTES)
            except zlib.error as error:
                raise InvalidInstance("The deflated data set is damaged") from error
            if inflated:
                self._inflated_bytes += len(inflated)
                if self._inflated_bytes > self._limit:
                    raise InvalidInstance(_TOO_MUCH)
                return inflated
            if not encoded:
                break
        return b""


def _descriptor(stream: BinaryIO) -> int:
    # io.BytesIO has the method and no descriptor; other streams of ours have neither.
    try:
        return stream.fileno()
    except (AttributeError, OSError):
        return _NONE
