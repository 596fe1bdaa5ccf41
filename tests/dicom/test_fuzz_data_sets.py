"""Mutated data sets: each yields a result or an error of ours, in bounded processor time.

``PACSTEST_FUZZ_INPUTS`` and ``PACSTEST_FUZZ_SEED`` are those of the engine's fuzzer (CONTRIBUTING.md).
"""

from __future__ import annotations

import io
import os
import random
import time
import zlib
from contextlib import suppress

from pacs.dicom.encoding.completeness import check_complete
from pacs.dicom.encoding.layout import inflated, read_layout
from pacs.dicom.encoding.part10 import read_header
from pacs.errors import PacsError
from tests.dicom.encoding.test_completeness import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    element,
    encapsulated,
    parts,
)

INPUTS = int(os.environ.get("PACSTEST_FUZZ_INPUTS", "1500"))
SEED = int(os.environ.get("PACSTEST_FUZZ_SEED", "1"))
#: Ten times what the worst of these took; a quadratic step takes minutes for the larger inputs.
CPU_SECONDS = 5.0
LARGE = 200_000
#: What turns the meaning of a length or tag around.
BYTES = (
    b"\0",
    b"\xff",
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\xdd\xe0",
    b"\xff\xff\xff\xff",
    b"SQ",
    b"UN",
)


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def seeds() -> list[tuple[str, bytes]]:
    plain = [(syntax, b"".join(parts(syntax))) for syntax in (IMPLICIT, EXPLICIT, BIG)]
    pixels = encapsulated(b"a" * 3000, b"bb", b"", table=bytes(8))
    return [*plain, (JPEG, plain[1][1] + pixels), (DEFLATED, plain[1][1])]


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        piece = rng.choice(BYTES)
        kind = rng.randrange(4)
        if kind == 0:
            changed[at : at + len(piece)] = piece
        elif kind == 1:
            changed[at:at] = changed[rng.randrange(len(changed) + 1) :][: rng.randrange(200)]
        elif kind == 2:
            del changed[at : at + rng.randrange(20)]
        elif rng.random() < 0.05:
            changed[at:at] = (bytes(changed[at : at + 24]) or piece) * (LARGE // 24)
    return bytes(changed)


def read(data: bytes, syntax: str) -> None:
    for act in (check_complete, read_header):
        with suppress(PacsError):
            act(io.BytesIO(data), syntax, 0)
    with suppress(PacsError):
        stream, plain_syntax, offset = inflated(io.BytesIO(data), syntax, 0)
        read_layout(stream, plain_syntax, offset)


def test_mutated_data_sets_are_read_or_refused_in_bounded_processor_time() -> None:
    rng = random.Random(SEED)
    pool = seeds()
    for number in range(INPUTS):
        syntax, data = rng.choice(pool)
        data = mutated(rng, data)
        if syntax == DEFLATED:
            data = deflate(data)
            if rng.random() < 0.5:
                data = mutated(rng, data)
        started = time.process_time()
        read(data, syntax)
        seconds = time.process_time() - started
        assert seconds < CPU_SECONDS, f"input {number} of seed {SEED}: {seconds:.1f} s"


def test_deflated_zeros_are_inflated_in_linear_time() -> None:
    """62 KB that inflate to 64 MB took 25 s: a window that grew piece by piece was copied for each."""
    bomb = deflate(element(EXPLICIT, 0x7FE00010, "OB", bytes(64_000_000)))
    assert len(bomb) < 70_000
    started = time.process_time()

    read(bomb, DEFLATED)

    assert time.process_time() - started < CPU_SECONDS
