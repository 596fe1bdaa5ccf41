"""The transcripts in README.md: their commands run, and print what is printed there.

A transcript is the code block under ``<!-- transcript -->``. A line that starts with ``$`` is a command, one
that ends with ``&`` stays in the background; the lines after it must appear in its output, in that order, and
others may too. Ports are replaced by free ones; dates, times and milliseconds may differ.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from tests.acceptance.processes import DEADLINE_SECONDS, ROOT, environment

FILES = ("CT_small.dcm", "MR_small.dcm")
_BLOCK = re.compile(r"<!-- transcript -->\n```\w*\n(.*?)\n```", re.DOTALL)
_PORT = re.compile(r"\b111\d\d\b")
_VARIABLE = [
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"\d+\.\d+ ms"), "N ms"),
    # Some builds of DCMTK print the padding of a UID, a zero byte.
    (re.compile(r"[\s\0]+"), " "),
    (re.compile(r" \]"), "]"),
]
#: A documented failure: ``pacs move`` ends with exit code 1 after any status but Success.
_FAILURE = re.compile(r"status 0x(?!0000)")


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the lines that it is said to print."""

    command: str
    expected: list[str] = field(default_factory=list)

    @property
    def is_background(self) -> bool:
        return self.command.endswith(" &")


def steps(transcript: str) -> list[Step]:
    found: list[Step] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            found.append(Step(line.removeprefix("$ ")))
        else:
            found[-1].expected.append(line)
    return found


def normalised(line: str) -> str:
    for pattern, replacement in _VARIABLE:
        line = pattern.sub(replacement, line)
    return line.strip()


def missing_lines(expected: list[str], output: str) -> list[str]:
    """Those of the expected lines that do not follow each other in the output."""
    printed = iter([normalised(line) for line in output.splitlines()])
    return [line for line in expected if normalised(line) not in printed]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Shell:
    """Runs the steps in one directory; what is left in the background ends with it."""

    def __init__(self, cwd: Path, port: int) -> None:
        self._cwd = cwd
        # Commands of the same name from Python packages come later in the PATH, if at all.
        path = os.pathsep.join((str(cwd.parent / "bin"), "/usr/bin", "/bin", os.environ["PATH"]))
        self._environment = environment(PATH=path, PACS_PORT=str(port))
        self._background: list[subprocess.Popen[bytes]] = []
        self._count = 0

    def run(self, step: Step) -> None:
        self._count += 1
        output = self._cwd.parent / f"output-{self._count}.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                ["/bin/bash", "-c", step.command.removesuffix(" &")],
                env=self._environment,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if step.is_background:
            self._background.append(process)
            self._wait_until_ready(step, output)
        else:
            try:
                status = process.wait(DEADLINE_SECONDS)
            finally:
                process.kill()
            failure_is_shown = any(map(_FAILURE.search, step.expected))
            assert status == (1 if failure_is_shown else 0), f"{step}\n{output.read_text('utf-8')}"
        assert not missing_lines(step.expected, output.read_text("utf-8")), (
            f"{step}\n{output.read_text('utf-8')}"
        )

    def close(self) -> None:
        for process in self._background:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE_SECONDS)

    def _wait_until_ready(self, step: Step, output: Path) -> None:
        """Until a background command has printed what it should, or listens on the port it names."""
        ports = [int(text) for text in re.findall(r"\b\d{4,5}\b", step.command)]
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline and self._background[-1].poll() is None:
            printed = output.read_text("utf-8")
            if not missing_lines(step.expected, printed) and all(map(is_open, ports)):
                return
            time.sleep(0.05)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files that the transcripts name, and beside it ``pacs`` as a command."""
    launcher = tmp_path / "bin" / "pacs"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pacs "$@"\n', "utf-8")
    launcher.chmod(0o755)
    directory = tmp_path / "cwd"
    directory.mkdir()
    for name in FILES:
        path = get_testdata_file(name)
        assert isinstance(path, str)
        shutil.copyfile(path, directory / name)
    return directory


def transcripts() -> list[str]:
    return _BLOCK.findall((ROOT / "README.md").read_text("utf-8"))


@pytest.fixture(params=range(len(transcripts())), ids="transcript {}".format)
def transcript(request: pytest.FixtureRequest) -> str:
    number: int = request.param
    return transcripts()[number]


@pytest.fixture
def dcmtk() -> None:
    version = subprocess.run(
        ["/usr/bin/env", "PATH=/usr/bin:/bin", "storescu", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "dcmtk" not in version.stdout:
        pytest.skip("DCMTK's command-line tools are not installed")


@pytest.fixture
def shell(directory: Path, request: pytest.FixtureRequest) -> Iterator[Shell]:
    started = Shell(directory, request.getfixturevalue("ports")["11112"])
    yield started
    started.close()


@pytest.fixture
def ports(transcript: str) -> dict[str, int]:
    """A free port for each one that the transcript names; 11112 is where ``pacs serve`` listens."""
    return {port: free_port() for port in {"11112", *_PORT.findall(transcript)}}


@pytest.mark.interop
@pytest.mark.usefixtures("dcmtk")
def test_readme_transcript_runs_as_shown(
    transcript: str, ports: dict[str, int], shell: Shell
) -> None:
    on_free_ports = _PORT.sub(lambda found: str(ports[found[0]]), transcript)

    for step in steps(on_free_ports):
        shell.run(step)


def test_readme_has_a_transcript() -> None:
    assert transcripts()


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        (["a", "c"], []),
        (["c", "a"], ["a"]),
        (["a", "d"], ["d"]),
        (["took  1.5 ms"], []),
        (["at 2020-01-01 00:00:00"], []),
    ],
)
def test_expected_lines_are_looked_for_in_order(expected: list[str], missing: list[str]) -> None:
    output = "a\nb\nc\ntook 20.25 ms\nat 2026-11-23 17:23:34\n"

    assert missing_lines(expected, output) == missing
