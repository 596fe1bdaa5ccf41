"""A C-STORE request laid out in blocks: the bytes on the wire are those of the data set, in the peer's PDU size."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pacs.wire import command, store_message
from pacs.wire.store_message import StoreMessage

COMMAND_SET = command.StoreRequests(0, ("ASKER", 7)).encode("1.2.840.10008.5.1.4.1.1.2", "1.2.3", 1)
CONTEXT_ID = 5


class _Wire:
    """What a message needs of an association, with a real socket that collects what is sent."""

    def __init__(self, fragment_bytes: int) -> None:
        self.is_usable = True
        self.dimse = SimpleNamespace(max_fragment_bytes=fragment_bytes, send_block=self._send_block)
        self.writes: list[int] = []
        self._near, self._far = socket.socketpair()
        self._received = bytearray()
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _send_block(self, block: memoryview) -> None:
        self.writes.append(len(block))
        self._near.sendall(block)

    def _receive(self) -> None:
        while data := self._far.recv(1 << 16):
            self._received += data

    def sent(self) -> bytes:
        self._near.close()
        self._thread.join()
        self._far.close()
        return bytes(self._received)


def _fragments(stream: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Context, control header and value of each PDV of PDUs with one PDV each."""
    position = 0
    while position < len(stream):
        pdu_type, _, length, item, context_id, control = struct.unpack_from(
            ">BBIIBB", stream, position
        )
        assert (pdu_type, item) == (4, length - 4)
        yield context_id, control, stream[position + 12 : position + 6 + length]
        position += 6 + length
    assert position == len(stream)


def _assert_is_message(stream: bytes, data_set: bytes, fragment_bytes: int) -> None:
    fragments = list(_fragments(stream))
    assert {context_id for context_id, _, _ in fragments} == {CONTEXT_ID}
    assert all(len(value) <= fragment_bytes for _, _, value in fragments)
    commands = [one for one in fragments if one[1] & 1]
    data = fragments[len(commands) :]
    assert b"".join(value for _, _, value in commands) == COMMAND_SET
    assert b"".join(value for _, _, value in data) == data_set
    assert [control for _, control, _ in commands] == [1] * (len(commands) - 1) + [3]
    assert [control for _, control, _ in data] == [0] * (len(data) - 1) + [2]


def _content(size: int) -> bytes:
    return bytes(number * 7 % 251 for number in range(size))


@pytest.mark.parametrize("fragment_bytes", [2, 100, 1000])
def test_message_of_any_size_is_whole_and_fits_the_peer(
    monkeypatch: pytest.MonkeyPatch, fragment_bytes: int
) -> None:
    monkeypatch.setattr(store_message, "_BLOCK_BYTES", 4096)
    edges = {0, 1, 2, 3}
    for edge in (fragment_bytes, 4096 // (fragment_bytes + 12) * fragment_bytes, 8192):
        edges |= {edge - 1, edge, edge + 1, edge + 2, 3 * edge}
    for size in sorted(edges):
        wire: Any = _Wire(fragment_bytes)
        data_set = _content(size)
        message = StoreMessage(wire)

        message.prepare(COMMAND_SET, CONTEXT_ID, BytesIO(data_set), size)
        message.send()

        _assert_is_message(wire.sent(), data_set, fragment_bytes)
        assert all(length <= 4096 + 12 + len(COMMAND_SET) * 12 for length in wire.writes)


def test_message_up_to_a_block_is_one_write() -> None:
    wire: Any = _Wire(131_066)
    data_set = _content(600_000)
    message = StoreMessage(wire)

    message.prepare(COMMAND_SET, CONTEXT_ID, BytesIO(data_set), len(data_set))
    message.send()

    assert len(wire.writes) == 1
    _assert_is_message(wire.sent(), data_set, 131_066)


def test_messages_in_a_row_share_memory_and_do_not_mix() -> None:
    wire: Any = _Wire(1000)
    message = StoreMessage(wire)
    sizes = [5000, 300, 0, 200_000, 7]

    for size in sizes:
        message.prepare(COMMAND_SET, CONTEXT_ID, BytesIO(_content(size)), size)
        message.send()

    found = list(_fragments(wire.sent()))
    ends = [number for number, (_, control, _) in enumerate(found) if control == 2]
    begin = 0
    for size, end in zip(sizes, ends, strict=True):
        data = b"".join(value for _, control, value in found[begin : end + 1] if not control & 1)
        assert data == _content(size)
        begin = end + 1


def test_data_set_is_read_from_where_its_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "stored"
    path.write_bytes(b"HEADER" + _content(300_000))
    wire: Any = _Wire(16_378)
    message = StoreMessage(wire)
    stream = path.open("rb")
    stream.seek(6)

    message.prepare(COMMAND_SET, CONTEXT_ID, stream, 300_000)
    message.send()

    assert stream.closed
    _assert_is_message(wire.sent(), _content(300_000), 16_378)


def test_message_of_short_data_set_is_not_sent_and_its_stream_closed() -> None:
    wire: Any = _Wire(1000)
    stream = BytesIO(_content(4000))

    with pytest.raises(EOFError):
        StoreMessage(wire).prepare(COMMAND_SET, CONTEXT_ID, stream, 4001)

    assert stream.closed
    assert wire.sent() == b""


def test_message_whose_association_ends_midway_reads_no_further() -> None:
    wire: Any = _Wire(131_066)
    wire.is_usable = False
    stream = BytesIO(bytes(5_000_000))
    message = StoreMessage(wire)
    message.prepare(COMMAND_SET, CONTEXT_ID, stream, 5_000_000)
    read = stream.tell()

    message.send()

    assert len(wire.writes) == 1
    assert read < 2 << 20
    assert stream.closed
    wire.sent()
