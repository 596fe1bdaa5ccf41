"""The archive: a storage and the index of what is in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pacs.archive.instance_log import InstanceLog
from pacs.archive.irregularities import Once
from pacs.archive.known_whole import KnownWhole
from pacs.archive.redo import Redo
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy
from pacs.storage.storage import Storage


@dataclass(frozen=True, slots=True)
class Archive:
    """What every use case works on. Shared by all threads; neither part has state of one request."""

    storage: Storage
    index: Index
    #: Has a thread, so an archive with another policy (``dataclasses.replace``) has the same one.
    redo: Redo
    duplicates: DuplicatePolicy = DuplicatePolicy.REPLACE
    #: Where instances are written before the index knows of them, if it follows them.
    log: InstanceLog | None = None
    #: Whether UIDs that are not of digits and dots, at most 64, are refused.
    strict_uids: bool = False
    #: What was said of irregular instances.
    said: Once = field(default_factory=Once)
    #: What need not be walked again before it is sent.
    whole: KnownWhole = field(default_factory=KnownWhole)

    def close(self) -> None:
        """Make everything durable, close the index and give up the spool."""
        if self.log is not None:
            self.log.close()
        self.redo.close()
        self.index.close()
        self.storage.spool.close()
