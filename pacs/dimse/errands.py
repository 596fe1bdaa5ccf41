"""What an acceptor does for its peer between requests: work in small pieces, then a request of its own.

An errand is a generator that runs in the association's thread. It yields None to give way, which it does often, and a
request to have it sent: the value of that ``yield`` is the peer's response, or None if there was none in time. A
request of the peer always goes first, and no message of either side is ever in between the PDUs of another. When the
association ends, the errand is closed at its ``yield``; one that has not begun by then never will.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Generator
from typing import Any

from pacs.wire.interfaces import Served

LOGGER = logging.getLogger(__name__)

Errand = Generator[Any, Any, None]

#: Of one association; what is beyond has to be done in another way.
_MOST_ERRANDS = 16
#: Message IDs count down, those of C-GET sub-operations on the same association count up.
_FIRST_MESSAGE_ID = 0xFFFF
_LAST_MESSAGE_ID = 0xFF00


class Errands:
    """The errands of one association, done one after the other."""

    def __init__(self, assoc: Served) -> None:
        self._assoc = assoc
        self._waiting: deque[tuple[Errand, int]] = deque()
        self._next_message_id = _FIRST_MESSAGE_ID
        #: The request whose response is awaited.
        self._asked: Any = None
        self._response: Any = None
        self._deadline = 0.0

    def add(self, errand: Errand, context_id: int) -> bool:
        """Do this when the association has nothing else to do; False if too much waits already.

        Requests are sent on the presentation context ``context_id``.
        """
        if len(self._waiting) >= _MOST_ERRANDS:
            return False
        self._waiting.append((errand, context_id))
        return True

    def step(self) -> bool:
        """Do a piece, and take in what the peer has sent meanwhile; False if there is nothing to do now."""
        if not self._waiting or self._assoc.peer_is_gone:
            return False
        if self._response is None and self.seconds_left:
            return False
        self._advance()
        self._assoc.poll_peer()
        return True

    @property
    def seconds_left(self) -> float | None:
        """How long to wait for a response, from now; None if none is awaited."""
        return None if self._asked is None else max(0.0, self._deadline - time.monotonic())

    def _advance(self) -> None:
        errand, context_id = self._waiting[0]
        response, self._response, self._asked = self._response, None, None
        try:
            request = errand.send(response)
        except StopIteration:
            self._waiting.popleft()
        except Exception:
            LOGGER.exception("%s: what was to be done after a request failed", self._assoc.label)
            self._waiting.popleft()
        else:
            if request is not None:
                self._send(request, context_id)

    def _send(self, request: Any, context_id: int) -> None:
        # Each request has an ID of its own: a late response to one must not answer the next.
        request.MessageID = self._next_message_id
        is_last = self._next_message_id == _LAST_MESSAGE_ID
        self._next_message_id = _FIRST_MESSAGE_ID if is_last else self._next_message_id - 1
        self._deadline = time.monotonic() + (self._assoc.dimse.dimse_timeout or 0)
        self._asked = request
        self._assoc.dimse.send_msg(request, context_id)

    def take_response(self, response: Any) -> bool:
        """Take the peer's response; False if it is to nothing that was asked."""
        asked = self._asked
        if type(response) is not type(asked):
            return False
        if response.MessageIDBeingRespondedTo != asked.MessageID:
            return False
        self._response = response
        return True

    def close(self) -> None:
        """The association has ended: so do its errands."""
        while self._waiting:
            errand, _ = self._waiting.popleft()
            try:
                errand.close()
            except Exception:
                LOGGER.exception("%s: an errand failed as it was closed", self._assoc.label)
