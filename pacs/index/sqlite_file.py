"""The file of an SQLite index stays the one that was opened first.

SQLite goes on writing to a file that was deleted, renamed or replaced, so commits would succeed and be gone with
the process; a connection made later would open, or make, another file. Nor may the new file simply be used: what this
process remembers of the rows (``known_insert``) is of the old one.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress

from pacs.errors import IndexUnavailable

#: As for the stored files: names of patients are in it.
FILE_MODE = 0o640


class SqliteFile:
    """Which file it is. Safe to share between threads and pools.

    Whoever holds a connection to the first file keeps its inode number from being used again.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._identity: tuple[int, int] | None = None

    def make(self) -> None:
        """Make the file, empty, if there is none: SQLite would make one that every local user can read.

        SQLite gives its other two files the mode of this one.
        """
        with suppress(OSError):  # SQLite meets the same, and says what it is
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))

    def close_to_others(self) -> list[str]:
        """Take from others what an earlier release let them: a line for each file of which that is to be said."""
        lines = []
        for path in (self._path, f"{self._path}-wal", f"{self._path}-shm"):
            try:
                mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - as below
                if mode & ~FILE_MODE:
                    os.chmod(path, mode & FILE_MODE)  # noqa: PTH101 - as below
                    lines.append(f"{path} had mode {mode:o}, and has {mode & FILE_MODE:o} now")
            except FileNotFoundError:
                continue
            except OSError as error:
                lines.append(f"{path} is open to other users, and stays so: {error.strerror}")
        return lines

    @property
    def exists(self) -> bool:
        """Whether there is a file of that name."""
        return self._look() is not None

    def learn(self) -> None:
        """Remember the file, if it is the first that is opened.

        Raises:
            IndexUnavailable: another one was opened before.
        """
        with self._guard:
            if self._identity is None:
                self._identity = self._look()
        self.require_same()

    def require_same(self) -> None:
        """Check before each transaction that the name still leads to the file; takes 2 us.

        Raises:
            IndexUnavailable: it does not.
        """
        if self._identity is None:
            return
        found = self._look()
        if found is None:
            raise IndexUnavailable("The index file is gone: put it back, or restart")
        if found != self._identity:
            raise IndexUnavailable("The index file was replaced: restart the archive")

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a Path costs as much as the call
        except OSError:
            return None
        return found.st_dev, found.st_ino
