from __future__ import annotations

import random
from io import SEEK_END, BytesIO

from pacs.dicom.encoding.pieces import Literal, PackedBits, Piece, Range, open_pieces, total_size

SOURCE = bytes(range(256))


def test_pieces_read_as_one_file_from_any_position() -> None:
    pieces: list[Piece] = [Literal(b"head"), Range(10, 20), Literal(b""), Range(100, 5)]
    expected = b"head" + SOURCE[10:30] + SOURCE[100:105]
    assert total_size(pieces) == len(expected)

    with open_pieces(BytesIO(SOURCE), pieces) as stream:
        assert stream.read() == expected
        assert stream.seek(0, SEEK_END) == len(expected)
        assert stream.read(1) == b""
        for begin in range(len(expected)):
            for size in (1, 3, 50):
                stream.seek(begin)
                assert stream.read(size) == expected[begin : begin + size]
                assert stream.tell() == min(begin + size, len(expected))


def test_closing_the_file_closes_the_source() -> None:
    source = BytesIO(SOURCE)

    open_pieces(source, [Range(0, 1)]).close()

    assert source.closed


def test_a_source_that_became_shorter_ends_the_file() -> None:
    with open_pieces(BytesIO(b"1234"), [Range(2, 10)]) as stream:
        assert stream.read() == b"34"
    with open_pieces(BytesIO(b"1"), [PackedBits(0, 12, (0, 1))]) as stream:
        assert stream.read() == b""


def test_packed_bits_are_those_of_the_frames() -> None:
    source = random.Random(1).randbytes(20_000)
    bits = "".join(f"{byte:08b}"[::-1] for byte in source)
    for per_frame, frames in (
        (1, (0, 5, 9)),
        (12, (1, 2, 4)),
        (70_001, (0, 1)),
        (9, tuple(range(90))),
    ):
        piece = PackedBits(0, per_frame, frames)
        kept = "".join(bits[frame * per_frame : (frame + 1) * per_frame] for frame in frames)
        kept += "0" * (-len(kept) % 8)
        expected = bytes(int(kept[at : at + 8][::-1], 2) for at in range(0, len(kept), 8))

        with open_pieces(BytesIO(source), [piece]) as stream:
            assert stream.read() == expected
            stream.seek(1)
            assert stream.read(3) == expected[1:4]
