"""Tell the storage of an index from another one, and one whose volume is not mounted from one that is merely new.

A storage has an identity in a file of its own, which its copies have too, and the index knows it from the first start
with both. So nothing is taken out of the index, and nothing that only the index has is written out, on the word of
a storage that belongs to another archive, or of an empty mount point.
"""

from __future__ import annotations

from pacs.errors import StorageUnavailable
from pacs.index.index import Index
from pacs.storage.storage import Storage


def require_own_storage(storage: Storage, index: Index) -> None:
    """Check that the storage is the one that the index knows, if it knows one; changes nothing.

    Raises:
        StorageUnavailable: it is another one, or has no identity, as an empty mount point has none.
        IndexUnavailable: the index cannot be read.
    """
    known = index.storage_identity()
    if known is None:
        return
    found = storage.identity()
    if found == known:
        return
    what = (
        "has no file storage-id: is the volume mounted?"
        if found is None
        else "belongs to another index: is storage_url right?"
    )
    raise StorageUnavailable(
        f"The storage {storage.description} {what} Nothing was changed; "
        "if it is meant to be the storage of this index: pacs db accept-storage"
    )


def learn_storage(storage: Storage, index: Index) -> None:
    """Let the index know its storage, if it knows none yet; gives the storage an identity, if it has none.

    Raises:
        StorageFull, StorageUnavailable: the storage has none, and cannot be written; or it holds nothing.
        IndexUnavailable: the index cannot be written.
    """
    if index.storage_identity() is None:
        require_files(storage, index)
        index.set_storage_identity(storage.make_identity())
        # Another process may have been faster, on another storage.
        require_own_storage(storage, index)


def accept_storage(storage: Storage, index: Index) -> str:
    """Let the index know this storage instead of the one it knows; return the identity.

    Raises:
        StorageFull, StorageUnavailable, IndexUnavailable: nothing was changed in the index; also if the storage holds
            nothing while there are instances.
    """
    require_files(storage, index)
    identity = storage.make_identity()
    index.set_storage_identity(identity, replace=True)
    return identity


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
