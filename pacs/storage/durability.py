"""Files and directories that outlast a power loss: a new name is durable once the directory that has it is synced."""

from __future__ import annotations

import ctypes
import errno
import os
import re
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


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is not there yet, and put its bytes on stable storage."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of it: a full disk or a signal may cut a write short."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def take_name(source: Path, target: Path) -> None:
    """Give a file another name as well, unless a file with content has it; whoever comes first keeps it."""
    try:
        os.link(source, target)
    except FileExistsError:
        if target.stat().st_size == 0:  # left by a power loss
            source.replace(target)
    except OSError:
        # A file system without links; two that come at once are told apart by who reads the name next.
        if not target.exists():
            source.replace(target)


# SYNC_FILE_RANGE_WRITE of Linux; Python has no name for the call.
_WRITE = 2
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
# Others may take syncfs() for a hint (those in user space do) or cannot be told from their device number.
_SYNCED_AS_A_WHOLE = frozenset({"ext3", "ext4", "xfs", "f2fs"})
# Before, syncfs() did not report all of what could not be written.
_MINIMUM_LINUX = (5, 17)


def can_sync_file_system(directory: Path) -> bool:
    """Whether ``sync_file_system`` does here what ``sync`` does, errors included."""
    system = os.uname()
    version = tuple(int(part) for part in re.findall(r"[0-9]+", system.release)[:2])
    if _syncfs is None or system.sysname != "Linux" or version < _MINIMUM_LINUX:
        return False
    return _file_system_of(directory) in _SYNCED_AS_A_WHOLE


def _file_system_of(directory: Path) -> str:
    """The type of a directory's file system (proc(5), ``/proc/self/mountinfo``); empty if it is not listed."""
    device = directory.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, details = line.partition(" - ")
            if mount.split()[2] == number:
                return details.split()[0]
    return ""


def sync_file_system(descriptor: int) -> None:
    """Put everything in the file system of an open file on stable storage: of many files, the fastest way.

    Raises:
        OSError: something could not be written since the descriptor was opened, or since it was told so last.
    """
    assert _syncfs is not None
    if _syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_writeback(descriptor: int) -> None:
    """Have the disk begin to write what a file holds, without waiting; promises nothing, only saves time."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _WRITE)
