"""Where the archives of one run keep their data.

On ext4, making a file is up to 70 times slower (0.7 instead of 0.01 ms) for some minutes after thousands of files
were deleted in the same block group, because the allocator skips inodes that were freed just before. So nothing is
deleted during a run, each archive gets a directory in a block group of its own where the file system can do that,
and the cost of making a file there is measured before the archive starts.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Above this median, something else than the archive decides how fast it stores.
SLOW_MILLISECONDS = 0.1
_HEADER_PROBES = 200
_PROBES = 40
_TRIES = 8

#: ioctl numbers and the flag of ``chattr +T`` from <linux/fs.h>.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000


class Scratch:
    """A directory that only grows, until the run is over."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, which is new."""
        self.root = root
        self._count = 0
        _spread(root)
        #: Median milliseconds for making a file here.
        self.creation_milliseconds = _creation_milliseconds(self._new("probe"), _HEADER_PROBES)

    def _new(self, name: str) -> Path:
        self._count += 1
        directory = self.root / f"{self._count:04d}-{name}"
        directory.mkdir()
        return directory

    def directory(self, name: str) -> Path:
        """A new directory in which files are made quickly, if there is one."""
        place = re.sub(r"\W+", "-", name)
        for _ in range(_TRIES):
            directory = self._new(place)
            probes = directory / "probe"
            probes.mkdir()
            if _creation_milliseconds(probes, _PROBES) <= SLOW_MILLISECONDS:
                break
        return directory


@contextmanager
def scratch(parent: Path | None) -> Iterator[Scratch]:
    """A new directory below ``parent``; removed with all that is in it at the very end."""
    # Not below a long path: that of a Unix socket is limited to about 100 bytes.
    root = Path(tempfile.mkdtemp(prefix="pacs-wire-", dir=parent))
    try:
        yield Scratch(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _spread(directory: Path) -> None:
    """Have its subdirectories put into different block groups, as far as the file system can."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):
            flags = struct.unpack(
                "l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, struct.pack("l", 0))
            )[0]
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("l", flags | _FS_TOPDIR_FL))
    finally:
        os.close(descriptor)


def _creation_milliseconds(directory: Path, count: int) -> float:
    taken = []
    for number in range(count):
        started = time.perf_counter()
        descriptor = os.open(directory / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        taken.append(time.perf_counter() - started)
        os.close(descriptor)
    return statistics.median(taken) * 1000
