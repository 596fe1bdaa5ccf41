"""Bring the schema of an index to the newest revision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from pacs.errors import IndexUnavailable, NoArchive
from pacs.index import revisions
from pacs.index.engine import Engine

if TYPE_CHECKING:
    from alembic.config import Config

#: Any number, the same in all releases: one process upgrades at a time.
_ADVISORY_LOCK = 4_100_831_147
#: Alembic's own table.
_VERSIONS = sa.table("alembic_version", sa.column("version_num", sa.String))


def upgrade(engine: Engine) -> None:
    """Run the missing migrations in one transaction; several processes may call this at once.

    The lock is the transaction: BEGIN IMMEDIATE in SQLite, an advisory lock in PostgreSQL. Whoever waited finds
    nothing left to do.

    Raises:
        IndexUnavailable: the database cannot be reached, or its schema is newer than this release.
    """
    if current(engine) == head():
        # Not worth the writer's turn, and a full volume is no reason not to open an index.
        return
    # Only now: to import Alembic takes longer than most commands work.
    from alembic import command  # noqa: PLC0415

    config = _config()
    with engine.write() as connection:
        if not engine.is_sqlite:
            _require_utf8(connection)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        _require_known(_revision(connection))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def check(engine: Engine) -> None:
    """Check that the schema is the one of this release.

    Raises:
        IndexUnavailable: it is not, or the database cannot be reached.
    """
    revision = current(engine)
    _require_known(revision)
    if revision != head():
        raise IndexUnavailable(
            f"The index has schema {revision or 'none'}, this release needs {head()}; "
            "run: pacs db upgrade"
        )


def require_existing(engine: Engine) -> None:
    """Check that there is an index, of whatever revision, and make nothing.

    Raises:
        NoArchive: there is none.
        IndexUnavailable: the database cannot be reached.
    """
    if current(engine) is None:
        raise NoArchive(
            f"there is no archive: {engine.description} has no index; see data_dir and database_url. "
            "To make one: pacs serve, pacs import or pacs db upgrade --make"
        )


def current(engine: Engine) -> str | None:
    """The schema revision of the index; None if it has no tables yet.

    Raises:
        IndexUnavailable: the database cannot be reached.
    """
    if not engine.may_have_tables:
        return None
    with engine.read() as connection:
        return _revision(connection)


def head() -> str:
    """The newest schema revision this release knows."""
    return revisions.newest()


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSIONS.name):
        return None
    return connection.execute(sa.select(_VERSIONS.c.version_num)).scalar_one_or_none()


def _require_known(revision: str | None) -> None:
    if revision is not None and revision not in revisions.chain():
        raise IndexUnavailable(
            f"The index has schema {revision}, which this release does not know; "
            "it was written by a newer one: upgrade pacs."
        )


def _require_utf8(connection: sa.Connection) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise IndexUnavailable(
            f"The database has encoding {encoding}; create it with ENCODING 'UTF8'."
        )


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - as in ``upgrade``

    config = Config()
    # A percent sign starts an interpolation in alembic's configuration.
    config.set_main_option("script_location", str(revisions.scripts()).replace("%", "%%"))
    return config
