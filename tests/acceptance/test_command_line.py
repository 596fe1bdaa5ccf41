"""The command line itself: help, settings, schema, and how it fails."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pacs.cli import app, main
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    ROOT,
    Processes,
    environment,
    failed,
    succeeded,
)


class Main:
    """Runs ``pacs.cli.main`` in this process: for the many cases that need no process of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._patch = patch

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line, as ``Processes.run`` does."""
        self._patch.setattr(sys, "argv", ["pacs", *arguments])
        for name, value in (env or {}).items():
            self._patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, printed.out, printed.err)


@pytest.fixture
def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Main]:
    """The command line in an empty directory of this process; logging is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    root, levels = logging.getLogger(), {}
    handlers = list(root.handlers)
    for name in ("pacs", "pynetdicom", "pydicom", "alembic", "sqlalchemy"):
        levels[name] = logging.getLogger(name).level
    umask = os.umask(0)
    os.umask(umask)
    yield Main(capsys, monkeypatch)
    os.umask(umask)
    root.handlers = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


# Help


def command_paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from command_paths(child, (*path, name))


@pytest.mark.parametrize("path", list(command_paths(app)), ids=" ".join)
def test_help_of_every_command_describes_it_and_its_options(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="pacs")

    command: click.Command | None = app
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name)
    assert command is not None
    assert result.exit_code == 0
    assert result.stdout.startswith(" ".join(("Usage: pacs", *path)))
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_help_shows_the_choices_of_settings() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], prog_name="pacs").stdout

    for choices in ("[off|optional|required]", "[replace|keep|refuse]", "[problems|all|none]"):
        assert choices in shown


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["db", "--help"], ["nonsense"]])
def test_installed_command_equals_the_module(processes: Processes, arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, function = project["scripts"]["pacs"].split(":")
    # What pip writes into the script it installs.
    script = f"import sys; from {module} import {function}; sys.exit({function}())"

    installed = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment(),
        cwd=processes.cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    as_module = processes.run(*arguments)
    assert installed.stdout == as_module.stdout
    assert installed.stderr == as_module.stderr
    assert installed.returncode == as_module.returncode == (2 if arguments == ["nonsense"] else 0)


# Settings and schema


@pytest.mark.parametrize(
    "variables",
    [
        {"PACS_DATABASE_URL": "postgresql+psycopg://pacs:hunter2@database/pacs"},
        {
            "PACS_DATABASE_URL": "postgresql+psycopg://pacs@database/pacs",
            "PACS_DATABASE_PASSWORD": "hunter2",
        },
    ],
    ids=["in the URL", "on its own"],
)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["table", "json"])
def test_config_show_masks_the_password(
    in_process: Main, variables: dict[str, str], options: list[str]
) -> None:
    printed = succeeded(in_process.run("config", "show", *options, env=variables))

    assert "hunter2" not in printed
    assert "postgresql+psycopg://pacs:***@database/pacs" in printed
    assert "PACS_DATABASE_URL" in printed


def test_config_show_tells_where_each_value_comes_from(processes: Processes) -> None:
    (processes.cwd / "pacs.toml").write_text('ae_title = "FROM_FILE"\nport = 104\n', "utf-8")

    shown: dict[str, Any] = json.loads(
        succeeded(
            processes.run("config", "show", "--json", "--port", "105", env={"PACS_HOST": "::1"})
        )
    )

    file = str(processes.cwd / "pacs.toml")
    assert shown["ae_title"] == {"value": "FROM_FILE", "source": file}
    assert shown["port"] == {"value": "105", "source": "--port"}
    assert shown["host"] == {"value": "::1", "source": "PACS_HOST"}
    assert shown["workers"] == {"value": "1", "source": "default"}


def test_db_upgrade_brings_an_empty_index_to_the_newest_revision(
    processes: Processes, empty_database_url: str
) -> None:
    options = ("--database-url", empty_database_url)

    before = processes.run("db", "current", *options, "--json")
    refused = failed(processes.run("db", "upgrade", *options), 2)
    untouched = processes.run("db", "current", *options, "--json")
    upgraded = succeeded(processes.run("db", "upgrade", "--make", *options))
    again = succeeded(processes.run("db", "upgrade", *options))
    after = json.loads(succeeded(processes.run("db", "current", *options, "--json")))

    assert before.returncode == 1
    assert refused.endswith("To make one: pacs serve, pacs import or pacs db upgrade --make")
    assert untouched.stdout == before.stdout
    assert json.loads(before.stdout)["current"] is None
    assert upgraded == f"index is at revision {after['newest']}, was empty\n"
    assert again == f"index is at revision {after['newest']}\n"
    assert after["current"] == after["newest"]


# Errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["serve", "--prot", "1"], "No such option '--prot'"),
        (["serve", "--port", "many"], "port: expected a whole number"),
        (["find"], "TITLE[@HOST:PORT]"),
        (["find", "PACS@"], "expected TITLE@HOST:PORT, got 'PACS@'"),
        (["find", "PACS"], "a registered AE title, got 'PACS'; there is no archive: sqlite:///"),
        (
            ["find", "PACS@127.0.0.1:1", "PatientNmae=X"],
            "data dictionary; did you mean PatientName",
        ),
        (["ae", "set"], "TITLE"),
        (["echoo"], "Did you mean echo?"),
        (["find", "PACS@127.0.0.1:1", "--level", "ROOM"], "'ROOM'"),
        (["find", "PACS@127.0.0.1:1", "Rows=many"], "Rows: "),
        (["find", "PACS@127.0.0.1:1", "Rows=70000"], "Rows cannot have the value '70000'"),
        (["find", "PACS@127.0.0.1:1", "PixelData=1"], "PixelData cannot have the value '1'"),
        (["move", "PACS@127.0.0.1:1", "StudyInstanceUID=1.1"], "--to"),
        (["ae", "add", "MORE_THAN_16_CHARACTERS", "localhost", "104"], "AE title"),
        (["ae", "add", "RESEARCH", "localhost", "70000"], "70000"),
        (["retrieve", "show", "last"], "'last'"),
        (["import", "no-such-file"], "no-such-file"),
        (["stats", "--database-url", "mysql://localhost/pacs"], "database_url"),
        (["stats", "--storage-url", "s3://bucket"], "s3"),
        (["config", "show", "--config", "no-such.toml"], "no-such.toml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_argument_is_one_line_and_exit_code_2(
    in_process: Main, arguments: list[str], said: str
) -> None:
    assert said in failed(in_process.run(*arguments), 2)


@pytest.mark.parametrize("command", [["stats"], ["ae", "list"], ["retrieve", "list"], ["check"]])
def test_unreachable_index_is_one_line_and_exit_code_3(
    in_process: Main, dead_port: int, command: list[str]
) -> None:
    url = f"postgresql+psycopg://pacs:hunter2@127.0.0.1:{dead_port}/pacs"

    message = failed(in_process.run(*command, "--database-url", url), 3)

    assert "The index cannot be reached" in message
    assert "hunter2" not in message


def test_debug_shows_the_traceback(processes: Processes) -> None:
    completed = processes.run("--debug", "find", "PACS@")

    assert completed.returncode == 1
    assert "Traceback" in completed.stderr
    assert "InvalidSetting: expected TITLE@HOST:PORT" in completed.stderr


def test_unforeseen_error_is_one_line_and_exit_code_1(
    in_process: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr(app, "main", fail)

    assert "unexpected RuntimeError: no idea" in failed(in_process.run("stats"), 1)


def test_ctrl_c_is_one_line_and_exit_code_130(
    in_process: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "main", interrupt)

    assert failed(in_process.run("stats"), 130) == "pacs: interrupted"


@pytest.mark.parametrize(
    "command",
    [
        ("stats",),
        ("check",),
        ("check", "--repair"),
        ("reindex",),
        ("ae", "list"),
        ("ae", "add", "DEST", "10.0.0.7", "104"),
        ("ae", "set", "DEST", "--tls"),
        ("ae", "remove", "DEST"),
        ("explain",),
        ("db", "upgrade"),
        ("retrieve", "list"),
        ("retrieve", "show", "1"),
        ("retrieve", "retry", "1"),
        ("commitment", "list"),
    ],
    ids=" ".join,
)
def test_command_where_there_is_no_archive_says_so_and_makes_none(
    processes: Processes, command: tuple[str, ...]
) -> None:
    message = failed(processes.run(*command, "--data-dir", "wrong"), 2)

    assert "there is no archive: sqlite:///" in message
    assert not (processes.cwd / "wrong").exists()


def test_stats_of_a_database_without_tables_makes_none(
    processes: Processes, empty_database_url: str
) -> None:
    for command in ("stats", "check"):
        message = failed(processes.run(command, "--database-url", empty_database_url), 2)
        assert "there is no archive: " in message

    current = processes.run("db", "current", "--json", "--database-url", empty_database_url)
    assert json.loads(current.stdout)["current"] is None
    assert list(processes.cwd.glob("*pacs-data*")) == []
