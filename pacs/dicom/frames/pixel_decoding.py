"""Encapsulated frames decoded, one at a time, by whichever installed decoder can (PS3.5 8.2, A.4).

pydicom's decoders and its plug-ins are optional (``mini-pacs[codecs]``) and tried in turn; GDCM is asked directly for
what pydicom's plug-in for it refuses. A frame that does not come out as the Image Pixel module says is an error.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydicom.encaps import encapsulate
from pydicom.uid import UID

from pacs.dicom.encoding.layout import Layout
from pacs.dicom.frames.pixel_frames import unsigned_short
from pacs.errors import FramesNotExtractable

ROWS, COLUMNS, SAMPLES, PHOTOMETRIC, PLANAR = (
    0x00280010,
    0x00280011,
    0x00280002,
    0x00280004,
    0x00280006,
)
_BITS_ALLOCATED, _BITS_STORED, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280103
_JPEG_BASELINE, _JPEG_EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
#: Their YBR samples are not exact anyway, and few that take nothing compressed know YBR: they become RGB, as by DCMTK.
_LOSSY_JPEG = frozenset({_JPEG_BASELINE, _JPEG_EXTENDED})
_RLE = "1.2.840.10008.1.2.5"
#: What the samples are when they are decoded, but not converted.
_DECODED = {
    "YBR_FULL_422": "YBR_FULL",
    "YBR_PARTIAL_422": "YBR_FULL",
    "YBR_ICT": "RGB",
    "YBR_RCT": "RGB",
}
#: What pydicom says of a segment that decodes to more than the image has.
_RLE_EXCESS = re.compile(r"RLE segment .* (\d+) vs\. (\d+) bytes")
#: Bytes that may pad what a segment decodes to; it has an even length (PS3.5 G.3.1).
_RLE_PADDING = 2
#: Filters of warnings belong to the process: two threads must not set them at once.
_DECODING = threading.Lock()

# A traceback of each plug-in that could not; the reason is in what is raised here.
logging.getLogger("pydicom.pixels").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Image:
    """What the Image Pixel module says of each frame (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    photometric: str
    planar: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of a decoded frame."""
        return self.rows * self.columns * self.samples * (self.bits_allocated // 8)


def image_of(layout: Layout) -> Image:
    """Read the Image Pixel module.

    Raises:
        FramesNotExtractable: it does not describe frames that a decoder could make.
    """
    rows, columns, samples, allocated, stored, representation, planar = (
        unsigned_short(layout, tag)
        for tag in (ROWS, COLUMNS, SAMPLES, _BITS_ALLOCATED, _BITS_STORED, _REPRESENTATION, PLANAR)
    )
    photometric = layout.value(PHOTOMETRIC).decode("latin_1").strip(" \0")
    if not rows or not columns or samples not in (1, 3, 4) or allocated not in (8, 16, 32):
        raise FramesNotExtractable(
            f"{columns} x {rows} x {samples} samples of {allocated} bits cannot be decoded"
        )
    return Image(
        rows, columns, samples, allocated, stored, representation == 1, photometric, planar
    )


class FrameDecoder:
    """Decodes the frames of one image."""

    def __init__(self, transfer_syntax_uid: str, image: Image) -> None:
        """Find the decoders that are installed.

        Raises:
            FramesNotExtractable: there is none.
        """
        self._uid = UID(transfer_syntax_uid)
        self._image = image
        #: Photometric Interpretation of the decoded frames, once there are some.
        self.photometric = _DECODED.get(image.photometric, image.photometric)
        try:
            self._decoder = import_module("pydicom.pixels").get_decoder(self._uid)
            self._numpy: Any = import_module("numpy")
        except (ImportError, NotImplementedError):
            raise FramesNotExtractable("No decoder for it is installed") from None
        self._plugins: list[str] = list(self._decoder.available_plugins)
        if not self._plugins:
            raise FramesNotExtractable("No decoder for it is installed")

    def decode(self, encoded: bytes) -> bytes:
        """One frame, little endian, by pixel.

        Raises:
            FramesNotExtractable: no decoder can, or what comes out is not the image that was described.
        """
        image = self._image
        self._check(encoded)
        reasons: list[str] = []
        for plugin in list(self._plugins):
            try:
                samples, photometric = self._by_plugin(plugin, encoded)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - decoders raise anything
                reasons.append(_one_line(error))
                continue
            # The one that can decode a frame is asked first for the next one.
            self._plugins.remove(plugin)
            self._plugins.insert(0, plugin)
            break
        else:
            samples, photometric = self._by_gdcm(encoded, reasons)
        shape = (image.rows, image.columns, image.samples)
        if tuple(samples.shape) != (shape if image.samples > 1 else shape[:2]):
            raise FramesNotExtractable(
                f"A frame decodes to {_times(samples.shape)}, not {_times(shape)}"
            )
        self.photometric = _DECODED.get(photometric, photometric)
        kind = "i" if image.is_signed else "u"
        decoded: bytes = samples.astype(f"<{kind}{image.bits_allocated // 8}", copy=False).tobytes()
        return decoded

    def _by_plugin(self, plugin: str, encoded: bytes) -> tuple[Any, str]:
        image = self._image
        options: dict[str, Any] = {
            "rows": image.rows,
            "columns": image.columns,
            "samples_per_pixel": image.samples,
            "bits_allocated": image.bits_allocated,
            "bits_stored": image.bits_stored,
            "pixel_representation": int(image.is_signed),
            "photometric_interpretation": image.photometric,
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
            "as_rgb": self._uid in _LOSSY_JPEG,
        }
        if image.samples > 1:
            options["planar_configuration"] = image.planar
        with _DECODING, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            samples, properties = self._decoder.as_array(
                encapsulate([encoded]), index=0, decoding_plugin=plugin, **options
            )
        for warning in said:
            self._refuse_excess(str(warning.message))
        return samples, str(properties["photometric_interpretation"])

    def _refuse_excess(self, warning: str) -> None:
        # A byte or two pad a segment; what is more was a row, or the end of another image.
        if found := _RLE_EXCESS.search(warning):
            actual, expected = int(found[1]), int(found[2])
            if actual - expected > _RLE_PADDING:
                raise FramesNotExtractable(f"RLE segment of {actual} bytes, not {expected}")

    def _by_gdcm(self, encoded: bytes, reasons: list[str]) -> tuple[Any, str]:
        """Twelve bits of JPEG Extended, which pydicom does not leave to GDCM, though it can do them."""
        image = self._image
        if self._uid == _JPEG_EXTENDED and image.samples == 1 and image.bits_allocated == 16:
            try:
                decoded = _gdcm_frame(self._uid, image, encoded)
            except Exception as error:  # noqa: BLE001 - decoders raise anything
                reasons.append(_one_line(error))
            else:
                samples = self._numpy.frombuffer(decoded, "<i2" if image.is_signed else "<u2")
                return samples.reshape(image.rows, image.columns), image.photometric
        raise FramesNotExtractable(f"A frame cannot be decoded: {reasons[-1]}")

    def _check(self, encoded: bytes) -> None:
        """Compare what the codestream says of its size, before anything is allocated for that."""
        image = self._image
        if self._uid == _RLE:
            # Runs of two bytes become 128: what is far larger than the image cannot be meant well.
            if len(encoded) > 2 * image.frame_bytes + 4096:
                raise FramesNotExtractable("A frame is encoded in more bytes than it has")
            return
        described = codestream_size(encoded)
        expected = (image.rows, image.columns, image.samples)
        if described is not None and described != expected:
            raise FramesNotExtractable(
                f"A frame is encoded as {_times(described)}, not {_times(expected)}"
            )


def codestream_size(encoded: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components by a JPEG, JPEG-LS or JPEG 2000 codestream itself; None if that is not clear."""
    try:
        if encoded.startswith(b"\xff\x4f\xff\x51"):  # SOC, SIZ (ISO/IEC 15444-1 A.5.1)
            width, height, left, top = struct.unpack_from(">4L", encoded, 8)
            (components,) = struct.unpack_from(">H", encoded, 40)
            return height - top, width - left, components
        if encoded.startswith(b"\xff\xd8"):
            return _jpeg_size(encoded)
    except struct.error:
        pass
    return None


def _jpeg_size(encoded: bytes) -> tuple[int, int, int] | None:
    # ISO/IEC 10918-1 B.2.2; JPEG-LS has SOF55 (ISO/IEC 14495-1 C.2.2).
    position = 2
    while True:
        prefix, marker = struct.unpack_from(">BB", encoded, position)
        if prefix != 0xFF or marker == 0xDA:
            return None
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            rows, columns, components = struct.unpack_from(">HHB", encoded, position + 5)
            return (rows, columns, components) if rows else None
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        position += 2 + length


def _gdcm_frame(uid: UID, image: Image, encoded: bytes) -> bytes:
    gdcm: Any = import_module("gdcm")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    bitmap = gdcm.Image()
    bitmap.SetNumberOfDimensions(2)
    bitmap.SetDimensions((image.columns, image.rows, 1))
    bitmap.SetDataElement(element)
    photometric = gdcm.PhotometricInterpretation.GetPIType(image.photometric)
    bitmap.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    syntax = gdcm.TransferSyntax.GetTSType(str.__str__(uid))
    bitmap.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    stored = image.bits_stored
    pixel_format = gdcm.PixelFormat(
        image.samples, image.bits_allocated, stored, stored - 1, int(image.is_signed)
    )
    bitmap.SetPixelFormat(pixel_format)
    # A char* comes back as str.
    decoded: bytes = bitmap.GetBuffer().encode("utf-8", "surrogateescape")
    return decoded


def _times(numbers: Any) -> str:
    return " x ".join(str(number) for number in numbers)


def _one_line(error: Exception) -> str:
    # pydicom says first that all of the plug-ins failed, then why, on a line for each.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    # GDCM gives None for a codestream that is cut off or damaged, and what is then said is only Python's.
    if "'NoneType' object" in reason:
        return "the decoder makes nothing of it"
    return reason.split(": ", 1)[-1] if len(lines) > 1 else reason
