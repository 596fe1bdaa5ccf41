"""Nothing that a peer sent reaches a terminal or a log as more than its text."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from pacs.cli.output import (
    Printer,
    VisibleFormatter,
    configure_logging,
    print_json,
    print_table,
)

HOSTILE = "\x1b[2J[bold]A\\[/]\0:smile:\n\u202eB\x9b1m"
SHOWN = r"\x1b[2J[bold]A\[/]\x00:smile:\x0a\u202eB\x9b1m"


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Puts the log back as it was."""
    root, pacs = logging.getLogger(), logging.getLogger("pacs")
    handlers, level = list(root.handlers), pacs.level
    yield
    root.handlers[:] = handlers
    pacs.setLevel(level)


def test_console_prints_hostile_text_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Printer().print(f"got {HOSTILE}")
    Printer(stderr=True).print(f"got {HOSTILE}", style="bold red")

    assert capsys.readouterr() == (f"got {SHOWN}\n", f"got {SHOWN}\n")


def test_table_shows_a_hostile_cell_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    count = print_table("", ("what", "who"), [(HOSTILE, "x"), ("a\\", None)])

    assert count == 2
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["what", "who"],
        [SHOWN, "x"],
        ["a\\"],
    ]


def test_json_is_the_same_value_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {"name": HOSTILE + "\x7fÜ山\U000e0041\u2028", "list": [1]}

    print_json(value)

    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "Ü山" in printed
    assert printed.replace("\n", "").isprintable()


def test_log_line_is_one_line(root_logger: None, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    configure_logging("info", origin="worker 1")

    logging.getLogger("pacs.test").warning("%s calls", HOSTILE)

    [line] = output.getvalue().splitlines()
    assert line.endswith(f"WARNING worker 1: {SHOWN} calls")


def test_log_of_an_exception_keeps_its_lines_and_no_control_characters() -> None:
    formatter = VisibleFormatter("%(message)s")

    def fail() -> None:
        raise ValueError("\x1b[2J")

    try:
        fail()
    except ValueError:
        record = logging.LogRecord("pacs", logging.ERROR, "", 0, "failed", (), sys.exc_info())

    first, *traceback = formatter.format(record).split("\n")

    assert first == "failed"
    assert traceback[0].startswith("Traceback")
    assert traceback[-1] == r"ValueError: \x1b[2J"
