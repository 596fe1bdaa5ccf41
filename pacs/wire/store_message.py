"""One C-STORE request as P-DATA, laid out before it is its turn (PS3.7 9.1.1, PS3.8 9.3.5).

Command set, PDV headers and the first block of the data set lie in one piece of memory, in the order of the wire,
so that most instances are one write. They are laid out while the peer still works on the instance before.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from pacs.wire.association import EngineAssociation
from pacs.wire.dimse import COMMAND_BIT, LAST_BIT, P_DATA_HEADER, p_data

#: Bytes of data set and headers that are laid out at a time; what is longer goes out in several blocks.
_BLOCK_BYTES = 1024 * 1024
_BUFFER_STEP_BYTES = 128 * 1024


class StoreMessage:
    """The C-STORE request that one association sends next; its memory is used over again."""

    def __init__(self, assoc: EngineAssociation) -> None:
        """Prepare messages for ``assoc``, which is established."""
        self._dimse = assoc.dimse
        self._assoc = assoc
        self._fragment_bytes = assoc.dimse.max_fragment_bytes
        # New memory costs a page fault every 4 KB, about as much as copying the bytes.
        self._buffer = bytearray()
        self._end = 0
        self._stream: BinaryIO | None = None
        self._left = 0
        self._context_id = 0

    def prepare(
        self, command_set: bytes, context_id: int, stream: BinaryIO, size_bytes: int
    ) -> None:
        """Lay out a request and the beginning of its data set, which ``stream`` stands at; the stream is closed.

        Raises:
            EOFError, OSError: the data set cannot be read; nothing was sent.
        """
        self.discard()
        self._stream, self._left, self._context_id = stream, size_bytes, context_id
        try:
            head = p_data(context_id, command_set, COMMAND_BIT, self._fragment_bytes)
            self._end = self._lay_out(b"".join(head))
        except Exception:
            self.discard()
            raise

    def send(self) -> None:
        """Send what was prepared. If the association ends meanwhile, whoever waits for the response finds out.

        Raises:
            EOFError, OSError: the data set broke off; the association is of no more use.
        """
        try:
            self._dimse.send_block(memoryview(self._buffer)[: self._end])
            while self._left and self._assoc.is_usable:
                end = self._lay_out(b"")
                self._dimse.send_block(memoryview(self._buffer)[:end])
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget what was prepared and close its stream."""
        stream, self._stream = self._stream, None
        self._end = self._left = 0
        if stream is not None:
            stream.close()

    def _lay_out(self, head: bytes) -> int:
        """Fill the buffer with ``head`` and the next fragments; return where they end."""
        stream, size = self._stream, self._fragment_bytes
        assert stream is not None
        fragments = max(1, _BLOCK_BYTES // (size + P_DATA_HEADER.size))
        count = min(self._left, fragments * size)
        headers = max(1, -(-count // size)) * P_DATA_HEADER.size
        view = self._room(len(head) + headers + count)
        position = len(head)
        view[:position] = head
        for begin in range(0, count or 1, size):
            length = min(size, count - begin)
            self._left -= length
            control = 0 if self._left else LAST_BIT
            P_DATA_HEADER.pack_into(
                view, position, 4, 0, length + 6, length + 2, self._context_id, control
            )
            position += P_DATA_HEADER.size
            _read_exactly(stream, view[position : position + length])
            position += length
        return position

    def _room(self, needed: int) -> memoryview:
        if len(self._buffer) < needed:
            self._buffer = bytearray(-(-needed // _BUFFER_STEP_BYTES) * _BUFFER_STEP_BYTES)
        return memoryview(self._buffer)


def _read_exactly(stream: BinaryIO, target: memoryview) -> None:
    # A buffered file copies what is smaller than its buffer; the stream stands where it was positioned, with
    # nothing read ahead.
    source: Any = getattr(stream, "raw", stream)
    while target:
        count = source.readinto(target)
        if not count:
            raise EOFError("the stored file is shorter than the index says")
        target = target[count:]
