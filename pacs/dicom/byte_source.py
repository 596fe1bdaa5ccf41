"""Bytes of an encoded data set by position, in bounded memory, plain or inflated.

Knows nothing of Data Elements. A position counts from the first byte of the data set. Callers move
forward: they may read again what they read last, but nothing before it.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, Protocol

from pacs.errors import InvalidInstance

# One read takes in the whole header of most instances: the header of a CT is 3 to 10 KB.
_WINDOW_BYTES = 16 * 1024
# More than any header holds, little enough that a deflate bomb (about 1000 to 1) costs 0.2 s and no
# memory.
MAX_INFLATED_BYTES = 64 * 1024 * 1024


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


class StreamBytes:
    """The bytes of a seekable stream from an offset on; the caller closes the stream."""

    def __init__(self, stream: BinaryIO, offset: int) -> None:
        self._stream = stream
        self._offset = offset
        self._size = stream.seek(0, io.SEEK_END) - offset
        self._start = 0
        self._window = b""

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
        stream.seek(offset)
        self._stream = stream
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._start = 0
        self._window = b""

    def read_at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; fewer only at the end of the data set."""
        self._advance(position)
        while len(self._window) < position - self._start + size and self._grow():
            pass
        at = position - self._start
        assert at >= 0, "callers move forward"
        return self._window[at : at + size]

    def reaches(self, position: int) -> bool:
        """Whether the data set has at least ``position`` bytes."""
        self._advance(position)
        return self._start + len(self._window) >= position

    def at_hand(self, position: int) -> tuple[bytes, int]:
        """The bytes in memory, and where in them ``position`` is; it may lie beyond their end."""
        self.read_at(position, 1)
        return self._window, position - self._start

    def _advance(self, position: int) -> None:
        # Inflates up to the position and forgets what lies before it.
        if position > MAX_INFLATED_BYTES:
            raise InvalidInstance("The deflated data set inflates to more than can be searched")
        while self._start + len(self._window) < position:
            self._start += len(self._window)
            self._window = b""
            if not self._grow():
                return
        if position - self._start > _WINDOW_BYTES:
            self._window = self._window[position - self._start :]
            self._start = position

    def _grow(self) -> bool:
        inflater = self._inflater
        while not inflater.eof:
            encoded = inflater.unconsumed_tail or self._stream.read(_WINDOW_BYTES)
            try:
                inflated = inflater.decompress(encoded, _WINDOW_BYTES)
            except zlib.error as error:
                raise InvalidInstance(f"The deflated data set is damaged: {error}") from error
            if inflated:
                self._window += inflated
                return True
            if not encoded:
                return False
        return False
