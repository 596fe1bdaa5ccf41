"""The rows of the known remote AEs, and a way to read them without SQLAlchemy.

``pacs ae list`` and every command that calls a registered AE need these few rows and nothing else of the index; to
import SQLAlchemy takes longer than all they do.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import fields
from typing import Any
from urllib.parse import quote

from pacs.index import revisions
from pacs.model.remote_ae import RemoteAE, Service

#: Columns and fields have the same names.
COLUMNS = tuple(field.name for field in fields(RemoteAE))
_ROWS = f"SELECT {', '.join(COLUMNS)} FROM remote_ae ORDER BY title"  # noqa: S608 - our own names
_REVISION = "SELECT version_num FROM alembic_version"
_CONNECT_TIMEOUT_SECONDS = 10
_SQLITE = "sqlite:///"


def remote_ae(row: Sequence[Any]) -> RemoteAE:
    """The remote AE of a row that has ``COLUMNS``."""
    values = dict(zip(COLUMNS, row, strict=True))
    destinations = values["destinations"]
    return RemoteAE(
        **values
        | {
            "services": frozenset(Service(name) for name in json.loads(values["services"])),
            "destinations": None if destinations is None else frozenset(json.loads(destinations)),
            "tls": bool(values["tls"]),
        }
    )


def read(database_url: str) -> list[RemoteAE] | None:
    """The remote AEs of the index at ``database_url``, by title; makes and changes nothing.

    None if they cannot be read so, for whatever reason: another schema, no index, a database that is busy or away.
    ``Index.open`` then does what has to be done, or says what is wrong.
    """
    reading = _sqlite if database_url.startswith(_SQLITE) else _postgres
    found = reading(database_url)
    if found is None:
        return None
    revision, rows = found
    return [remote_ae(row) for row in rows] if revision == [(revisions.newest(),)] else None


_Found = tuple[list[tuple[Any, ...]], Iterable[tuple[Any, ...]]] | None


def _sqlite(database_url: str) -> _Found:
    path = database_url.removeprefix(_SQLITE)
    if "?" in path:
        return None
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
            return (
                connection.execute(_REVISION).fetchall(),
                connection.execute(_ROWS).fetchall(),
            )
    except sqlite3.Error:
        return None


def _postgres(database_url: str) -> _Found:
    import psycopg  # noqa: PLC0415 - an SQLite index needs none of it

    address = "postgresql://" + database_url.partition("://")[2]
    try:
        with psycopg.connect(
            address, connect_timeout=_CONNECT_TIMEOUT_SECONDS, client_encoding="utf8"
        ) as connection:
            return (
                connection.execute(_REVISION).fetchall(),
                connection.execute(_ROWS.encode()).fetchall(),
            )
    except psycopg.Error:
        return None
