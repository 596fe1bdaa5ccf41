from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from pacs.errors import IndexUnavailable
from pacs.index import migrate
from pacs.index.engine import create
from pacs.index.index import Index


def set_revision(url: str, revision: str) -> None:
    engine = create(url)
    with engine.write() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    engine.close()


def test_upgrade_takes_an_empty_database_to_head_and_is_repeatable(
    empty_database_url: str,
) -> None:
    engine = create(empty_database_url)
    before = migrate.current(engine)

    migrate.upgrade(engine)
    migrate.upgrade(engine)

    assert before is None
    assert migrate.current(engine) == migrate.head()
    engine.close()


def test_upgrade_by_several_threads_at_once_is_safe(empty_database_url: str) -> None:
    engines = [create(empty_database_url) for _ in range(3)]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(migrate.upgrade, engines))

    assert migrate.current(engines[0]) == migrate.head()
    for engine in engines:
        engine.close()


def test_upgrade_by_two_processes_at_once_is_safe(empty_database_url: str) -> None:
    script = "import sys; from pacs.index.index import Index; Index.open(sys.argv[1]).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", script, empty_database_url]) for _ in range(2)
    ]

    assert [process.wait(60) for process in processes] == [0, 0]
    Index.open(empty_database_url, upgrade=False).close()


@pytest.mark.parametrize("upgrade", [True, False])
def test_open_index_of_a_newer_release_is_refused_in_one_line(
    database_url: str, upgrade: bool
) -> None:
    set_revision(database_url, "9999")

    with pytest.raises(IndexUnavailable, match=r"9999.*newer") as caught:
        Index.open(database_url, upgrade=upgrade)

    assert "\n" not in caught.value.message


@pytest.mark.postgres
@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_upgrade_database_in_another_encoding_is_refused(
    empty_database_url: str, postgres_server
) -> None:
    import sqlalchemy as sa

    name = sa.make_url(empty_database_url).database
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    admin.dispose()

    with pytest.raises(IndexUnavailable, match="UTF8"):
        Index.open(empty_database_url)
