"""Operating system errors in the words of the domain: the one place where the storage translates them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from pacs.errors import StorageFull, StorageUnavailable

# EFBIG is a limit on the size of one file (RLIMIT_FSIZE, or the file system's own).
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def storage_faults(action: str) -> Iterator[None]:
    """Raise what the operating system refuses as ``StorageFull`` or ``StorageUnavailable``."""
    try:
        yield
    except OSError as error:
        reason = f"Cannot {action}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StorageFull(reason) from error
        raise StorageUnavailable(reason) from error
