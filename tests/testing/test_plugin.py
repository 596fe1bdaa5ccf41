"""The pytest plugin as another project uses it: in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from pacs.errors import InvalidSetting
from pacs.testing.archive import RunningArchive
from tests.factories import make_instance

_EXAMPLE = Path(__file__).parents[2] / "examples" / "testing"


def _pytest(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_example_passes_with_nothing_but_the_package_installed(tmp_path: Path) -> None:
    for file in _EXAMPLE.glob("*.py"):
        (tmp_path / file.name).write_bytes(file.read_bytes())

    done = _pytest(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_test_run_that_does_not_use_it_does_not_import_the_archive(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\n"
        "def test_other():\n"
        "    loaded = {'pydicom', 'pynetdicom', 'sqlalchemy'} & set(sys.modules)\n"
        "    assert 'pacs.testing.plugin' in sys.modules and not loaded, loaded\n"
    )

    done = _pytest(tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_stored_can_be_read_again(tmp_path: Path) -> None:
    instance = make_instance()
    file = Path(pydicom.data.get_testdata_file("CT_small.dcm"))

    with RunningArchive(tmp_path) as running:
        running.store(instance, file)
        stored = running.instances()

    assert [one.SOPInstanceUID for one in stored] == [
        instance.SOPInstanceUID,
        pydicom.dcmread(file).SOPInstanceUID,
    ]


def test_an_archive_without_a_directory_leaves_nothing_behind() -> None:
    with RunningArchive() as running:
        directory = running._server.archive.storage.root
        assert directory.exists()

    assert not directory.exists()


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises((InvalidSetting, ValueError), match="no_such"):
        RunningArchive(tmp_path, no_such=1)
