from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.errors import IndexUnavailable, InvalidSetting, PacsError
from pacs.index import engine as engine_module
from pacs.index import tables
from pacs.index.engine import Attempt, Engine, StaleState, create
from pacs.index.index import Index
from pacs.model.instances import IngestOutcome


@pytest.fixture
def engine(database_url: str):
    made = create(database_url)
    yield made
    made.close()


def put_state(connection: sa.Connection, name: str, value: str = "x") -> None:
    connection.execute(sa.insert(tables.archive_state), {"name": name, "value": value})


def states(engine: Engine) -> set[str]:
    with engine.read() as connection:
        return set(connection.scalars(sa.select(tables.archive_state.c.name)))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://pacs:hunter2@db/pacs",
        "postgresql+asyncpg://pacs:hunter2@db/pacs",
        "postgresql://pacs:hunter2@db:port/pacs",
        "pacs:hunter2",
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite://index.sqlite",
    ],
)
def test_create_unusable_url_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        create(url)

    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_create_accepts_the_usual_spellings_of_postgresql(scheme: str) -> None:
    engine = create(f"{scheme}://pacs:hunter2@db/pacs")

    assert engine.backend == "postgresql"
    assert engine.description == "postgresql+psycopg://pacs:***@db/pacs"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////nowhere/at/all/index.sqlite",
        "postgresql://pacs:hunter2@localhost/pacs?host=/nowhere/at/all",
    ],
)
def test_open_unreachable_database_is_unavailable_in_one_line(url: str) -> None:
    with pytest.raises(IndexUnavailable) as caught:
        Index.open(url)

    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message
    assert isinstance(caught.value.__cause__, sa.exc.DBAPIError)


def test_open_unknown_connection_option_is_an_invalid_setting() -> None:
    with pytest.raises(InvalidSetting, match="no_such_option"):
        Index.open("postgresql://pacs@localhost/pacs?no_such_option=1")


def test_open_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"something else entirely, and long enough to have a header" * 50)

    with pytest.raises(IndexUnavailable, match="not a database"):
        Index.open(f"sqlite:///{path}")


def test_read_database_without_tables_says_so(empty_database_url: str) -> None:
    engine = create(empty_database_url)

    with pytest.raises(IndexUnavailable, match="upgrade"):
        states(engine)

    engine.close()


def test_read_cannot_write(engine: Engine) -> None:
    with pytest.raises(PacsError), engine.read() as connection:
        put_state(connection, "x")


def test_write_that_fails_leaves_nothing(engine: Engine) -> None:
    def fail() -> None:
        with engine.write() as connection:
            put_state(connection, "half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert "half" not in states(engine)


def test_sqlite_commit_is_durable_and_concurrent(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "index.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    engine = create(f"sqlite:///{path}")

    with engine.write() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    engine.close()
    assert settings == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 20_000,
    }


def test_sqlite_locked_by_another_program_is_unavailable(
    tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_LOCK_TIMEOUT_SECONDS", 0.2)
    path = tmp_path / "index.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    engine = create(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(IndexUnavailable, match="locked"):
        engine.transact(lambda connection: put_state(connection, "x"))
    other.execute("ROLLBACK")
    other.close()
    engine.transact(lambda connection: put_state(connection, "x"))

    assert "x" in states(engine)
    engine.close()


@pytest.fixture
def hurried_engine(database_url: str, monkeypatch: pytest.MonkeyPatch):
    """Does not wait long for others."""
    monkeypatch.setattr(engine_module, "_LOCK_TIMEOUT_SECONDS", 1)
    made = create(database_url)
    yield made
    made.close()


def test_attempt_that_waited_for_another_program_is_unavailable_at_once(
    hurried_engine: Engine, engine: Engine
) -> None:
    # Were the attempt merely to fail, its caller would wait in ``transact`` as long again.
    def insert(cursor: Any) -> bool:
        cursor.execute("DELETE FROM archive_state WHERE name = 'x'")
        return True

    with engine.write() as other:
        if not engine.is_sqlite:
            other.exec_driver_sql("LOCK TABLE archive_state")
        with pytest.raises(IndexUnavailable, match="lock") as caught:
            hurried_engine.attempt(insert)

    assert not caught.value.may_have_committed
    assert hurried_engine.attempt(insert) is Attempt.COMMITTED


@pytest.mark.parametrize("way", ["attempt", "transact"])
def test_writer_that_has_waited_already_waits_only_for_the_rest(
    database_url: str, engine: Engine, way: str
) -> None:
    waiting = create(database_url)
    before = time.monotonic() - 19.9  # of 20 s

    def insert(cursor: Any) -> bool:
        cursor.execute("DELETE FROM archive_state WHERE name = 'x'")
        return True

    def write() -> object:
        if way == "attempt":
            return waiting.attempt(insert, since=before)
        return waiting.transact(lambda connection: put_state(connection, "x"), since=before)

    with engine.write() as other:
        if not engine.is_sqlite:
            other.exec_driver_sql("LOCK TABLE archive_state")
        began = time.monotonic()
        with pytest.raises(IndexUnavailable, match="lock"):
            write()
        assert time.monotonic() - began < 10

    write()
    if engine.is_sqlite:
        with waiting.write() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 20_000
    waiting.close()


def test_attempt_that_waited_for_a_connection_is_unavailable_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = engine._writers.pool
    held = [engine._writers.connect() for _ in range(pool.size() + pool._max_overflow)]
    monkeypatch.setattr(pool, "_timeout", 0.1)

    with pytest.raises(IndexUnavailable, match="in use"):
        engine.attempt(lambda _: True)

    for connection in held:
        connection.close()


def test_transact_runs_again_when_a_race_is_lost(engine: Engine) -> None:
    attempts = []

    def work(connection: sa.Connection) -> str:
        attempts.append(1)
        put_state(connection, f"attempt {len(attempts)}")
        if len(attempts) < 3:
            raise StaleState
        return "done"

    assert engine.transact(work) == "done"
    assert {name for name in states(engine) if name.startswith("attempt")} == {"attempt 3"}


def test_transact_gives_up_after_a_bounded_number_of_races(engine: Engine) -> None:
    attempts = []

    def work(_connection: sa.Connection) -> None:
        attempts.append(1)
        raise StaleState

    with pytest.raises(IndexUnavailable) as caught:
        engine.transact(work)

    assert len(attempts) == 10
    assert not caught.value.may_have_committed


def test_transact_value_the_database_refuses_is_not_an_outage(engine: Engine) -> None:
    # PostgreSQL takes no NUL; the value itself must not be in the message.
    for text in ("secret\ud800",) if engine.is_sqlite else ("secret\ud800", "secret\0"):
        with pytest.raises(PacsError) as caught:
            engine.transact(lambda connection, text=text: put_state(connection, text))
        assert not isinstance(caught.value, IndexUnavailable)
        assert "secret" not in caught.value.message


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_transact_deadlock_is_run_again(engine: Engine) -> None:
    engine.transact(lambda connection: [put_state(connection, name) for name in "ab"])
    barrier = threading.Barrier(2)

    def cross(first: str, second: str) -> None:
        tries = []

        def work(connection: sa.Connection) -> None:
            tries.append(1)
            for name in (first, second):
                state = tables.archive_state
                connection.execute(
                    sa.update(state).where(state.c.name == name).values(value=state.c.value + "+")
                )
                if len(tries) == 1 and name == first:
                    barrier.wait(10)

        engine.transact(work)

    threads = [threading.Thread(target=cross, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    with engine.read() as connection:
        values = connection.execute(
            sa.select(tables.archive_state.c.value).where(
                tables.archive_state.c.name.in_(["a", "b"])
            )
        )
        assert [value for (value,) in values] == ["x++", "x++"]


def terminate_backends(engine: Engine, postgres_server: sa.URL) -> None:
    admin = sa.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": engine._url.database},
        )
    admin.dispose()


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_next_call_works_after_the_database_restarted(
    index: Index, postgres_server: sa.URL, make_record
) -> None:
    index.ingest(make_record())
    index.stats()
    terminate_backends(index._engine, postgres_server)

    assert index.ingest(make_record()).outcome is IngestOutcome.STORED

    terminate_backends(index._engine, postgres_server)
    assert index.stats().instances == 2


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connections_lost_between_two_pages_of_a_search_are_made_anew(
    index: Index, postgres_server: sa.URL, make_record, make_query
) -> None:
    index.ingest_batch([make_record() for _ in range(2000)])
    records = index.search(make_query(Level.IMAGE))
    next(records)
    terminate_backends(index._engine, postgres_server)

    assert len(list(records)) == 1999


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_connection_lost_in_every_commit_may_have_committed(
    engine: Engine, postgres_server: sa.URL
) -> None:
    def work(connection: sa.Connection) -> None:
        put_state(connection, "x")
        terminate_backends(engine, postgres_server)
        # The client notices at its next request, which is the COMMIT.

    with pytest.raises(IndexUnavailable) as caught:
        engine.transact(work)

    assert caught.value.may_have_committed
    assert "x" not in states(engine)


def test_connection_lost_before_the_commit_has_not_committed(engine: Engine) -> None:
    def work(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("UPDATE", {}, Exception("gone"), connection_invalidated=True)

    with pytest.raises(IndexUnavailable) as caught:
        engine.transact(work)

    assert not caught.value.may_have_committed


def test_sqlite_readers_of_a_crowd_are_kept_for_the_next_one(tmp_path: Path) -> None:
    engine = create(f"sqlite:///{tmp_path / 'index.sqlite'}")
    opened: list[object] = []
    sa.event.listen(engine._readers, "connect", lambda connection, _: opened.append(connection))
    with engine.write() as connection:
        connection.exec_driver_sql("CREATE TABLE one (id INTEGER)")

    for _ in range(2):
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(engine.read()).exec_driver_sql("SELECT * FROM one").all()

    assert len(opened) == 40
    engine.close()


def test_readers_that_hold_every_connection_do_not_stop_a_writer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = engine._readers.pool
    held = [engine._readers.connect() for _ in range(pool.size() + pool._max_overflow)]
    monkeypatch.setattr(pool, "_timeout", 0.1)

    with pytest.raises(IndexUnavailable, match="in use"):
        states(engine)
    engine.transact(lambda connection: put_state(connection, "x"))

    for connection in held:
        connection.close()
    assert "x" in states(engine)
