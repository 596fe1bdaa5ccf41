"""A directory that belongs to one process while that lives, and to whoever comes first afterwards.

A process holds a lock (flock) on ``<root>/<name>.lock`` beside its directory ``<root>/<name>/``; the kernel drops the
lock with the process, however that ends. Two rules keep others away from a directory that is just being made: the lock
file comes before the directory and goes after it, and whoever has locked a file checks that it is still the one in the
directory, because somebody else may have removed it between opening and locking.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from pacs.storage.durability import DIRECTORY_MODE

_LOCK_SUFFIX = ".lock"
_LOCKS = "[0-9a-f]" * 16 + _LOCK_SUFFIX
_FILE_MODE = 0o640  # as DIRECTORY_MODE


class ProcessDirectory:
    """One such directory, held by this process. Its methods raise OSError."""

    def __init__(self, path: Path, lock: int) -> None:
        """Hold ``path`` by the descriptor of its locked lock file; ``make`` and ``claim_abandoned`` do that."""
        #: The directory; its name is random and does not come twice.
        self.path = path
        self._lock = lock

    @classmethod
    def make(cls, root: Path) -> Self:
        """Make a new one under ``root``, which is there."""
        while True:
            directory = root / secrets.token_hex(8)
            lock_path = _lock_path(directory)
            lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if _is_still_there(lock, lock_path):
                    directory.mkdir(DIRECTORY_MODE)
                    return cls(directory, lock)
            except BaseException:
                os.close(lock)
                raise
            # Somebody was faster than this process between open and flock: take another name.
            os.close(lock)

    @classmethod
    def claim_abandoned(cls, root: Path) -> Iterator[Self]:
        """Those under ``root`` whose process has ended, each held by this one now; the caller gives each one up."""
        for lock_path in sorted(root.glob(_LOCKS)):
            try:
                lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = _is_still_there(lock, lock_path)
            except BlockingIOError:
                is_ours = False
            if is_ours:
                yield cls(lock_path.with_suffix(""), lock)
            else:
                os.close(lock)

    def remove(self) -> None:
        """Remove the directory with all that is in it, then give up its name."""
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.path)
            _lock_path(self.path).unlink(missing_ok=True)
        finally:
            self.release()

    def release(self) -> None:
        """Leave it to whoever comes first; harmless a second time."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def has_other_owners(root: Path, own: ProcessDirectory | None) -> bool:
    """Whether another process holds a directory under ``root``."""
    own_lock = own and _lock_path(own.path)
    return any(_is_locked(one) for one in root.glob(_LOCKS) if one != own_lock)


def _is_locked(lock_path: Path) -> bool:
    try:
        lock = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _is_still_there(lock: int, lock_path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), lock_path.stat())
    except FileNotFoundError:
        return False


def _lock_path(directory: Path) -> Path:
    return directory.with_name(directory.name + _LOCK_SUFFIX)
