"""Set a stored file aside: out of the archive's sight, not out of existence.

``<root>/quarantine/`` is for files that neither belong to the archive nor may be deleted without a person
having looked. A file keeps its name, so its time of receipt can still be read from it.
"""

from __future__ import annotations

from pathlib import Path

from pacs.storage.durability import DIRECTORY_MODE, sync_directory
from pacs.storage.faults import storage_faults
from pacs.storage.filesystem import FilesystemStorage

_DIRECTORY = "quarantine"


def quarantine(storage: FilesystemStorage, location: str) -> Path:
    """Move the file at a location into quarantine, durably; return where it is now.

    Raises:
        StorageUnavailable: the file is gone, or the storage cannot be written.
    """
    source = storage.path(location)
    directory = storage.root / _DIRECTORY
    target = directory / source.name
    with storage_faults(f"move {location} into quarantine"):
        directory.mkdir(DIRECTORY_MODE, exist_ok=True)
        sync_directory(storage.root)
        source.rename(target)
        # The new name first: a crash in between leaves the file under both or under the new one.
        sync_directory(directory)
        sync_directory(source.parent)
    return target
