"""Tell a storage whose volume is not mounted from one that is merely new."""

from __future__ import annotations

from pacs.errors import StorageUnavailable
from pacs.index.index import Index
from pacs.storage.base import Storage


def require_files(storage: Storage, index: Index, copies: int = 0) -> None:
    """Check that the storage is not empty while the index has instances.

    What is done to such an archive does harm: a repair would empty the index, and instances received would go to the
    disk below the mount point, to be hidden by the volume once it is there.

    Args:
        storage: Where the files should be.
        index: What they are known by.
        copies: So many of the instances have their bytes in the index.

    Raises:
        StorageUnavailable: it is.
    """
    if next(iter(storage.files()), None) is None and index.stats().instances > copies:
        raise StorageUnavailable(
            "The storage holds no file, but the index has instances: is the volume mounted? "
            "Nothing was changed"
        )
