"""Known remote AEs: those in the index and those named by the ``remote_aes`` setting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from pacs.errors import PacsError
from pacs.index.index import Index
from pacs.index.records import RemoteAE

LOGGER = logging.getLogger(__name__)

#: ``pacs ae add`` reaches a running server within this time.
_REFRESH_SECONDS = 2.0


class RemoteAEs:
    """A cached view of the known remote AEs, safe to share between threads."""

    def __init__(self, index: Index, configured: Iterable[RemoteAE] = ()) -> None:
        self._index = index
        self._configured = {remote.title: remote for remote in configured}
        self._known: dict[str, RemoteAE] = dict(self._configured)
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def get(self, title: str) -> RemoteAE | None:
        """The remote AE with this title, or None."""
        return self._current().get(title.strip())

    def titles(self) -> list[str]:
        """All known titles, sorted."""
        return sorted(self._current())

    def _current(self) -> dict[str, RemoteAE]:
        with self._lock:
            if time.monotonic() - self._read_at < _REFRESH_SECONDS:
                return self._known
            try:
                stored = {remote.title: remote for remote in self._index.remote_aes()}
                # What an operator put into the index by hand is more specific than the setting.
                self._known = self._configured | stored
            except PacsError as error:
                LOGGER.error("the list of remote AEs cannot be refreshed: %s", error)
            self._read_at = time.monotonic()
            return self._known
