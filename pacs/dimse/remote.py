"""Known remote AEs: those in the index and those named by the ``remote_aes`` setting."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pacs.errors import PacsError
from pacs.index.index import Index
from pacs.model.remote_ae import RemoteAE
from pacs.wire.tls import TLSOptions, requestor_context

LOGGER = logging.getLogger(__name__)

#: What is changed by ``pacs ae`` reaches a running server within this time.
_REFRESH_SECONDS = 2.0
#: A title that is not known may just have been added: whoever does so tries it next.
_UNKNOWN_REFRESH_SECONDS = 0.1
#: How long a question waits for the index; then it is answered from what was known before.
_PATIENCE_SECONDS = 1.0


@dataclass(slots=True)
class _Reading:
    """The list is being read from the index."""

    started_at: float = field(default_factory=time.monotonic)
    is_over: threading.Event = field(default_factory=threading.Event)


class RemoteAEs:
    """A cached view of the known remote AEs, safe to share between threads.

    Each new association asks for it. So the index is read by a thread of its own, one at a time, and nobody holds a
    lock meanwhile: with an index that does not answer, what was known last goes on being known.
    """

    def __init__(
        self, index: Index, configured: Iterable[RemoteAE] = (), tls: TLSOptions | None = None
    ) -> None:
        self._index = index
        self._tls = tls or TLSOptions()
        self._configured = {remote.title: remote for remote in configured}
        self._known: dict[str, RemoteAE] = dict(self._configured)
        self._read_at = float("-inf")
        self._lock = threading.Lock()
        self._reading: _Reading | None = None

    def get(self, title: str) -> RemoteAE | None:
        """The remote AE with this title, or None."""
        title = title.strip()
        return self._current().get(title) or self._current(_UNKNOWN_REFRESH_SECONDS).get(title)

    def reconfigure(self, configured: Iterable[RemoteAE], tls: TLSOptions) -> None:
        """Take over other settings; the next question reads the list anew."""
        with self._lock:
            self._configured = {remote.title: remote for remote in configured}
            self._tls = tls
            self._read_at = float("-inf")

    def titles(self) -> list[str]:
        """All known titles, sorted."""
        return sorted(self._current())

    def tls_args(self, remote: RemoteAE) -> tuple[ssl.SSLContext, str] | None:
        """How to call ``remote``, as ``pynetdicom.AE.associate`` wants it: the context and the host name to check.

        Raises:
            InvalidSetting: a file that TLS needs cannot be used.
        """
        return (requestor_context(self._tls), remote.host) if remote.tls else None

    def _current(self, refresh_seconds: float | None = None) -> dict[str, RemoteAE]:
        if refresh_seconds is None:
            refresh_seconds = _REFRESH_SECONDS
        with self._lock:
            if time.monotonic() - self._read_at < refresh_seconds:
                return self._known
            reading = self._reading
            if reading is None:
                reading = _Reading()
                thread = threading.Thread(
                    target=self._read, args=(reading,), name="remote AEs", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:  # no thread left
                    LOGGER.error("the list of remote AEs cannot be refreshed: %s", error)
                    return self._known
                self._reading = reading
        # One that has taken long already is waited for no longer by those who come later.
        reading.is_over.wait(max(0.0, reading.started_at + _PATIENCE_SECONDS - time.monotonic()))
        return self._known

    def _read(self, reading: _Reading) -> None:
        try:
            stored = {remote.title: remote for remote in self._index.remote_aes.all()}
            # What an operator put into the index by hand is more specific than the setting.
            self._known = self._configured | stored
        except PacsError as error:
            LOGGER.error("the list of remote AEs cannot be refreshed: %s", error)
        finally:
            with self._lock:
                self._read_at = time.monotonic()
                self._reading = None
            reading.is_over.set()
