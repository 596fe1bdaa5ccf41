"""Conversion for a destination that does not take the stored transfer syntax (PS3.5 10)."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from pacs.dimse.transcode import NotTranscodable, transcode
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
