"""Make small files durable together, a moment after they were acknowledged.

Theory of operation. To sync a file of 3 KB and the name it got takes longer than everything else that is done with it.
So the bytes of a small instance are written to the index in the transaction that indexes it, whose commit is on the
disk before the instance is acknowledged; the file itself gets its name and its content, but is not waited for. A
thread then syncs such files, many at a time, and removes the copies. After a power loss ``recover`` writes those
files again whose copy is still there. A process that is only killed leaves files that are sound and copies that are
superfluous.

Only one rule has to be kept by others: whoever removes an instance from the index, or lets its row point elsewhere,
removes the copy in the same transaction, before the file goes (``pacs.index``).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pacs.archive.mounted import require_files, require_own_storage
from pacs.archive.settler import Settler
from pacs.index.index import Index
from pacs.storage.storage import Storage

LOGGER = logging.getLogger(__name__)

_ROWS_IN_MEMORY = 50


class Redo(Settler):
    """The files of small instances whose copies are in the index; safe to share between threads."""

    def __init__(self, storage: Storage, index: Index) -> None:
        """Settle files of ``storage``, whose copies are in ``index``; starts no thread before there are any."""
        super().__init__(storage, self)
        self._index = index

    def recover(self) -> int:
        """Write the files again whose copies are in the index; return how many were lost or damaged.

        Any number of processes may do so at any time, also beside one that stores.

        Raises:
            StorageUnavailable: the storage is not that of the index, or holds nothing at all, as if its volume were
                not mounted.
            PacsError: storage or index fail; what is left is done by the next call.
        """
        locations = self._index.redo.locations()
        if locations:
            require_own_storage(self._storage, self._index)
            require_files(self._storage, self._index, len(locations))
        restored = 0
        for first in range(0, len(locations), _ROWS_IN_MEMORY):
            restored += self._restore(locations[first : first + _ROWS_IN_MEMORY])
        if restored:
            LOGGER.warning(
                "%d stored files written again that were lost before they were on the disk",
                restored,
            )
        return restored

    def restore(self, location: str) -> bool:
        """Write one file again from its copy, if there is one; return whether there was.

        Raises:
            PacsError: storage or index fail; the copy stays.
        """
        if not self._index.redo.read([location]):
            return False
        self._restore([location])
        return True

    def _restore(self, locations: Sequence[str]) -> int:
        """Write files from their copies, then remove the copies; return how many files were not sound."""
        rows = self._index.redo.read(locations)
        restored = sum(self._storage.restore(row.location, row.content) for row in rows)
        self._index.redo.remove([row.location for row in rows])
        for row in rows:
            if not self._index.is_location_indexed(row.location):
                # The instance was removed or replaced meanwhile, and its file before it came back, which may have
                # been there and sound when it was looked at.
                self._storage.remove(row.location)
        return restored

    def give_up(self, locations: Sequence[str]) -> None:
        """Remove the copies of files that are durable (``Copies``)."""
        self._index.redo.remove(locations)

    def write_again(self, locations: Sequence[str]) -> None:
        """Write files from their copies, then remove the copies (``Copies``)."""
        require_own_storage(self._storage, self._index)
        self._restore(locations)
