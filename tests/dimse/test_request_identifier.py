"""Identifiers that are to exhaust whoever decodes them; what they ask for is tested with each service."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from pacs.dimse.request_identifier import identifier_of
from pacs.errors import InvalidIdentifier
from tests.peers import identifier

MIB = 1 << 20
LEVEL = struct.pack("<HHI6s", 0x0008, 0x0052, 6, b"STUDY ")
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)


def _event(data: bytes, transfer_syntax: str = ImplicitVRLittleEndian) -> Any:
    return SimpleNamespace(
        request=SimpleNamespace(Identifier=BytesIO(data), is_oversized=False),
        context=SimpleNamespace(transfer_syntax=transfer_syntax),
    )


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _sequence(length: int, content: bytes) -> bytes:
    return LEVEL + struct.pack("<HHI", 0x0008, 0x1032, length) + content


@pytest.mark.parametrize(
    ("data", "syntax"),
    [
        pytest.param(
            _sequence(2 * MIB, EMPTY_ITEM * (MIB // 4)), ImplicitVRLittleEndian, id="items"
        ),
        pytest.param(
            _sequence(0xFFFFFFFF, EMPTY_ITEM * (MIB // 4)),
            ImplicitVRLittleEndian,
            id="undefined length",
        ),
        pytest.param(
            b"".join(struct.pack("<HHI", 0x0021, number, 0) for number in range(0x1000, 0x10000)),
            ImplicitVRLittleEndian,
            id="elements",
        ),
        pytest.param(
            _deflated(bytes(256 * MIB)), DeflatedExplicitVRLittleEndian, id="deflate bomb"
        ),
    ],
)
def test_identifier_larger_than_any_request_is_refused_before_it_is_decoded(
    data: bytes, syntax: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidIdentifier, match="too large"):
            identifier_of(_event(data, syntax))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 64 * MIB


@pytest.mark.parametrize("data", [b"\xff\xff", _deflated(LEVEL)[:-4]])
def test_identifier_that_cannot_be_inflated_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidIdentifier, match="cannot be decoded"):
        identifier_of(_event(data, DeflatedExplicitVRLittleEndian))


@pytest.mark.parametrize(
    ("count", "syntax"),
    [
        # as many as there are sub-operations
        (65_535, ImplicitVRLittleEndian),
        # as many as an explicit VR UI can be long
        (1_000, DeflatedExplicitVRLittleEndian),
    ],
)
def test_long_list_of_uids_is_decoded(count: int, syntax: UID) -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.1234567890123456789012345.{n}" for n in range(count)]
    asked = identifier("STUDY", StudyInstanceUID=uids)
    data = encode(asked, syntax.is_implicit_VR, True, syntax.is_deflated)
    assert data is not None

    assert len(identifier_of(_event(data, syntax)).StudyInstanceUID) == count
