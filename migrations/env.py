"""Alembic's environment.

``pacs`` passes an open connection, already in a transaction that it commits. The bare ``alembic`` command takes
the database from ``PACS_DATABASE_URL`` or from ``sqlalchemy.url`` in alembic.ini. The migrations themselves
are frozen text; only autogenerate looks at ``pacs.index.tables``.
"""

import os

import sqlalchemy as sa
from alembic import context

from pacs.index.engine import create
from pacs.index.tables import metadata

# A migration that cannot get its lock gives up instead of queueing everybody behind it.
_TIMEOUTS = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '30min'"


def _run(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_TIMEOUTS)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        # SQLite cannot alter a table: alembic copies it into a new one.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_from_command_line() -> None:
    url = os.environ.get("PACS_DATABASE_URL") or context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("set PACS_DATABASE_URL, or sqlalchemy.url in alembic.ini")
    engine = create(url)
    try:
        with engine.write() as connection:
            _run(connection)
    finally:
        engine.close()


if context.is_offline_mode():
    raise SystemExit("the migrations need a database; --sql is not supported")
_connection = context.config.attributes.get("connection")
if _connection is not None:
    _run(_connection)
else:
    _run_from_command_line()
