"""Operating system errors in the words of the domain: the one place where the storage translates them."""

from __future__ import annotations

import errno
from types import TracebackType

from pacs.errors import StorageFull, StorageUnavailable

# EFBIG is a limit on the size of one file (RLIMIT_FSIZE, or the file system's own).
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class storage_faults:  # noqa: N801 - used like a function; one made of a generator takes five times as long
    """Raise what the operating system refuses as ``StorageFull`` or ``StorageUnavailable``."""

    __slots__ = ("_action",)

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, OSError):
            return
        reason = f"Cannot {self._action}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StorageFull(reason) from error
        raise StorageUnavailable(reason) from error


def is_missing(error: StorageUnavailable) -> bool:
    """Whether the file is not there, rather than unreadable."""
    return isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError))
