"""C-CANCEL as requester: have the peer end what it is performing for us, within a bounded time."""

from __future__ import annotations

import threading

from pacs.wire.association import EngineAssociation

#: How long a peer may go on after a C-CANCEL. It may first have to finish a sub-operation with a slow destination.
PATIENCE_SECONDS = 30.0


class Cancellation:
    """Ends one operation early; for the thread that performs it, from a signal handler."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Wait so long for the final response once C-CANCEL is sent."""
        self._patience_seconds = patience_seconds
        self._assoc: EngineAssociation | None = None
        self._sop_class_uid = ""
        self._timer: threading.Timer | None = None

    @property
    def was_sent(self) -> bool:
        """Whether the peer was asked."""
        return self._timer is not None

    def applies_to(self, assoc: EngineAssociation, sop_class_uid: str) -> None:
        """From now on there is an operation to cancel: the request is sent."""
        self._assoc, self._sop_class_uid = assoc, sop_class_uid

    def is_over(self) -> None:
        """The operation has ended."""
        self._assoc = None
        if self._timer is not None:
            self._timer.cancel()

    def send(self) -> bool:
        """Send C-CANCEL (PS3.7 9.3.4.3); False if there is nothing to cancel, or it has been sent before.

        The requester sends nothing else while it waits for responses, so this may interrupt it anywhere there.
        """
        assoc = self._assoc
        if assoc is None or self.was_sent or not assoc.is_usable:
            return False
        self._timer = threading.Timer(self._patience_seconds, self._give_up, [assoc])
        self._timer.daemon = True
        self._timer.start()
        assoc.send_c_cancel(1, query_model=self._sop_class_uid)
        return True

    @staticmethod
    def _give_up(assoc: EngineAssociation) -> None:
        if assoc.dul.socket is not None:
            assoc.dul.socket.shut_reading()
