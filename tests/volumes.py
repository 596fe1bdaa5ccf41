"""Small file systems that a test fills up, takes away and brings back; skips where nothing can be mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Volume:
    """A tmpfs, and the place where it is mounted for the archive."""

    #: Always there.
    contents: Path
    mount_point: Path

    def mount(self) -> None:
        """Show it at its mount point."""
        _mount("--bind", str(self.contents), str(self.mount_point))

    def unmount(self) -> None:
        """Take it away, also from processes that have files of it open."""
        _run("umount", "-l", str(self.mount_point))

    def files(self, pattern: str) -> list[Path]:
        """The files whose name matches, wherever they are."""
        return sorted(self.contents.rglob(pattern))

    @contextmanager
    def without_space(self) -> Iterator[None]:
        """Leave it not one block."""
        filler = self.contents / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        yield
        filler.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written at its mount point."""
        _mount("-o", "remount,bind,ro", str(self.mount_point))
        yield
        _mount("-o", "remount,bind,rw", str(self.mount_point))

    @contextmanager
    def without_inodes(self) -> Iterator[None]:
        """Leave it not one name for another file."""
        fillers = []
        with suppress(OSError):
            while True:
                filler = self.contents / f"filler-{len(fillers)}"
                filler.touch()
                fillers.append(filler)
        yield
        for filler in fillers:
            filler.unlink()


@contextmanager
def small_volume(directory: Path) -> Iterator[Volume]:
    """A volume of 4 MiB and 200 inodes, mounted; all of it goes with the context."""
    volume = Volume(directory / "contents", directory / "volume")
    for path in (volume.contents, volume.mount_point):
        path.mkdir()
    if os.geteuid() != 0 or os.uname().sysname != "Linux":
        pytest.skip("only root can mount, and only Linux has tmpfs")
    options = "size=4m,nr_inodes=200"
    if _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(volume.contents)).returncode:
        pytest.skip("this system lets nobody mount a tmpfs")
    try:
        volume.mount()
        yield volume
    finally:
        while os.path.ismount(volume.mount_point):
            volume.unmount()
        _run("umount", "-l", str(volume.contents))


def _mount(*arguments: str) -> None:
    completed = _run("mount", *arguments)
    assert completed.returncode == 0, completed.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
