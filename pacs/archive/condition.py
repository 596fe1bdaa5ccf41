"""Whether a stored file is there, and is what its row says."""

from __future__ import annotations

import errno
from enum import Enum

from pacs.archive.stored_files import digest_of
from pacs.errors import StorageUnavailable
from pacs.index.records import InstanceLocation, StoredInstance
from pacs.storage.faults import is_missing
from pacs.storage.filesystem import FilesystemStorage

#: The process lacks something, which says nothing about the file.
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Condition(Enum):
    """What a stored file is like."""

    SOUND = "sound"
    LOST = "lost"
    #: It cannot be read, or has another size or SHA-256 than its row says.
    DAMAGED = "damaged"


def condition_of(
    storage: FilesystemStorage, stored: StoredInstance | InstanceLocation
) -> Condition:
    """Read a stored file to its end and compare it with its row.

    Raises:
        StorageUnavailable: this process cannot open another file, so nothing is known.
    """
    try:
        with storage.open(stored.location) as stream:
            is_same = digest_of(stream, stored.data_set_offset) == stored.digest
    except StorageUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OUR_OWN:
            raise
        return Condition.LOST if is_missing(error) else Condition.DAMAGED
    return Condition.SOUND if is_same else Condition.DAMAGED
