"""Which data sets need not be walked to their end again before they are sent."""

from __future__ import annotations

import threading

#: So many of either generation: some 5 MB in all.
_MOST = 10_000


class KnownWhole:
    """Remembers the data sets that were walked lately, for any number of threads.

    By their bytes, since what is there to be found depends on nothing else: another file under the same name, or
    another row, is another data set.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        #: The former is forgotten when the latter is full.
        self._before: set[tuple[str, str]] = set()
        self._latest: set[tuple[str, str]] = set()

    def add(self, digest: str, transfer_syntax_uid: str) -> None:
        """This one was walked, and was not cut off."""
        with self._turn:
            if len(self._latest) >= _MOST:
                self._before, self._latest = self._latest, set()
            self._latest.add((digest, transfer_syntax_uid))

    def has(self, digest: str, transfer_syntax_uid: str) -> bool:
        """Whether it was, as far as is remembered."""
        one = digest, transfer_syntax_uid
        return one in self._latest or one in self._before
