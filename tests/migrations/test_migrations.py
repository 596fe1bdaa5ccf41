"""The migrated schema is the one of ``pacs.index.tables``; each revision goes up and down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from pacs.index.engine import Engine, create
from pacs.index.index import Index
from pacs.index.tables import metadata
from pacs.model.remote_ae import Service

ROOT = Path(__file__).resolve().parents[2]


def run(engine: Engine, step: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    with engine.write() as connection:
        config.attributes["connection"] = connection
        step(config, revision)


def index_text(index: Any) -> str:
    # The WHERE of a partial index is an expression, whose repr is its address.
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def schema(connection: sa.Connection) -> dict[str, Any]:
    """What the database says about its tables, in comparable form."""
    inspector = sa.inspect(connection)
    found: dict[str, Any] = {}
    for table in sorted(set(inspector.get_table_names()) - {"alembic_version"}):
        columns = [
            (
                column["name"],
                str(column["type"]),
                getattr(column["type"], "collation", None),
                column["nullable"],
            )
            for column in inspector.get_columns(table)
        ]
        found[table] = {
            # A column that was added later stands last.
            "columns": sorted(columns, key=str),
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "foreign keys": sorted(map(str, inspector.get_foreign_keys(table))),
            "indexes": sorted(map(index_text, inspector.get_indexes(table))),
        }
    if connection.dialect.name == "sqlite":
        statement = (
            "SELECT name, sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE type = 'table'"
        )
    else:
        statement = (
            "SELECT table_name || column_name, identity_generation "
            "FROM information_schema.columns WHERE is_identity = 'YES'"
        )
    generated = connection.exec_driver_sql(statement)
    found["generated keys"] = sorted(tuple(r) for r in generated if r[0] != "alembic_version")
    return found


def test_migrated_schema_equals_the_tables(empty_database_url: str) -> None:
    engine = create(empty_database_url)
    with engine.write() as connection:
        metadata.create_all(connection)
        created = schema(connection)
        metadata.drop_all(connection)

    run(engine, command.upgrade, "head")

    with engine.read() as connection:
        assert schema(connection) == created
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": False}
        )
        assert compare_metadata(context, metadata) == []
    engine.close()


@pytest.mark.postgres
@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_migrated_text_columns_are_compared_by_bytes(empty_database_url: str) -> None:
    engine = create(empty_database_url)
    run(engine, command.upgrade, "head")

    with engine.read() as connection:
        others = connection.exec_driver_sql(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name <> 'alembic_version' "
            "AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        ).all()

    assert others == []
    engine.close()


def test_downgrade_to_base_and_up_again(empty_database_url: str, tmp_path: Path) -> None:
    engine = create(empty_database_url)
    run(engine, command.upgrade, "head")

    run(engine, command.downgrade, "base")
    with engine.read() as connection:
        left = set(sa.inspect(connection).get_table_names())
    run(engine, command.upgrade, "head")

    assert left == {"alembic_version"}
    engine.close()
    Index.open(empty_database_url, upgrade=False).close()


def test_failed_upgrade_leaves_the_database_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create(empty_database_url)

    def upgrade_and_fail(config: Config, revision: str) -> None:
        command.upgrade(config, revision)
        raise RuntimeError("the plug was pulled")

    with pytest.raises(RuntimeError):
        run(engine, upgrade_and_fail, "head")

    with engine.read() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.close()


def test_migrations_do_not_import_the_tables() -> None:
    for path in (ROOT / "migrations" / "versions").glob("*.py"):
        assert "import pacs" not in path.read_text()
        assert "from pacs" not in path.read_text()


def test_alembic_command_takes_the_database_from_the_environment(empty_database_url: str) -> None:
    environ = os.environ | {"PACS_DATABASE_URL": empty_database_url}

    for arguments in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    Index.open(empty_database_url, upgrade=False).close()


def test_upgrade_lets_an_ae_that_might_do_everything_ask_for_storage_commitment(
    empty_database_url: str,
) -> None:
    engine = create(empty_database_url)
    run(engine, command.upgrade, "0002")
    register = (
        "INSERT INTO remote_ae"
        " (title, host, port, services, tls, parallel_associations, description)"
        " VALUES ('{}', 'localhost', 104, '{}', false, 1, '')"
    )
    with engine.write() as connection:
        connection.exec_driver_sql(
            register.format("EVERYTHING", '["echo", "find", "get", "move", "store"]')
        )
        connection.exec_driver_sql(register.format("SENDER", '["echo", "store"]'))
    engine.close()

    with closing(Index.open(empty_database_url)) as index:
        may = {remote.title: remote.services for remote in index.remote_aes.all()}

    assert may == {
        "EVERYTHING": frozenset(Service),
        "SENDER": frozenset({Service.ECHO, Service.STORE}),
    }
