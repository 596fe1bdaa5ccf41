from __future__ import annotations

import io
import os
import tracemalloc
import zlib
from pathlib import Path

import pytest

from pacs.dicom.encoding.byte_source import MAX_WALKED_BYTES, ByteSource, InflatedBytes, StreamBytes
from pacs.errors import InvalidInstance

CONTENT = os.urandom(100_000)
OFFSET = 7


def deflate(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(content) + deflater.flush()


def source(kind: str) -> ByteSource:
    if kind == "plain":
        return StreamBytes(io.BytesIO(b"x" * OFFSET + CONTENT), OFFSET)
    return InflatedBytes(io.BytesIO(b"x" * OFFSET + deflate(CONTENT)), OFFSET)


@pytest.mark.parametrize("kind", ["plain", "deflated"])
@pytest.mark.parametrize("step", [1_000, 4_096, 17_000, 60_000])
def test_read_at_moving_forward_returns_the_bytes_of_the_data_set(kind: str, step: int) -> None:
    bytes_of = source(kind)

    for position in range(0, len(CONTENT) + step, step):
        for size in (8, 12, step):
            assert bytes_of.read_at(position, size) == CONTENT[position : position + size]
        assert bytes_of.reaches(position) == (position <= len(CONTENT))


@pytest.mark.parametrize("kind", ["plain", "deflated"])
def test_read_at_far_beyond_the_end_is_empty(kind: str) -> None:
    assert source(kind).read_at(len(CONTENT) + 50_000, 12) == b""
    assert not source(kind).reaches(len(CONTENT) + 1)
    assert source(kind).reaches(len(CONTENT))


def test_what_zlib_has_wrapped_is_not_told_of_in_words_of_zlib() -> None:
    with pytest.raises(InvalidInstance) as error:
        InflatedBytes(io.BytesIO(zlib.compress(CONTENT)), 0).read_at(0, 8)
    assert error.value.message == "The deflated data set is damaged"


def test_stream_read_at_huge_size_allocates_no_more_than_there_is(tmp_path: Path) -> None:
    # A real file: it is a buffered reader that allocates what it is asked for.
    (tmp_path / "file").write_bytes(CONTENT)
    with (tmp_path / "file").open("rb") as stream:
        bytes_of = StreamBytes(stream, 0)
        tracemalloc.start()

        try:
            assert bytes_of.read_at(0, 100_000_000) == CONTENT
            assert bytes_of.read_at(0xFFFFFFFE, 100_000_000) == b""
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()


def test_stream_offset_beyond_the_end_is_an_empty_data_set() -> None:
    bytes_of = StreamBytes(io.BytesIO(b"short"), 1_000)

    assert bytes_of.read_at(0, 12) == b""
    assert not bytes_of.reaches(1)


def test_inflated_bomb_is_stopped_in_bounded_memory() -> None:
    bomb = deflate(bytes(MAX_WALKED_BYTES + 1_000_000))
    bytes_of = InflatedBytes(io.BytesIO(bomb), 0)
    tracemalloc.start()

    try:
        assert bytes_of.reaches(MAX_WALKED_BYTES - 1_000_000)
        with pytest.raises(InvalidInstance, match="inflates to more"):
            bytes_of.reaches(MAX_WALKED_BYTES + 1)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_inflated_damaged_bytes_are_an_invalid_instance() -> None:
    with pytest.raises(InvalidInstance, match="damaged"):
        InflatedBytes(io.BytesIO(b"\xff" * 100), 0).read_at(0, 12)


def test_inflated_cut_short_ends_where_the_bytes_end() -> None:
    bytes_of = InflatedBytes(io.BytesIO(deflate(CONTENT)[:50_000]), 0)

    head = bytes_of.read_at(0, len(CONTENT))

    assert 0 < len(head) < len(CONTENT)
    assert CONTENT.startswith(head)
