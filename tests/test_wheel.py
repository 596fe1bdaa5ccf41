"""The wheel holds everything that an installation needs, the migrations included."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the build backend itself: no isolated environment, hence no network."""
    pytest.importorskip("hatchling", reason="hatchling, of the test extra, is not installed")
    directory = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build; hatchling.build.build_wheel({str(directory)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
    (built,) = directory.glob("*.whl")
    return built


def files(directory: str, pattern: str = "*") -> set[str]:
    """The files below a directory of the source tree, as paths relative to it."""
    top = ROOT / directory
    return {
        path.relative_to(top).as_posix()
        for path in top.rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_migration(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())

    assert any(name.startswith("versions/") for name in files("migrations"))
    assert {f"pacs/migrations/{name}" for name in files("migrations")} <= packed


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())

    assert {f"pacs/{name}" for name in files("pacs", "*.py")} | {"pacs/py.typed"} <= packed
    assert {name.split("/")[0].split("-")[0] for name in packed} == {"pacs", "mini_pacs"}


def test_wheel_installs_the_pacs_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        text = archive.read(entry_points).decode()

    assert "pacs = pacs.cli:main" in text.splitlines()


def test_wheel_alone_creates_an_index(wheel: Path, tmp_path: Path) -> None:
    """Runs the unpacked wheel away from the source tree, so that only its own migrations exist."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = (
        "import sys, pacs; from pacs.index.index import Index\n"
        f"assert pacs.__file__.startswith({str(site)!r}), pacs.__file__\n"
        "Index.open('sqlite:///index.sqlite', upgrade=True).close()\n"
    )

    subprocess.run(
        [sys.executable, "-c", code],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        check=True,
        timeout=60,
    )

    assert (elsewhere / "index.sqlite").stat().st_size > 0
