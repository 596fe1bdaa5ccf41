from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from rich.console import Console

from pacs.cli import progress
from pacs.cli.progress import ProgressDisplay
from pacs.errors import StorageUnavailable


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What goes to standard error, with a line for every call."""
    output = io.StringIO()
    monkeypatch.setattr(progress, "errors", Console(file=output, width=200))
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    return output


def test_progress_without_a_terminal_is_a_line(screen: io.StringIO) -> None:
    with ProgressDisplay("importing", "files") as display:
        display.show(1234, 5_000_000)

    assert screen.getvalue().startswith("importing: 1,234 files, ")
    assert screen.getvalue().count("\n") == 1


def test_progress_with_a_total_says_how_much_is_left(screen: io.StringIO) -> None:
    with ProgressDisplay("checking", "files") as display:
        display.total = 10
        display.show(5, 0)

    assert "5 of 10 files" in screen.getvalue()
    assert screen.getvalue().rstrip().endswith("left")


def test_progress_lines_come_at_intervals(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 3600.0)

    with ProgressDisplay("importing", "files") as display:
        for done in range(1000):
            display.show(done, 0)

    assert screen.getvalue() == ""


def test_progress_quiet_shows_and_counts_nothing(screen: io.StringIO) -> None:
    counted: list[int] = []

    with ProgressDisplay("importing", "files", quiet=True) as display:
        display.count(counted.append(n) for n in range(3))
        display.show(1, 1)

    assert (screen.getvalue(), counted, display.total) == ("", [], None)


def test_progress_on_a_terminal_is_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    terminal = Console(file=output, width=120, force_terminal=True)
    monkeypatch.setattr(progress, "errors", SimpleNamespace(is_terminal=True, rich=terminal))
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.0)

    with ProgressDisplay("importing", "files") as display:
        display.total = 10
        display.show(5, 1000)
        display._bar.refresh()  # type: ignore[union-attr]

    assert "5 of 10 files" in output.getvalue()


def test_progress_counts_on_the_side(screen: io.StringIO) -> None:
    with ProgressDisplay("importing", "files") as display:
        display.count(range(5))
        display._counter.join(10)  # type: ignore[union-attr]

        assert display.total == 5


def test_progress_that_cannot_count_goes_on_without_a_total(screen: io.StringIO) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise StorageUnavailable

    with ProgressDisplay("importing", "files") as display:
        display.count(failing())
        display._counter.join(10)  # type: ignore[union-attr]
        display.show(1, 1)

    assert display.total is None


def test_progress_over_before_the_count_ends_it(screen: io.StringIO) -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    with ProgressDisplay("importing", "files") as display:
        display.count(endless())

    assert display.total is None
