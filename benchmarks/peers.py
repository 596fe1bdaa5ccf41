"""How the programs that are compared are started and stopped, and the DCMTK tools that drive them."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

from benchmarks.client import make_ae, verify
from benchmarks.processes import cpu_seconds

Environment = Mapping[str, str]
#: DCMTK as Debian builds it leaves Nagle's algorithm on unless told otherwise.
NODELAY: Environment = {"TCP_NODELAY": "1"}
NAGLE: Environment = {}
_READY_SECONDS = 30.0
_TOOL_SECONDS = 300.0
_LAST_WORDS = 300


class WorkFailed(Exception):
    """A peer did not do the work; there is no reading."""


def free_port() -> int:
    """A TCP port on the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def dcmtk(name: str) -> str:
    """The path of a DCMTK tool; Python packages install scripts of the same names."""
    for directory in ("/usr/bin", "/usr/local/bin", *os.environ.get("PATH", "").split(":")):
        path = Path(directory, name)
        if path.exists() and "dcmtk" in version_line(str(path)):
            return str(path)
    raise SystemExit(f"DCMTK's {name} is not installed")


def version_line(*program: str) -> str:
    """The first line that ``--version`` prints."""
    done = subprocess.run([*program, "--version"], capture_output=True, check=False)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return lines[0].strip("$ ") if lines else "unknown version"


def _surroundings(environment: Environment) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return base | dict(environment)


# Servers


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    title: str
    port: int
    #: Where its processes descend from: its own, and that of a database server that works for it.
    roots: tuple[int, ...]
    log: Path

    @property
    def cpu_seconds(self) -> float:
        """The processor time it has taken so far, children included."""
        return cpu_seconds(self.roots)


class Archive(ABC):
    """A kind of server that is measured."""

    name: str
    #: Roots of processes that work for it without being its children.
    helpers: tuple[int, ...] = ()

    @contextmanager
    def run(
        self,
        directory: Path,
        destinations: Mapping[str, int] | None = None,
        environment: Environment = NODELAY,
    ) -> Iterator[Running]:
        """Start a fresh one, in a new directory, that knows ``destinations`` (title to port)."""
        port = free_port()
        command = self.command(directory, port, destinations or {})
        log = directory / "log"
        # What the last one left to be written to the disk is not this one's burden.
        os.sync()
        with serving(command, port, log, environment) as process:
            yield Running(self.title, port, (process.pid, *self.helpers), log)

    @property
    def title(self) -> str:
        """The AE title it answers to."""
        return "PACS"

    @property
    def settings(self) -> str:
        """What a reader should know of its version and settings."""
        return ""

    @abstractmethod
    def command(self, directory: Path, port: int, destinations: Mapping[str, int]) -> list[str]:
        """Write its configuration and return what starts it."""


@contextmanager
def serving(
    command: Sequence[str], port: int, log: Path, environment: Environment
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, stdout=output, stderr=output, env=_surroundings(environment)
        )
    try:
        _wait_until_open(port, process, log)
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WorkFailed(f"ended with {process.returncode}: {last_words(log)}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
        time.sleep(0.05)
    else:
        raise WorkFailed(f"does not listen on port {port}: {last_words(log)}")
    try:
        verify(make_ae(), port)  # the first association is not what is measured
    except click.ClickException as error:
        raise WorkFailed(f"does not answer: {error.message}; {last_words(log)}") from error


def last_words(log: Path) -> str:
    """The end of a log, as one line."""
    try:
        text = log.read_text("utf-8", "replace")
    except OSError:
        return ""
    return " ".join(text.split())[-_LAST_WORDS:]


@contextmanager
def destination(
    directory: Path, environment: Environment = NODELAY, *, is_parallel: bool = False
) -> Iterator[Running]:
    """DCMTK's storescp as Move Destination, throwing away what it receives."""
    port = free_port()
    command = [dcmtk("storescp"), "--ignore", "--max-pdu", "131072", "-aet", "DEST", "+xa"]
    command += ["--fork"] if is_parallel else []
    log = directory / "destination.log"
    with serving([*command, str(port)], port, log, environment) as process:
        yield Running("DEST", port, (process.pid,), log)


# Clients


def run_tool(*command: str, environment: Environment = NODELAY) -> str:
    """Run a DCMTK tool to its end; what it printed. A warning is a failure."""
    try:
        done = subprocess.run(
            command,
            env=_surroundings(environment),
            capture_output=True,
            check=False,
            text=True,
            timeout=_TOOL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkFailed(f"{Path(command[0]).name} took over {_TOOL_SECONDS:.0f} s") from error
    printed = done.stdout + done.stderr
    if done.returncode or any(mark in printed for mark in ("E: ", "F: ", "W: ")):
        raise WorkFailed(f"{Path(command[0]).name}: {' '.join(printed.split())[-_LAST_WORDS:]}")
    return printed


def storescu(
    running: Running, files: Sequence[Path], associations: int, environment: Environment
) -> None:
    """Send files with one storescu per association, all at once."""
    command = [dcmtk("storescu"), "--max-pdu", "131072", "-aec", running.title]
    command += ["127.0.0.1", str(running.port)]
    senders = [
        subprocess.Popen(
            [*command, *map(str, files[first::associations])],
            env=_surroundings(environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for first in range(associations)
    ]
    failure = ""
    for sender in senders:
        _, errors = sender.communicate(timeout=_TOOL_SECONDS)
        if sender.returncode or errors:
            failure = failure or " ".join(errors.decode("utf-8", "replace").split())
    if failure:
        raise WorkFailed(f"storescu: {failure[-_LAST_WORDS:]} | {last_words(running.log)}")


_STUDY = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k")


def movescu(running: Running, study: str, repeat: int, *options: str) -> str:
    """C-MOVE one study to DEST over and over on one association; what movescu printed."""
    command = [dcmtk("movescu"), *options, "--repeat", str(repeat), *_STUDY]
    command += [f"StudyInstanceUID={study}", "-aec", running.title, "-aem", "DEST"]
    return run_tool(*command, "127.0.0.1", str(running.port))


def getscu(running: Running, study: str, repeat: int, *options: str) -> str:
    """C-GET one study over and over on one association, ignoring what comes; what getscu printed."""
    command = [dcmtk("getscu"), *options, "--ignore", "--max-pdu", "131072"]
    command += ["--repeat", str(repeat), *_STUDY, f"StudyInstanceUID={study}"]
    return run_tool(*command, "-aec", running.title, "127.0.0.1", str(running.port))


def findscu(running: Running, keys: Sequence[str], repeat: int, *options: str) -> str:
    """C-FIND studies over and over on one association; what findscu printed."""
    command = [dcmtk("findscu"), *options, "--max-pdu", "131072", "--repeat", str(repeat), "-S"]
    command += [part for key in ("QueryRetrieveLevel=STUDY", *keys) for part in ("-k", key)]
    return run_tool(*command, "-aec", running.title, "127.0.0.1", str(running.port))
