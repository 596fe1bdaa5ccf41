"""A file made of pieces: new bytes, and ranges of another file that are read only while it is sent.

So an instance derived from a stored one needs no second copy of its bytes, in memory or on disk.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, BinaryIO, Protocol, cast

#: Bits are shifted as one large number, which has to stay small to be quick.
_SHIFTED_BYTES = 8 * 1024


class Piece(Protocol):
    """Bytes of the new file that lie together."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position`` within this piece; empty if the source has too few."""
        ...


@dataclass(frozen=True, slots=True)
class Literal:
    """New bytes."""

    content: bytes

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.content)

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:  # noqa: ARG002 - see Piece
        """Up to ``size`` bytes from ``position``."""
        return self.content[position : position + size]


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of the source as they are."""

    begin: int
    size: int

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``."""
        source.seek(self.begin + position)
        return source.read(min(size, self.size - position))


def swapped(data: bytes, unit: int) -> bytes:
    """Numbers of ``unit`` bytes in the other byte order; what is left at the end, too short for one, stays."""
    whole = len(data) - len(data) % unit
    turned = bytearray(data)
    for position in range(unit):
        turned[position:whole:unit] = data[unit - 1 - position : whole : unit]
    return bytes(turned)


@dataclass(frozen=True, slots=True)
class Swapped:
    """Bytes of the source in the other byte order: numbers of ``unit`` bytes."""

    begin: int
    size: int
    unit: int

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``."""
        first = position - position % self.unit
        end = min(position + size, self.size)
        end += -end % self.unit
        source.seek(self.begin + first)
        data = swapped(source.read(min(end, self.size) - first), self.unit)
        return data[position - first : position - first + size]


@dataclass(frozen=True, slots=True)
class FileBytes:
    """Bytes of another file than the source, such as one with pixels that were decoded."""

    stream: BinaryIO
    begin: int
    size: int

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:  # noqa: ARG002 - see Piece
        """Up to ``size`` bytes from ``position``."""
        self.stream.seek(self.begin + position)
        return self.stream.read(min(size, self.size - position))


@dataclass(frozen=True, slots=True)
class PackedBits:
    """Frames whose ends are not those of a byte, packed anew, lowest bit first (PS3.5 8.1.1)."""

    begin: int
    bits_per_frame: int
    #: Counted from zero.
    frames: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of all frames together."""
        return -(-len(self.frames) * self.bits_per_frame // 8)

    def read(self, source: BinaryIO, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``."""
        total = len(self.frames) * self.bits_per_frame
        bit, packed, count = position * 8, 0, 0
        end = min(total, bit + min(size, _SHIFTED_BYTES) * 8)
        while bit < end:
            number, within = divmod(bit, self.bits_per_frame)
            taken = min(self.bits_per_frame - within, end - bit)
            first = self.frames[number] * self.bits_per_frame + within
            source.seek(self.begin + first // 8)
            wanted = (first % 8 + taken + 7) // 8
            data = source.read(wanted)
            if len(data) < wanted:
                return b""
            value = int.from_bytes(data, "little") >> first % 8 & (1 << taken) - 1
            packed |= value << count
            bit, count = bit + taken, count + taken
        return packed.to_bytes((count + 7) // 8, "little")


class Closable(Protocol):
    """What is closed with a file of pieces, beside the source."""

    def close(self) -> None:
        """End it; a second time does nothing."""
        ...


def total_size(pieces: Sequence[Piece]) -> int:
    """The bytes of a file made of these pieces."""
    return sum(piece.size for piece in pieces)


class _PiecewiseFile(io.RawIOBase):
    """The file, read-only and seekable; closing it closes the source and what else was opened for it."""

    def __init__(
        self, source: BinaryIO, pieces: Sequence[Piece], others: Sequence[Closable]
    ) -> None:
        self._source = source
        self._others = others
        self._pieces = [piece for piece in pieces if piece.size]
        self._ends = list(accumulate(piece.size for piece in self._pieces))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._ends[-1] if self._ends else 0
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}
        self._position = base[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view):
            data = self._some(len(view) - filled)
            if not data:
                break
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._position += len(data)
        return filled

    def _some(self, size: int) -> bytes:
        number = bisect_right(self._ends, self._position)
        if number == len(self._pieces):
            return b""
        piece = self._pieces[number]
        within = self._position - self._ends[number] + piece.size
        return piece.read(self._source, within, min(size, piece.size - within))

    def close(self) -> None:
        self._source.close()
        for other in self._others:
            other.close()
        super().close()


def open_pieces(
    source: BinaryIO, pieces: Sequence[Piece], others: Sequence[Closable] = ()
) -> BinaryIO:
    """Open a file made of pieces for reading; it takes ``source`` and ``others`` over and closes them."""
    return cast("BinaryIO", _PiecewiseFile(source, pieces, others))
