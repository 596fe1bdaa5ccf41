"""Conversion for a destination that does not take the stored transfer syntax (PS3.5 10)."""

from __future__ import annotations

import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from struct import pack
from typing import Any, BinaryIO

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import data_manager
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from pacs.dicom.encoding.part10 import read_file_meta
from pacs.dicom.frames.pixel_decoding import FrameDecoder
from pacs.dimse.transcode import Conversions, NotTranscodable, transcode
from tests.factories import make_instance, part10

NATIVE = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


def _sixteen_bit() -> Dataset:
    instance = make_instance(BitsAllocated=16, BitsStored=16, HighBit=15)
    instance.add_new("PixelData", "OW", bytes(range(128)))
    instance.add_new(0x00091001, "OF", b"\x00\x00\x80\x3f" * 2)
    instance.add_new(0x00090010, "LO", "PRIVATE")
    return instance


@pytest.mark.parametrize("source", NATIVE)
@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_transcode_between_uncompressed_syntaxes_keeps_the_values(source: str, target: str) -> None:
    instance = _sixteen_bit()
    stored = part10(instance, ExplicitVRLittleEndian)
    if source == ExplicitVRBigEndian:
        swapped = _sixteen_bit()
        swapped.PixelData = _swap(swapped.PixelData, 2)
        swapped[0x00091001].value = _swap(swapped[0x00091001].value, 4)
        stored = part10(swapped, source)
    elif source != ExplicitVRLittleEndian:
        stored = part10(instance, source)

    converted = transcode(BytesIO(stored), target)

    read = dcmread(BytesIO(_file(converted, target)))
    assert read.PixelData == instance.PixelData
    assert read.Rows == instance.Rows
    assert str(read.PatientName) == str(instance.PatientName)
    if target == ExplicitVRLittleEndian and source != ImplicitVRLittleEndian:
        assert read[0x00091001].value == instance[0x00091001].value


def _swap(data: bytes, unit: int) -> bytes:
    return b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit))


def _file(data_set: bytes, syntax: str) -> bytes:
    whole = part10(make_instance(), syntax)
    return whole[: 144 + int.from_bytes(whole[140:144], "little")] + data_set


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(part10(make_instance(), JPEGBaseline8Bit), id="no codec made this"),
        pytest.param(b"", id="empty"),
        pytest.param(b"garbage" * 40, id="garbage"),
    ],
)
def test_transcode_of_what_cannot_be_decoded_is_one_error(stored: bytes) -> None:
    with pytest.raises(NotTranscodable, match=r"Cannot convert from .* to Implicit VR"):
        transcode(BytesIO(stored), ImplicitVRLittleEndian)


# Decompression


def _shipped(name: str) -> bytes:
    return (Path(data_manager.DATA_ROOT) / "test_files" / name).read_bytes()


def _changed(before: bytes, after: bytes, target: str) -> set[str]:
    """The keywords of what is not the same in both data sets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = dcmread(BytesIO(before)), dcmread(BytesIO(_file(after, target)))
        return {
            keyword_for_tag(tag) or str(tag)
            for tag in one.keys() | other.keys()
            if tag.element and _bytes(one, tag) != _bytes(other, tag)
        }


def _bytes(instance: Dataset, tag: BaseTag) -> object:
    element = instance.get_item(tag)
    if element is None or not element.value:
        return element is not None
    if instance[tag].VR == "SQ":
        return [str(item) for item in instance[tag].value]
    # The few that pydicom has looked at already are no bytes any more.
    return element.value if isinstance(element, RawDataElement) else str(element)


@pytest.mark.parametrize("target", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("MR_small_RLE.dcm", set()),
        ("SC_rgb_rle_2frame.dcm", set()),
        ("J2K_pixelrep_mismatch.dcm", set()),
        ("examples_jpeg2k.dcm", {"PhotometricInterpretation"}),
        ("examples_ybr_color.dcm", {"PhotometricInterpretation"}),
        ("MR_small_jpeg_ls_lossless.dcm", set()),
        ("JPGExtended.dcm", set()),
    ],
)
def test_decompression_changes_nothing_but_the_pixels_and_what_describes_them(
    name: str, changed: set[str], target: str
) -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    stored = _shipped(name)

    converted = transcode(BytesIO(stored), target)

    assert _changed(stored, converted, target) == changed | {"PixelData"}


def test_twelve_bits_of_jpeg_extended_are_decoded_by_gdcm() -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    stored = _shipped("JPGExtended.dcm")

    converted = transcode(BytesIO(stored), ExplicitVRLittleEndian)

    read = dcmread(BytesIO(_file(converted, ExplicitVRLittleEndian)))
    # What dcmdjpeg and gdcmconv make of it as well (tests/interop/test_decompression.py).
    pixels = np.frombuffer(read.PixelData, "<u2")
    assert (read.Rows, read.Columns, len(pixels)) == (1024, 256, 1024 * 256)
    assert (int(pixels.min()), int(pixels.max())) == (0, 264)


def test_jpeg_2000_whose_signedness_differs_is_decoded_as_pixel_representation_says() -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    stored = _shipped("J2K_pixelrep_mismatch.dcm")

    converted = transcode(BytesIO(stored), ExplicitVRLittleEndian)

    read = dcmread(BytesIO(_file(converted, ExplicitVRLittleEndian)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = dcmread(BytesIO(stored)).pixel_array
    assert read.PixelRepresentation == 1
    assert int(expected.min()) == -2000
    assert (read.pixel_array == expected).all()


# Frames


def _rle(count: int = 4) -> tuple[Dataset, list[bytes]]:
    """An instance in RLE Lossless of frames of which no two are alike, and its frames as they were."""
    instance = make_instance(Rows=8, Columns=8, NumberOfFrames=count)
    frames = [bytes(range(64 * number, 64 * number + 64)) for number in range(count)]
    instance.PixelData = b"".join(frames)
    instance.compress(RLELossless, generate_instance_uid=False)
    instance["PixelData"].VR = "OB"
    return instance, frames


def _written(instance: Dataset) -> bytes:
    file = BytesIO()
    dcmwrite(file, instance, enforce_file_format=True)
    return file.getvalue()


def _encapsulated(instance: Dataset, table: list[int], fragments: list[bytes]) -> bytes:
    items = [pack(f"<{len(table)}L", *table), *fragments]
    instance.PixelData = b"".join(pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in items)
    instance["PixelData"].VR = "OB"
    instance["PixelData"].is_undefined_length = True
    return _written(instance)


def _offsets(fragments: list[bytes]) -> list[int]:
    return [0, *accumulate(len(one) + 8 for one in fragments)][:-1]


def test_a_wrong_offset_table_loses_no_frame() -> None:
    instance, frames = _rle()
    fragments = list(generate_frames(instance.PixelData, number_of_frames=4))
    table = _offsets(fragments)
    table[2] += 1

    converted = transcode(
        BytesIO(_encapsulated(instance, table, fragments)), ImplicitVRLittleEndian
    )

    read = dcmread(BytesIO(_file(converted, ImplicitVRLittleEndian)))
    assert read.NumberOfFrames == 4
    assert read.PixelData == b"".join(frames)


def test_frames_without_their_last_delimiter_are_decompressed() -> None:
    instance, frames = _rle()
    stored = _written(instance).removesuffix(pack("<HHL", 0xFFFE, 0xE0DD, 0))
    assert len(stored) == len(_written(instance)) - 8

    converted = transcode(BytesIO(stored), ImplicitVRLittleEndian)

    read = dcmread(BytesIO(_file(converted, ImplicitVRLittleEndian)))
    assert read.PixelData == b"".join(frames)
    with pytest.raises(NotTranscodable, match="cut off or damaged"):
        transcode(BytesIO(stored[:-1]), ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("stated", "kept", "reason"),
    [
        (4, 3, "no offset table and no one fragment for a frame"),
        (5, 4, "no offset table and no one fragment for a frame"),
        (0, 4, "Number of Frames is not between"),
    ],
)
def test_frames_that_are_not_all_there_fail_with_the_reason(
    stated: int, kept: int, reason: str
) -> None:
    instance, _ = _rle()
    fragments = list(generate_frames(instance.PixelData, number_of_frames=4))
    instance.NumberOfFrames = stated

    with pytest.raises(NotTranscodable, match=reason):
        transcode(BytesIO(_encapsulated(instance, [], fragments[:kept])), ImplicitVRLittleEndian)


def test_frames_beyond_number_of_frames_fail_and_are_not_dropped() -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    original = dcmread(BytesIO(_shipped("examples_ybr_color.dcm")))
    fragments = list(generate_frames(original.PixelData, number_of_frames=30))[:2]
    del original.NumberOfFrames
    stored = BytesIO()
    original.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" + b"".join(
        pack("<HHL", 0xFFFE, 0xE000, len(one)) + one for one in fragments
    )
    original["PixelData"].is_undefined_length = True
    original.save_as(stored)

    with pytest.raises(NotTranscodable, match="more frames than Number of Frames"):
        transcode(BytesIO(stored.getvalue()), ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("keyword", "value"), [("Rows", 9), ("Columns", 4), ("SamplesPerPixel", 3)]
)
def test_rle_frame_of_another_size_fails_with_the_reason(keyword: str, value: int) -> None:
    instance, _ = _rle()
    fragments = list(generate_frames(instance.PixelData, number_of_frames=4))
    setattr(instance, keyword, value)
    if keyword == "SamplesPerPixel":
        instance.PhotometricInterpretation = "RGB"
        instance.PlanarConfiguration = 0

    with pytest.raises(NotTranscodable, match=r"cannot be decoded|decodes to"):
        transcode(
            BytesIO(_encapsulated(instance, _offsets(fragments), fragments)),
            ImplicitVRLittleEndian,
        )


@pytest.mark.parametrize(
    ("excess", "is_decoded"), [(0, True), (2, True), (3, False), (7, False), (8, False)]
)
def test_rle_segment_with_more_than_padding_fails(excess: int, is_decoded: bool) -> None:
    instance, frames = _rle(1)
    (encoded,) = generate_frames(instance.PixelData, number_of_frames=1)
    literal = bytes([excess - 1]) + bytes([7] * excess) if excess else b""
    # 0x80 does nothing (PS3.5 G.3.1).
    fragment = (encoded + literal).ljust(len(encoded) + 10, b"\x80")
    stored = BytesIO(_encapsulated(instance, [], [fragment]))

    if is_decoded:
        converted = transcode(stored, ImplicitVRLittleEndian)
        read = dcmread(BytesIO(_file(converted, ImplicitVRLittleEndian)))
        assert read.PixelData == frames[0]
    else:
        reason = f"RLE segment of {64 + excess} bytes, not 64"
        with pytest.raises(NotTranscodable, match=reason):
            transcode(stored, ImplicitVRLittleEndian)


@pytest.mark.parametrize(
    ("name", "size"), [("JPEG2000.dcm", "1024 x 256 x 1"), ("JPGExtended.dcm", "1024 x 256 x 1")]
)
def test_codestream_of_another_size_fails_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, name: str, size: str
) -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        instance = dcmread(BytesIO(_shipped(name)))
        # The same number of bytes.
        instance.Rows, instance.Columns = instance.Columns, instance.Rows
        stored = BytesIO()
        instance.save_as(stored)
    monkeypatch.setattr(FrameDecoder, "_by_plugin", None)

    with pytest.raises(NotTranscodable, match=f"encoded as {size}, not 256 x 1024 x 1"):
        transcode(BytesIO(stored.getvalue()), ImplicitVRLittleEndian)


def test_compressed_syntax_without_pixel_data_is_encoded_as_it_is() -> None:
    instance = make_instance()
    del instance.PixelData
    stored = part10(instance, RLELossless)

    converted = transcode(BytesIO(stored), ImplicitVRLittleEndian)

    assert _changed(stored, converted, ImplicitVRLittleEndian) == set()


def test_what_no_decoder_is_installed_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    instance, _ = _rle()
    monkeypatch.setitem(sys.modules, "numpy", None)

    with pytest.raises(NotTranscodable, match="No decoder for it is installed"):
        transcode(BytesIO(_written(instance)), ImplicitVRLittleEndian)


def test_reason_of_a_decoder_is_one_line() -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    instance, _ = _rle()
    fragments = [b"\x00" * 64 for _ in range(4)]

    with pytest.raises(NotTranscodable) as raised:
        transcode(
            BytesIO(_encapsulated(instance, _offsets(fragments), fragments)),
            ImplicitVRLittleEndian,
        )

    assert "\n" not in str(raised.value)
    assert "A frame cannot be decoded: " in str(raised.value)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "JPGExtended.dcm"])
def test_codestream_that_is_cut_off_is_not_told_in_words_of_python(name: str) -> None:
    pytest.importorskip("gdcm", reason="the decoders of mini-pacs[codecs]")
    instance = dcmread(BytesIO(_shipped(name)))
    (frame,) = generate_frames(instance.PixelData, number_of_frames=1)
    instance.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    instance["PixelData"].is_undefined_length = True
    stored = BytesIO()
    instance.save_as(stored)

    with pytest.raises(NotTranscodable) as raised:
        transcode(BytesIO(stored.getvalue()), ImplicitVRLittleEndian)

    assert str(raised.value).endswith(
        " to Implicit VR Little Endian: A frame cannot be decoded: the decoder makes nothing of it"
    )


# Bounds


def _open(
    stored: bytes, conversions: Conversions, is_wanted: Callable[[], bool] = lambda: True
) -> tuple[BinaryIO, BinaryIO, int]:
    stream = BytesIO(stored)
    meta = read_file_meta(stream)
    opened, size = conversions.open(
        stream,
        meta.data_set_offset,
        meta.transfer_syntax_uid,
        ImplicitVRLittleEndian,
        is_wanted,
    )
    return stream, opened, size


def _deflated(zeros: int) -> bytes:
    """A file whose deflated Pixel Data are ``zeros`` bytes of nothing, without having them in memory."""
    instance = make_instance()
    del instance.PixelData
    head = part10(instance, ExplicitVRLittleEndian)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    at = 144 + int.from_bytes(head[140:144], "little")
    data = deflater.compress(head[at:] + b"\xe0\x7f\x10\x00OB\0\0" + pack("<L", zeros))
    block = bytes(1 << 20)
    for _ in range(zeros >> 20):
        data += deflater.compress(block)
    data += deflater.flush()
    meta = part10(instance, DeflatedExplicitVRLittleEndian)
    return meta[: 144 + int.from_bytes(meta[140:144], "little")] + data


def test_deflate_bomb_is_inflated_in_little_memory(tmp_path: Path) -> None:
    stored = _deflated(64 << 20)
    assert len(stored) < 80_000
    tracemalloc.start()
    try:
        _, opened, size = _open(stored, Conversions(scratch_directory=lambda: str(tmp_path)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    opened.close()

    assert size > 64 << 20
    assert peak < 8 << 20
    assert list(tmp_path.iterdir()) == []


def test_deflate_bomb_over_the_limit_is_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(
        NotTranscodable, match=r"More than 1048576 bytes \(conversion_limit_bytes\)"
    ):
        _open(_deflated(8 << 20), Conversions(limit_bytes=1 << 20))


def test_decompression_over_the_limit_is_refused_before_a_frame_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance, _ = _rle()
    monkeypatch.setattr(FrameDecoder, "decode", None)

    with pytest.raises(NotTranscodable, match="conversion_limit_bytes"):
        _open(_written(instance), Conversions(limit_bytes=255))


def test_conversion_that_takes_too_long_is_refused_with_the_name_of_the_setting() -> None:
    with pytest.raises(NotTranscodable, match=r"More than 0 s \(conversion_timeout_seconds\)"):
        _open(_deflated(8 << 20), Conversions(limit_seconds=0))


def test_frame_that_there_is_no_memory_for_fails_its_conversion_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decode(_decoder: FrameDecoder, _encoded: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setattr(FrameDecoder, "decode", decode)

    with pytest.raises(NotTranscodable, match="There is no memory for a frame of"):
        _open(_written(_rle()[0]), Conversions())


@pytest.mark.parametrize(
    "stored", [pytest.param(_rle, id="frames"), pytest.param(_deflated, id="deflated")]
)
def test_conversion_that_nobody_waits_for_any_more_ends(stored: Callable[..., Any]) -> None:
    data = _deflated(8 << 20) if stored is _deflated else _written(_rle()[0])
    asked: list[int] = []

    def is_wanted() -> bool:
        asked.append(1)
        return len(asked) < 3

    with pytest.raises(NotTranscodable, match="The peer went away"):
        _open(data, Conversions(), is_wanted)

    assert len(asked) == 3


def test_conversion_closes_what_it_opened() -> None:
    instance, _ = _rle()
    stream, opened, _ = _open(_written(instance), Conversions())
    assert not stream.closed
    opened.close()
    assert stream.closed

    broken = BytesIO(part10(make_instance(), JPEGBaseline8Bit))
    with pytest.raises(NotTranscodable):
        Conversions().open(broken, 0, RLELossless, ImplicitVRLittleEndian)
    assert broken.closed


def test_data_set_that_zlib_has_wrapped_is_not_told_of_in_words_of_zlib() -> None:
    wrapped = zlib.compress(b"\x10\x00\x20\x00LO\x02\x00ID" * 100)

    with pytest.raises(NotTranscodable) as error:
        Conversions().open(
            BytesIO(wrapped), 0, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
        )
    assert str(error.value).endswith(": The deflated data set is damaged")


def test_deflated_data_set_that_ends_early_fails_before_anything_is_sent() -> None:
    with pytest.raises(NotTranscodable, match="The deflated data set ends early"):
        _open(_deflated(1 << 20)[:-40], Conversions())
