"""Convert a stored instance when a destination does not accept its transfer syntax.

Between uncompressed syntaxes only headers and byte order change (``pacs.dicom.encoding.reencoding``); a deflated data
set is inflated, and compressed Pixel Data are decompressed with whatever decoders are installed. Nothing is
ever compressed, and nothing stored is changed.

What is inflated or decompressed goes into a scratch file, a block or a frame at a time: memory is that of one
frame, and nothing is sent before all of it is there. Each conversion is bounded in bytes and in time, and ends when
nobody waits for it any more.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import IO, BinaryIO, cast

from pydicom.uid import UID

from pacs.dicom.encoding.element_encoding import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Encoding,
)
from pacs.dicom.encoding.layout import PIXEL_DATA, Layout, read_layout
from pacs.dicom.encoding.part10 import read_file_meta
from pacs.dicom.encoding.pieces import (
    Closable,
    FileBytes,
    Literal,
    Piece,
    open_pieces,
    swapped,
    total_size,
)
from pacs.dicom.encoding.reencoding import reencoded
from pacs.dicom.frames.frame_attributes import NUMBER_OF_FRAMES
from pacs.dicom.frames.pixel_decoding import PHOTOMETRIC, PLANAR, FrameDecoder, image_of
from pacs.dicom.frames.pixel_frames import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSET_TABLE,
    encapsulated_frames,
)
from pacs.dicom.sop_classes import (
    DEFLATED,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from pacs.errors import FramesNotExtractable, PacsError

#: What is proposed beside the stored transfer syntax, in order of preference.
FALLBACK_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_UNCOMPRESSED: dict[str, Encoding] = {
    EXPLICIT_VR_LITTLE_ENDIAN: EXPLICIT_LITTLE,
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
}
_BLOCK_BYTES = 256 * 1024
#: A smaller scratch file is kept in memory.
_SCRATCH_IN_MEMORY_BYTES = 2 * 1024 * 1024


class NotTranscodable(Exception):
    """The instance cannot be converted to the accepted transfer syntax."""


def _is_wanted() -> bool:
    return True


def _is_there(_size: int) -> None:
    """There is room for anything."""


@dataclass(frozen=True, slots=True)
class Conversions:
    """What conversions may take, and where their scratch files are."""

    #: Bytes of one data set after inflating, or of its Pixel Data after decompression.
    limit_bytes: int = 1024 * 1024 * 1024
    #: How long one may take before the instance is sent.
    limit_seconds: float = 120
    #: The directory of scratch files; None is the system's. They have no name, so a crash leaves none.
    scratch_directory: Callable[[], str] | None = None
    #: Told of so many bytes before they are written there; raises StorageFull if they must not be.
    take_room: Callable[[int], None] = _is_there

    def open(
        self,
        stream: BinaryIO,
        offset: int,
        stored_syntax: str,
        accepted_syntax: str,
        is_wanted: Callable[[], bool] = _is_wanted,
    ) -> tuple[BinaryIO, int]:
        """Open the data set at ``offset`` of ``stream`` in another transfer syntax, and say how many bytes it has.

        It takes ``stream`` over: that is closed with what is returned, or when this fails. ``is_wanted`` is asked
        every so often whether to go on.

        Raises:
            NotTranscodable: it cannot be decoded, decompressed or encoded, or not within the limits.
        """
        conversion = _Conversion(self, stream, is_wanted)
        try:
            return conversion.run(offset, stored_syntax, accepted_syntax)
        except NotTranscodable as error:
            conversion.close()
            raise _named(stored_syntax, accepted_syntax, str(error)) from error
        except PacsError as error:
            conversion.close()
            raise _named(stored_syntax, accepted_syntax, error.message) from error
        except OSError as error:
            conversion.close()
            reason = error.strerror or type(error).__name__
            raise _named(stored_syntax, accepted_syntax, reason) from error
        except BaseException:
            conversion.close()
            raise


class _Scratch:
    """What a conversion makes: in memory while it is small, then in a file without a name."""

    def __init__(self, limits: Conversions) -> None:
        self._directory = limits.scratch_directory
        self._take_room = limits.take_room
        self._file: IO[bytes] = BytesIO()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StorageFull, StorageUnavailable: there is no room for them.
        """
        was_in_memory = self._size <= _SCRATCH_IN_MEMORY_BYTES
        self._size += len(data)
        if self._size > _SCRATCH_IN_MEMORY_BYTES:
            self._take_room(self._size if was_in_memory else len(data))
        if was_in_memory and self._size > _SCRATCH_IN_MEMORY_BYTES:
            before = cast("BytesIO", self._file).getbuffer()
            directory = None if self._directory is None else self._directory()
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - see close
            self._file.write(before)
        self._file.write(data)

    def written(self) -> BinaryIO:
        """All of it, to be read; also by who reads the descriptor."""
        self._file.flush()
        return cast("BinaryIO", self._file)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


class _Conversion:
    """One conversion."""

    def __init__(
        self, limits: Conversions, stream: BinaryIO, is_wanted: Callable[[], bool]
    ) -> None:
        self._limits = limits
        self._is_wanted = is_wanted
        self._deadline = time.monotonic() + limits.limit_seconds
        self._source = stream
        self._opened: list[Closable] = [stream]

    def run(self, offset: int, stored_syntax: str, accepted_syntax: str) -> tuple[BinaryIO, int]:
        """Lay out the new data set."""
        target = _UNCOMPRESSED.get(accepted_syntax)
        if target is None:
            raise NotTranscodable("Nothing is compressed here")
        syntax = stored_syntax
        if syntax in DEFLATED:
            self._source, offset, syntax = self._inflated(offset), 0, EXPLICIT_VR_LITTLE_ENDIAN
        replacements: dict[int, tuple[str, list[Piece]] | None] = {}
        if syntax not in _UNCOMPRESSED:
            layout = read_layout(self._source, syntax, offset)
            if layout.entry(PIXEL_DATA) is not None:
                replacements = self._decompressed(layout, syntax, target)
        pieces = reencoded(
            self._source, syntax, offset, target, replacements=replacements, check=self._check
        )
        rest = [one for one in self._opened if one is not self._source]
        return open_pieces(self._source, pieces, rest), total_size(pieces)

    def close(self) -> None:
        """Close all that was opened."""
        for one in self._opened:
            one.close()

    def _check(self) -> None:
        if not self._is_wanted():
            raise NotTranscodable("The peer went away")
        if time.monotonic() > self._deadline:
            raise NotTranscodable(
                f"More than {self._limits.limit_seconds:g} s (conversion_timeout_seconds)"
            )

    def _refuse_over_limit(self, size: int) -> None:
        if size > self._limits.limit_bytes:
            raise NotTranscodable(
                f"More than {self._limits.limit_bytes} bytes (conversion_limit_bytes)"
            )

    def _scratch(self) -> _Scratch:
        scratch = _Scratch(self._limits)
        self._opened.append(scratch)
        return scratch

    def _inflated(self, offset: int) -> BinaryIO:
        """The data set as it was before it was deflated (PS3.5 A.5)."""
        source, scratch, size = self._source, self._scratch(), 0
        source.seek(offset)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        while not inflater.eof:
            deflated = inflater.unconsumed_tail or source.read(_BLOCK_BYTES)
            try:
                block = inflater.decompress(deflated, _BLOCK_BYTES)
            except zlib.error as error:
                raise NotTranscodable("The deflated data set is damaged") from error
            if not deflated and not block:
                raise NotTranscodable("The deflated data set ends early")
            size += len(block)
            self._refuse_over_limit(size)
            self._check()
            scratch.write(block)
        return scratch.written()

    def _decompressed(
        self, layout: Layout, syntax: str, target: Encoding
    ) -> dict[int, tuple[str, list[Piece]] | None]:
        """Pixel Data, and what else decompression changes."""
        image, count = image_of(layout), _number_of_frames(layout)
        frames = encapsulated_frames(layout, syntax, count)
        size = image.frame_bytes * count
        self._refuse_over_limit(size)
        decoder, scratch = FrameDecoder(syntax, image), self._scratch()
        unit = image.bits_allocated // 8 if target.is_big_endian else 1
        for fragments in frames:
            self._check()
            try:
                encoded = b"".join(self._read(layout, begin, end) for begin, end in fragments)
                decoded = decoder.decode(encoded)
            except MemoryError:
                # That one image is too large says nothing of the process, which would end itself otherwise.
                raise NotTranscodable(
                    f"There is no memory for a frame of {image.frame_bytes} bytes"
                ) from None
            if len(decoded) != image.frame_bytes:
                raise FramesNotExtractable(
                    f"A frame decodes to {len(decoded)} bytes, not {image.frame_bytes}"
                )
            scratch.write(decoded if unit == 1 else swapped(decoded, unit))
        pixels: list[Piece] = [FileBytes(scratch.written(), 0, size)]
        if size % 2:
            pixels.append(Literal(b"\0"))
        vr = "OB" if image.bits_allocated == 8 else "OW"
        found: dict[int, tuple[str, list[Piece]] | None] = {
            EXTENDED_OFFSET_TABLE: None,
            EXTENDED_LENGTHS: None,
            PIXEL_DATA: (vr, pixels),
        }
        if decoder.photometric != image.photometric:
            text = decoder.photometric.encode("ascii", "replace")
            found[PHOTOMETRIC] = "CS", [Literal(text + b" " * (len(text) % 2))]
        if image.samples > 1 and image.planar:
            # Decoders put the samples of a pixel together.
            found[PLANAR] = "US", [Literal(b"\0\0")]
        return found

    def _read(self, layout: Layout, begin: int, end: int) -> bytes:
        self._source.seek(layout.offset + begin)
        return self._source.read(end - begin)


def _number_of_frames(layout: Layout) -> int:
    if layout.entry(NUMBER_OF_FRAMES) is None:
        return 1
    text = layout.value(NUMBER_OF_FRAMES).decode("latin_1").strip(" \0")
    if not text:
        return 1
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise FramesNotExtractable("Number of Frames is not a number")
    return int(text)


def _named(stored_syntax: str, accepted_syntax: str, reason: str) -> NotTranscodable:
    stored, accepted = UID(stored_syntax).name, UID(accepted_syntax).name
    return NotTranscodable(f"Cannot convert from {stored} to {accepted}: {reason}")


def transcode(stream: BinaryIO, transfer_syntax: str) -> bytes:
    """The data set of the Part 10 file in ``stream``, in memory, in ``transfer_syntax``.

    Raises:
        NotTranscodable: as for ``Conversions.open``.
    """
    try:
        meta = read_file_meta(stream)
    except PacsError as error:
        accepted = UID(transfer_syntax).name
        reason = f"Cannot convert from its transfer syntax to {accepted}: {error.message}"
        raise NotTranscodable(reason) from error
    converted, _ = Conversions().open(
        stream, meta.data_set_offset, meta.transfer_syntax_uid, transfer_syntax
    )
    with converted:
        return converted.read()
