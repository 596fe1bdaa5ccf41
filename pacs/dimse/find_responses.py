"""The pending responses of one C-FIND on their way to the peer: those that are at hand together leave together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pacs.wire.command import encode_match
from pacs.wire.dimse import COMMAND_BIT, p_data
from pacs.wire.interfaces import Served

#: Responses wait for each other until there are so many bytes of them: a few milliseconds of work.
_BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class EncodedIdentifier:
    """An Identifier as it goes on the wire: what a handler may yield in place of a data set, to our engine only."""

    #: In the transfer syntax of the presentation context.
    data: bytes
    #: Whether the next response needs no more than to be written, so that this one may wait for it.
    more_at_hand: bool


class FindResponses:
    """Sends those of one request; what they have in common is encoded once."""

    def __init__(self, assoc: Served, request: Any, context: Any) -> None:
        self._assoc = assoc
        self._request = request
        self._context_id = int(context.context_id)
        #: By status.
        self._commands: dict[int, bytes] = {}
        self._is_first = True
        self._parts: list[bytes | memoryview] = []
        self._bytes = 0
        self._waiting = 0

    def add(self, status: int, identifier: EncodedIdentifier) -> None:
        """Send a response, soon; the first one at once."""
        data = identifier.data
        self._parts.append(self._command(status))
        self._parts += p_data(self._context_id, data, 0, self._assoc.dimse.max_fragment_bytes)
        self._bytes += len(data)
        self._waiting += 1
        if self._is_first or not identifier.more_at_hand or self._bytes >= _BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if not self._waiting:
            return
        self._is_first = False
        self._assoc.dimse.send_block(memoryview(b"".join(self._parts)))
        self._assoc.history.pending += self._waiting
        self._parts, self._bytes, self._waiting = [], 0, 0

    def _command(self, status: int) -> bytes:
        if status not in self._commands:
            encoded = encode_match(
                str(self._request.AffectedSOPClassUID), int(self._request.MessageID), status
            )
            size = self._assoc.dimse.max_fragment_bytes
            self._commands[status] = b"".join(p_data(self._context_id, encoded, COMMAND_BIT, size))
        return self._commands[status]
