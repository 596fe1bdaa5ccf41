"""Seeded mutations of what a peer sends: bytes, lengths, PDUs, PDV items, command elements.

A mutation that breaks every length on its way out ends at the first check. So each level is changed with the
levels above it made right again, and the association request is mostly left alone: what comes after it is
reached only behind a valid one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.wire.wire import P_DATA

CORPUS = Path(__file__).parent / "corpus"
_INTERESTING = (0, 1, 2, 3, 5, 6, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x101, 0x7FFF, 0x8000, 0xFFFF)
_HUGE = (
    0x10000,
    0x1FFFF,
    0x20000,
    0x20040,
    0x100000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
_GROWN_BYTES = 300_000
#: What a part is repeated to, now and then: work that grows with the square of the input shows then.
_SWOLLEN_BYTES = 200_000


def corpus() -> dict[str, bytes]:
    """The kept inputs: name of the file without its ending -> a peer's whole stream."""
    return {path.stem: path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))}


def split(stream: bytes) -> list[bytes]:
    """The PDUs of a stream with their headers; what is no whole PDU stays in one piece."""
    parts, position = [], 0
    while len(stream) - position >= 6:
        length = 6 + int(struct.unpack_from(">I", stream, position + 2)[0])
        parts.append(stream[position : position + length])
        position += length
    return [*parts, stream[position:]] if position < len(stream) else parts


def mutate(random: Random, seeds: Sequence[bytes]) -> bytes:
    """One input: a seed, changed in one to four ways."""
    pdus = split(random.choice(seeds))
    if pdus and random.random() < 0.03:
        number = random.randrange(len(pdus))
        pdus[number] = _swell(random, pdus[number])
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        if random.random() < 0.2:
            _change_order(random, pdus, seeds)
        elif pdus:
            spared = 1 if len(pdus) > 1 and random.random() < 0.75 else 0
            number = random.randrange(spared, len(pdus))
            pdus[number] = _change_pdu(random, pdus[number])
    stream = b"".join(pdus)
    if random.random() < 0.1:
        stream = stream[: random.randrange(len(stream) + 1)]
    return stream[:_GROWN_BYTES]


def _change_order(random: Random, pdus: list[bytes], seeds: Sequence[bytes]) -> None:
    at = random.randrange(len(pdus) + 1)
    match random.randrange(4):
        case 0 if pdus:
            pdus.insert(at, random.choice(pdus))
        case 1 if pdus:
            del pdus[at - 1]
        case 2:
            pdus[at:at] = split(random.choice(seeds))[1:]
        case _:
            random.shuffle(pdus)


def _change_pdu(random: Random, pdu: bytes) -> bytes:
    if len(pdu) < 7 or random.random() < 0.2:
        return _change_bytes(random, pdu)
    body = pdu[6:]
    if pdu[0] == P_DATA and random.random() < 0.8:
        body = _change_items(random, body)
    elif pdu[0] in (0x01, 0x02) and len(body) > 68 and random.random() < 0.8:
        body = body[:68] + _change_nested(random, body[68:], depth=3)
    else:
        body = _change_bytes(random, body)
    return struct.pack(">BBI", pdu[0], 0, len(body)) + body


def _swell(random: Random, pdu: bytes) -> bytes:
    """A PDU with one of its items, elements or any other part of it thousands of times, its own length right."""
    fixed = 6 + 68 if pdu[0] in (0x01, 0x02) else 6
    head, body = pdu[6:fixed], pdu[fixed:]
    at = random.randrange(len(body) + 1)
    part = body[at : at + random.choice((4, 8, 12, 64))]
    if pdu[0] in (0x01, 0x02) and len(body) > 4 and random.random() < 0.7:
        # An item as it is, or user information of one sub-item.
        kind, length = struct.unpack_from(">BxH", body)
        part = random.choice((body[: 4 + length], struct.pack(">BBH", kind, 0, 0)))
        at = 0
    body = body[:at] + part * (_SWOLLEN_BYTES // max(1, len(part))) + body[at:]
    if pdu[0] == P_DATA and len(body) > 6:
        body = body[:131_000]
        body = struct.pack(">I", len(body) - 4) + body[4:]
    return struct.pack(">BBI", pdu[0], 0, len(head + body)) + head + body


def _change_items(random: Random, body: bytes) -> bytes:
    """PDV items (PS3.8 9.3.5.1): split, merged, relabelled, or their command elements changed."""
    if len(body) < 6:
        return _change_bytes(random, body)
    length, context_id, control = struct.unpack_from(">IBB", body)
    value, rest = body[6 : 4 + length], body[4 + length :]
    match random.randrange(5):
        case 0:
            cut = random.randrange(len(value) + 1)
            first = struct.pack(">IBB", cut + 2, context_id, control & 0xFD) + value[:cut]
            left = len(value) - cut
            return first + struct.pack(">IBB", left + 2, context_id, control) + value[cut:] + rest
        case 1:
            context_id = random.choice((1, 3, 5, 7, 2, 0, 255, context_id))
        case 2:
            control = random.choice((0, 1, 2, 3, 0xFF, control ^ 2, control ^ 1))
        case 3 if control & 1:
            value = _change_elements(random, value)
        case _:
            value = _change_bytes(random, value)
    return struct.pack(">IBB", len(value) + 2, context_id, control) + value + rest


def _change_elements(random: Random, value: bytes) -> bytes:
    """The elements of a command set: dropped, repeated, reordered, or given another value."""
    elements, position = [], 0
    while len(value) - position >= 8:
        length = 8 + int(struct.unpack_from("<I", value, position + 4)[0])
        elements.append(value[position : position + length])
        position += length
    if not elements:
        return value
    at = random.randrange(len(elements))
    match random.randrange(4):
        case 0:
            del elements[at]
        case 1:
            elements.insert(at, random.choice(elements))
        case 2:
            random.shuffle(elements)
        case _:
            changed = _change_bytes(random, elements[at][8:])
            elements[at] = elements[at][:4] + struct.pack("<I", len(changed)) + changed
    return b"".join(elements)


def _change_nested(random: Random, items: bytes, depth: int) -> bytes:
    """Items of an A-ASSOCIATE PDU (PS3.8 9.3.2), each with a type and a two-byte length."""
    parts, position = [], 0
    while len(items) - position >= 4:
        length = 4 + int(struct.unpack_from(">H", items, position + 2)[0])
        parts.append(items[position : position + length])
        position += length
    if not parts:
        return _change_bytes(random, items)
    at = random.randrange(len(parts))
    item_type, value = parts[at][0], parts[at][4:]
    # Presentation contexts have four bytes before their own items, user information none.
    head = 4 if item_type in (0x20, 0x21) else 0
    match random.randrange(6):
        case 0:
            del parts[at]
        case 1:
            parts.insert(random.randrange(len(parts) + 1), parts[at])
        case 2:
            parts[at] = bytes((random.randrange(256),)) + parts[at][1:]
        case 3 | 4 if depth and item_type in (0x20, 0x21, 0x50) and len(value) > head + 4:
            value = value[:head] + _change_nested(random, value[head:], depth - 1)
            parts[at] = struct.pack(">BBH", item_type, 0, len(value) & 0xFFFF) + value
        case _:
            value = _change_bytes(random, value)
            parts[at] = struct.pack(">BBH", item_type, 0, len(value) & 0xFFFF) + value
    return b"".join(parts)


def _change_bytes(random: Random, data: bytes) -> bytes:
    change: Callable[[Random, bytearray, int], None] = random.choice(_BYTE_CHANGES)
    changed = bytearray(data)
    change(random, changed, random.randrange(len(changed) + 1))
    return bytes(changed)


def _flip(random: Random, data: bytearray, at: int) -> None:
    if at < len(data):
        data[at] ^= 1 << random.randrange(8)


def _replace(random: Random, data: bytearray, at: int) -> None:
    if at < len(data):
        data[at] = random.choice(_INTERESTING) & 0xFF


def _number(random: Random, data: bytearray, at: int) -> None:
    order = random.choice("<>")
    if random.random() < 0.5:
        data[at : at + 4] = struct.pack(f"{order}I", random.choice(_INTERESTING + _HUGE))
    else:
        data[at : at + 2] = struct.pack(f"{order}H", random.choice(_INTERESTING))


def _insert(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = random.randbytes(random.choice((1, 2, 3, 4, 8, 64)))


def _remove(random: Random, data: bytearray, at: int) -> None:
    del data[at : at + random.choice((1, 2, 3, 4, 8, 64))]


def _repeat(random: Random, data: bytearray, at: int) -> None:
    data[at:at] = data[at : at + 64] * random.choice((1, 2, 50))


def _text(random: Random, data: bytearray, at: int) -> None:
    text = random.choice((b"\\", b"..", b"\0", b"\xff\xfe", b"%s", b"../", b"\x1b$B", b" "))
    data[at : at + len(text)] = text


_BYTE_CHANGES = (_flip, _replace, _number, _insert, _remove, _repeat, _text)
