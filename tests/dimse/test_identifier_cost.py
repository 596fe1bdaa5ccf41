"""Identifiers as large as they may be, and mutated: each yields a query or an error of ours, in bounded processor time.

``PACSTEST_FUZZ_INPUTS`` and ``PACSTEST_FUZZ_SEED`` are those of the engine's fuzzer (CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from struct import pack

import pytest

from pacs.dicom.encoding.part10 import read_identifier
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.identifier import parse_find
from pacs.dimse.request_identifier import _MAX_OTHER_BYTES
from pacs.errors import PacsError

INPUTS = int(os.environ.get("PACSTEST_FUZZ_INPUTS", "300"))
SEED = int(os.environ.get("PACSTEST_FUZZ_SEED", "1"))
IMPLICIT = "1.2.840.10008.1.2"
UNDEFINED = 0xFFFFFFFF
ROOM = _MAX_OTHER_BYTES - 1000
#: Ten times what the worst of these took; a quadratic step takes minutes for the larger inputs.
CPU_SECONDS = 5.0


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    return pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes) -> bytes:
    return pack("<HHL", 0xFFFE, 0xE000, len(content)) + content


STUDY = element(0x00080052, b"STUDY ")
NESTED = pack("<HHLHHL", 0x0008, 0x1032, UNDEFINED, 0xFFFE, 0xE000, UNDEFINED)
HOSTILE = {
    "a name of components": element(0x00100010, b"A^" * (ROOM // 2)),
    "a name of wild cards": element(0x00100010, b"*a" * (ROOM // 2)),
    "a name of groups": element(0x00100010, b"=" * ROOM),
    "a list of UIDs": element(0x0020000D, b"1.2\\" * 250_000),
    "a list of modalities": element(0x00080061, b"CT\\" * (ROOM // 3)),
    "a date of hyphens": element(0x00080020, b"-" * ROOM),
    "a description of escape sequences": element(0x00080005, b"ISO 2022 IR 6\\ISO 2022 IR 87 ")
    + element(0x00081030, b"\x1b$B" * (ROOM // 3)),
    "many elements": b"".join(
        element(0x00091000 + number, b"") for number in range(min(ROOM // 8, 0xEFFF))
    ),
    "deep sequences": NESTED * (ROOM // len(NESTED)),
    "many Items": element(0x00081032, item(b"") * (ROOM // 8)),
    "many keys in an Item": element(
        0x00081032,
        item(b"".join(element(0x00100000 + n, b"*a*b") for n in range(ROOM // 12))),
    ),
    "many character sets": element(0x00080005, b"ISO 2022 IR 87\\" * (ROOM // 15)),
    "a time zone": element(0x00080201, b"+" * ROOM),
}


def cost(data: bytes) -> float:
    """Parse an Identifier; return the seconds of processor time."""
    began = time.thread_time()
    with suppress(PacsError):
        parse_find(read_identifier(data, IMPLICIT), InformationModel.STUDY_ROOT)
    return time.thread_time() - began


@pytest.mark.parametrize("name", HOSTILE)
def test_identifier_as_large_as_it_may_be_costs_bounded_time(name: str) -> None:
    assert cost(STUDY + HOSTILE[name]) < CPU_SECONDS


def test_mutated_identifiers_cost_bounded_time() -> None:
    rng = random.Random(SEED)
    seeds = [STUDY + value[:2000] for value in HOSTILE.values()]
    slow = []
    for number in range(INPUTS):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.choice(b"\0\xff\\*^=\x1b-")
            else:
                data[at:at] = data[at : at + 40] * rng.choice([1, 2, 500])
        if (spent := cost(bytes(data))) >= CPU_SECONDS:
            slow.append((number, spent))

    assert slow == []
