"""Real failures for the tests: an index that does not answer, a disk that takes no more."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import sqlalchemy as sa


@contextmanager
def index_outage(database_url: str) -> Iterator[None]:
    """Take the database away: PostgreSQL ends all connections and refuses new ones, SQLite loses two
    tables."""
    url = sa.make_url(database_url)
    if url.get_backend_name() == "sqlite":
        _rename(url, "{0}", "{0}_away")
        try:
            yield
        finally:
            _rename(url, "{0}_away", "{0}")
        return
    _postgres(url, "ALTER DATABASE {} ALLOW_CONNECTIONS false")
    _postgres(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'")
    try:
        yield
    finally:
        _postgres(url, "ALTER DATABASE {} ALLOW_CONNECTIONS true")


@contextmanager
def index_standstill(database_url: str) -> Iterator[None]:
    """Let the database take for ever over every query that needs a study: a lock, or a view without an end."""
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite":
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            connection.execute("LOCK TABLE study IN ACCESS EXCLUSIVE MODE")
            yield
        return
    endless = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    )
    _rename(url, "{0}", "{0}_away")
    with closing(sqlite3.connect(str(url.database), timeout=5)) as connection:
        for table in ("study", "instance"):
            connection.execute(
                f"CREATE VIEW {table} AS SELECT * FROM {table}_away WHERE ({endless}) > 0"
            )
        connection.commit()
    try:
        yield
    finally:
        with closing(sqlite3.connect(str(url.database), timeout=5)) as connection:
            for table in ("study", "instance"):
                connection.execute(f"DROP VIEW {table}")
            connection.commit()
        _rename(url, "{0}_away", "{0}")


def _rename(url: sa.URL, before: str, after: str) -> None:
    with closing(sqlite3.connect(str(url.database), timeout=5, isolation_level=None)) as connection:
        # Otherwise a rename follows into the views, triggers and references of other tables.
        connection.execute("PRAGMA legacy_alter_table = ON")
        connection.execute("BEGIN IMMEDIATE")
        for table in ("study", "instance"):
            connection.execute(
                f"ALTER TABLE {before.format(table)} RENAME TO {after.format(table)}"
            )
        connection.execute("COMMIT")


def _postgres(url: sa.URL, statement: str) -> None:
    maintenance = url.set(drivername="postgresql", database="postgres")
    plain = maintenance.render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement.format(url.database).encode())


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond a size: what a full disk looks like to a writer (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def index_locked(database_url: str, table: str = "retrieve") -> Iterator[None]:
    """Keep every writer out, as another program does that holds SQLite's lock, or a table of PostgreSQL."""
    url = sa.make_url(database_url)
    if url.get_backend_name() != "sqlite":
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain) as connection:
            connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE".encode())
            yield
        return
    with closing(sqlite3.connect(str(url.database), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
