"""pynetdicom's own tests, run with our engine as acceptor or as requestor and a stock association as its peer.

They come with pynetdicom's wheel (``pynetdicom/tests``). Where a distribution leaves them out, ``pip install
pynetdicom`` from PyPI has them, as has the tag of the release in its repository. ``pynetdicom_table.py`` says
what is not run, and why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pynetdicom
import pytest

from tests.wire.pynetdicom_table import APPLIED, DESELECTED, LEFT_OUT

_ROOT = Path(__file__).parents[3]
_SUITE = Path(pynetdicom.__file__).parent / "tests"
#: More failures than that have another reason than a late requestor.
_MOST_UNLUCKY = 3
#: Modules that take more than ten seconds; as requestor all do, waiting for stock acceptors.
_SLOW = ("test_acse", "test_ae", "test_assoc", "test_assoc_n")
_RUNS = [
    pytest.param(
        module, role, marks=pytest.mark.slow if module in _SLOW or role == "requestor" else ()
    )
    for module, roles in APPLIED.items()
    for role in roles
]

pytestmark = [
    pytest.mark.skipif(not _SUITE.is_dir(), reason="this pynetdicom was installed without tests"),
    pytest.mark.timeout(420),
]


@pytest.mark.parametrize(("module", "role"), _RUNS)
def test_pynetdicom_module_passes_with_our_engine(module: str, role: str, tmp_path: Path) -> None:
    # Native tracebacks: for its own ones pytest parses sources, which CPython 3.11 sometimes fails at beside threads.
    options = (
        "-q -c /dev/null -p no:randomly -p no:cacheprovider -p no:xdist --tb=native --no-header"
    )
    command = [sys.executable, "-m", "pytest", *options.split(), f"--rootdir={tmp_path}"]
    # A hanging test is interrupted, the others go on.
    command += ["--timeout=30", "--timeout-method=signal"]
    command += ["-p", "tests.wire.pynetdicom_plugin", str(_SUITE / f"{module}.py")]
    environment = os.environ | {"PACSTEST_ENGINE_ROLE": role, "PYTHONPATH": str(_ROOT)}
    # Meant for the run around this one; xdist is not loaded here.
    environment.pop("PYTEST_ADDOPTS", None)

    finished = _run(command, tmp_path, environment)
    failed = re.findall(r"^FAILED ::(\w+::[^\s]+) ", finished.stdout, re.MULTILINE)
    if 0 < len(failed) <= _MOST_UNLUCKY:
        # A stock requestor that is late takes the close after a rejection for an abort: on a busy machine one or
        # two of 200 tests fail for that, never the same.
        module_path = command.pop()
        again = _run(
            [*command, *(f"{module_path}::{name}" for name in failed)], tmp_path, environment
        )
        assert again.returncode == 0, again.stdout[-4000:]
    else:
        assert finished.returncode == 0, finished.stdout[-4000:]
    passed = re.search(r"(\d+) passed", finished.stdout)
    assert passed is not None
    assert int(passed[1]) >= 10


def _run(
    command: list[str], directory: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )


def test_every_module_of_the_suite_is_in_the_table() -> None:
    modules = {path.stem for path in _SUITE.glob("test_*.py")}

    assert modules == set(APPLIED) | set(LEFT_OUT)


def test_every_deselected_test_is_there() -> None:
    for module, _, pattern in DESELECTED:
        name = re.escape(pattern.rsplit(".", 1)[-1]).replace(r"\*", r"\w*")
        text = (_SUITE / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"def {name}\(", text), (module, pattern)
