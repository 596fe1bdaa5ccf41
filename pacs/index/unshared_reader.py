"""Read an SQLite index on a volume that takes no more, or nothing at all.

In WAL mode even a reader needs the files ``-wal`` and ``-shm``, which SQLite removes with the last connection: on a
volume that is full or read-only they cannot be made. What is committed is then all in the main file, and nobody can
write to it, so it can be read as one that does not change. As soon as somebody can write that is no longer so:
such a connection is used for one transaction only, and the next one begins with the attempt to share the file.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import sqlalchemy as sa

LOGGER = logging.getLogger(__name__)

#: Neither the log nor the index to it can be made, or locked.
_NO_ROOM_TO_SHARE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_READONLY_CANTINIT,
        sqlite3.SQLITE_READONLY_CANTLOCK,
        sqlite3.SQLITE_READONLY_DIRECTORY,
        sqlite3.SQLITE_READONLY_RECOVERY,
    }
)
_UNSHARED = "unshared"


def connect_reader(
    dialect: sa.Dialect, record: Any, arguments: Any, named: dict[str, Any]
) -> sqlite3.Connection:
    """Open a connection for reading: shared with writers, or of a file that nobody can write to.

    Raises:
        sqlite3.Error: neither is possible.
    """
    connection = cast("sqlite3.Connection", dialect.connect(*arguments, **named))
    try:
        # Opening reads nothing.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        path = Path(arguments[0])
        if error.sqlite_errorcode not in _NO_ROOM_TO_SHARE or _has_log(path):
            raise
        _warn_once(str(path), str(error))
        record.info[_UNSHARED] = True
        uri = f"file:{quote(str(path.absolute()))}?immutable=1"
        return cast("sqlite3.Connection", dialect.connect(uri, **(named | {"uri": True})))
    return connection


@functools.cache
def _warn_once(path: str, reason: str) -> None:
    LOGGER.warning("%s can only be read: its volume is full or read-only (%s)", path, reason)


def forget_unshared(_connection: object, record: Any) -> None:
    """Close a connection that does not see what others write, when it is given back to its pool."""
    if record.info.get(_UNSHARED):
        record.invalidate()


def _has_log(path: Path) -> bool:
    """Whether there may be commits that are not in the main file."""
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0
