"""Files and directories that outlast a power loss: a new name is durable once the directory that has it is synced."""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

#: Patient data: for the archive's user, and for a group that an operator may give to a backup.
DIRECTORY_MODE = 0o750


def make_directories(path: Path) -> None:
    """Make a directory, and those above it that are missing, durably."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir(DIRECTORY_MODE)
        sync_directory(one.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on stable storage."""
    sync(directory, os.O_RDONLY | os.O_DIRECTORY)


def sync(path: Path, flags: int = os.O_RDONLY) -> None:
    """Put a file or directory on stable storage."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# SYNC_FILE_RANGE_WRITE of Linux; Python has no name for the call.
_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writeback(descriptor: int) -> None:
    """Have the disk begin to write what a file holds, without waiting; promises nothing, only saves time."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _WRITE)
