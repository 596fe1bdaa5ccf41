"""Log lines that a flood of connections would write thousands of times."""

from __future__ import annotations

import logging
import threading
import time

#: The same trouble is told again after so long, with how often it has come up meanwhile.
_QUIET_SECONDS = 10.0


class RepeatedLine:
    """One log line that is not written for each time it comes up; safe to share between threads."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        """Write to ``logger`` at ``level``."""
        self._logger = logger
        self._level = level
        self._lock = threading.Lock()
        self._quiet_until = 0.0
        self._unsaid = 0

    def __call__(self, text: str, *values: object) -> None:
        """Log it, or count it for the line that is next."""
        with self._lock:
            now = time.monotonic()
            if now < self._quiet_until:
                self._unsaid += 1
                return
            unsaid, self._unsaid = self._unsaid, 0
            self._quiet_until = now + _QUIET_SECONDS
        if unsaid:
            text, values = text + " (and %d times more before)", (*values, unsaid)
        self._logger.log(self._level, text, *values)
