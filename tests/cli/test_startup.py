"""What a command imports before it does anything: counted in modules, since seconds depend on the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pacs.cli import app
from pacs.cli.commands import COMMANDS
from pacs.cli.lazy import Group, Lazy, did_you_mean
from pacs.index import migrate, remote_ae_rows
from pacs.index.engine import create
from pacs.index.index import Index
from pacs.model.remote_ae import RemoteAE, Service
from tests.acceptance.processes import environment
from tests.peers import RunningArchive, register
from tests.serving import engine_on_sqlite

HEAVY = {"sqlalchemy", "alembic", "pynetdicom", "pydicom", "numpy", "psycopg", "rich"}
_SCRIPT = """
import sys
from pacs.cli import main
sys.argv = ["pacs", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print("exit code", ended.code or 0, file=sys.stderr)
print("modules", *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def imported(*arguments: str, cwd: Path, status: int = 0) -> set[str]:
    """The packages that a command has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    *_, code, modules = done.stderr.splitlines()
    assert code == f"exit code {status}", done.stderr
    return set(modules.split()) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["ae", "--help"], ["conformance", "--help"], ["echo", "--help"]],
    ids=" ".join,
)
def test_help_and_version_import_none_of_the_libraries(
    tmp_path: Path, arguments: list[str]
) -> None:
    assert imported(*arguments, cwd=tmp_path) == set()


def test_config_show_imports_none_of_the_libraries(tmp_path: Path) -> None:
    assert imported("config", "show", cwd=tmp_path) == set()


@engine_on_sqlite
def test_echo_imports_none_of_the_libraries(service: RunningArchive, tmp_path: Path) -> None:
    assert imported("echo", f"PACS@127.0.0.1:{service.port}", cwd=tmp_path) == set()


def test_health_imports_none_of_the_libraries(tmp_path: Path) -> None:
    assert imported("health", cwd=tmp_path, status=3) == set()


def test_ae_list_imports_no_more_than_the_driver(database_url: str, tmp_path: Path) -> None:
    used = imported("ae", "list", "--database-url", database_url, cwd=tmp_path)

    assert used == (set() if database_url.startswith("sqlite") else {"psycopg"})


@engine_on_sqlite
def test_echo_to_a_registered_ae_imports_none_of_the_libraries(
    service: RunningArchive, tmp_path: Path
) -> None:
    register(service.archive, "PACS", service.port)
    url = service.archive.index.description

    assert imported("echo", "PACS", "--database-url", url, cwd=tmp_path) == set()


def test_index_of_the_newest_schema_is_opened_without_alembic(database_url: str) -> None:
    script = (
        "import sys; from pacs.index.index import Index; Index.open(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script, database_url], check=False).returncode == 0


# The light ways say what the others say


def test_remote_aes_are_the_same_with_and_without_sqlalchemy(database_url: str) -> None:
    index = Index.open(database_url)
    plain = RemoteAE(title="RGER", host="10.0.0.7", port=104)
    full = RemoteAE(
        title="A B",
        host="::1",
        port=2762,
        services=frozenset({Service.FIND, Service.COMMIT}),
        destinations=frozenset({"X", "Y"}),
        tls=True,
        parallel_associations=4,
        description="Röntgen 100 %",
    )
    for remote in (plain, full):
        index.remote_aes.add(remote)

    assert index.remote_aes.all() == [full, plain]
    assert remote_ae_rows.read(database_url) == [full, plain]
    index.close()


def test_remote_aes_of_another_schema_are_left_to_the_index(database_url: str) -> None:
    engine = create(database_url)
    with engine.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    engine.close()

    assert remote_ae_rows.read(database_url) is None


def test_remote_aes_without_an_index_are_left_to_the_index_and_make_none(
    empty_database_url: str,
) -> None:
    assert remote_ae_rows.read(empty_database_url) is None
    engine = create(empty_database_url)
    assert migrate.current(engine) is None
    engine.close()


# The table of commands


def paths(
    members: dict[str, Lazy | Group], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Lazy | Group]]:
    for name, one in members.items():
        yield (*above, name), one
        if isinstance(one, Group):
            yield from paths(dict(one.members), (*above, name))


@pytest.mark.parametrize(
    ("path", "one"), list(paths(COMMANDS)), ids=lambda value: str(value) if value else ""
)
def test_list_of_commands_says_the_first_sentence_of_each(
    path: tuple[str, ...], one: Lazy | Group
) -> None:
    command = one.load()

    said = " ".join((command.help or "").replace("\b", "").split())
    assert said.startswith(one.summary)
    assert one.summary.endswith((".", "?"))
    if isinstance(command, click.Group):
        context = click.Context(command)
        assert [command.get_command(context, name) for name in command.list_commands(context)]


def test_command_that_does_not_exist_is_answered_with_the_one_that_may_be_meant(
    tmp_path: Path,
) -> None:
    with pytest.raises(click.UsageError, match=r"No such command 'improt'\. Did you mean import\?"):
        app.main(["improt"], standalone_mode=False)
    with pytest.raises(
        click.UsageError, match=r"No such command 'lst'\. Did you mean list or set\?"
    ):
        app.main(["ae", "lst"], standalone_mode=False)
    assert did_you_mean("zzz", ["echo", "find"]) == ""
