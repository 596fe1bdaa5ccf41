"""The archive: a storage and the index of what is in it."""

from __future__ import annotations

from dataclasses import dataclass

from pacs.archive.redo import Redo
from pacs.index.index import Index
from pacs.index.records import DuplicatePolicy
from pacs.storage.filesystem import FilesystemStorage


@dataclass(frozen=True, slots=True)
class Archive:
    """What every use case works on. Shared by all threads; neither part has state of one request."""

    storage: FilesystemStorage
    index: Index
    #: Has a thread, so an archive with another policy (``dataclasses.replace``) has the same one.
    redo: Redo
    duplicates: DuplicatePolicy = DuplicatePolicy.REPLACE

    def close(self) -> None:
        """Make everything durable, close the index and give up the spool."""
        self.redo.close()
        self.index.close()
        self.storage.spool.close()
