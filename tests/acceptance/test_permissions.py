"""Nothing that the archive makes can be read by other local users, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.peers import store
from tests.acceptance.processes import Processes, succeeded
from tests.factories import make_instance


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that takes nothing away, for this process and those it starts."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(*roots: Path) -> dict[str, str]:
    """Files and directories that others may read or a group may write, with their modes."""
    found = [path for root in roots for path in (root, *root.rglob("*"))]
    assert len(found) > len(roots)
    return {str(path): oct(stat.S_IMODE(mode)) for path, mode in _modes(found) if is_open(mode)}


def _modes(paths: list[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        yield path, path.lstat().st_mode


def is_open(mode: int) -> bool:
    """To connect to a socket is to write: health is for the group too."""
    return bool(mode & (0o007 if stat.S_ISSOCK(mode) else 0o027))


@pytest.mark.parametrize("data_dir_mode", [None, 0o755], ids=["new", "made before with 755"])
def test_what_is_made_is_closed_to_others_under_any_umask(
    processes: Processes, open_umask: None, data_dir_mode: int | None
) -> None:
    data = processes.cwd / "pacs-data"
    if data_dir_mode is not None:
        data.mkdir(data_dir_mode)
    serving = processes.serve()
    assert store(serving.peer, make_instance()) == [0x0000]
    succeeded(processes.run("ae", "add", "RESEARCH", "127.0.0.1", "104"))
    made = {path.name for path in data.rglob("*")}
    found = modes(data)

    assert {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "storage", "spool"} <= made
    assert [name for name in made if name.endswith(".dcm")]
    assert found == ({} if data_dir_mode is None else {str(data): "0o755"})


def test_reports_are_closed_to_others(processes: Processes, open_umask: None) -> None:
    serving = processes.serve()
    processes.run(
        *("conformance", "scp", serving.address, "-k", "verification.echo"),
        *("--html", "one.html", "--junit", "one.xml"),
    )
    processes.run("conformance", "statement", "--output", "statement.md")

    made = [processes.cwd / name for name in ("one.html", "one.xml", "statement.md")]
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in made] == ["0o640"] * 3


def test_index_of_an_earlier_release_is_closed_to_others_at_start(processes: Processes) -> None:
    succeeded(processes.run("db", "upgrade", "--make"))
    index = processes.cwd / "pacs-data" / "index.sqlite"
    index.chmod(0o644)

    serving = processes.serve()

    assert f"{index} had mode 644, and has 640 now" in serving.log
    assert modes(index.parent) == {}
    serving.stop()
    assert "had mode" not in processes.serve().log
