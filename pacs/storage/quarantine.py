"""Set a stored file aside: out of the archive's sight, not out of existence.

``<root>/quarantine/`` is for files that neither belong to the archive nor may be deleted without a person
having looked. A file keeps its name, so its time of receipt can still be read from it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pacs.storage.faults import storage_faults
from pacs.storage.filesystem import FilesystemStorage

_DIRECTORY = "quarantine"
_DIRECTORY_MODE = 0o750


def quarantine(storage: FilesystemStorage, location: str) -> Path:
    """Move the file at a location into quarantine, durably; return where it is now.

    Raises:
        StorageUnavailable: the file is gone, or the storage cannot be written.
    """
    source = storage.path(location)
    directory = storage.root / _DIRECTORY
    target = directory / source.name
    with storage_faults(f"move {location} into quarantine"):
        directory.mkdir(_DIRECTORY_MODE, exist_ok=True)
        _sync(storage.root)
        source.rename(target)
        # The new name first: a crash in between leaves the file under both or under the new one.
        _sync(directory)
        _sync(source.parent)
    return target


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
