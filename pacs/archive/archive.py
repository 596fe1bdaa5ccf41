"""The archive: a storage and the index of what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pacs.archive.redo import Redo
from pacs.index.index import Index
from pacs.index.records import DuplicatePolicy
from pacs.storage.filesystem import FilesystemStorage


@dataclass(frozen=True, slots=True)
class Archive:
    """What every use case works on. Shared by all threads; neither part has state of one request."""

    storage: FilesystemStorage
    index: Index
    duplicates: DuplicatePolicy = DuplicatePolicy.REPLACE
    redo: Redo = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "redo", Redo(self.storage, self.index))

    def close(self) -> None:
        """Make everything durable, close the index and give up the spool."""
        self.redo.close()
        self.index.close()
        self.storage.spool.close()
