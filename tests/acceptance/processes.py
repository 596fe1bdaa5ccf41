"""The real command in processes of its own: ``pacs serve`` to talk to, other commands to run to their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.dimse.peer import Peer

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60
LISTENING = re.compile(r"listening on \S*:(\d+)$")


#: Settings of every command, for a test that changes them.
SETTINGS: dict[str, str] = {}


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process without any setting of ours, and with these variables."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PACS_")}
    path = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    common = {"PYTHONPATH": path, "COLUMNS": "200", "TERM": "dumb"}
    return inherited | common | SETTINGS | variables


@dataclass(slots=True)
class Serving:
    """A ``pacs serve`` that listens."""

    process: subprocess.Popen[str]
    #: What it printed, up to the line that names the port.
    summary: list[str]
    port: int
    log_path: Path
    ae_title: str = "PACS"

    @property
    def peer(self) -> Peer:
        """Its address."""
        return Peer(self.ae_title, "127.0.0.1", self.port)

    @property
    def address(self) -> str:
        """Its address as the commands take it."""
        return str(self.peer)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_path.read_text("utf-8")

    def echo(self) -> None:
        """Have it answer a C-ECHO."""
        query_scu.echo(Options(connect_timeout_seconds=DEADLINE_SECONDS), self.peer)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone and the kernel has dropped its locks."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)


class StartFailed(Exception):
    """A ``pacs serve`` ended before it listened."""

    def __init__(self, status: int, printed: str, logged: str) -> None:
        super().__init__(f"exit code {status}\n{printed}{logged}")
        self.status = status
        self.logged = logged


@dataclass(slots=True)
class Processes:
    """Starts processes and ends them all."""

    cwd: Path
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``pacs`` with these arguments to its end."""
        return subprocess.run(
            [sys.executable, "-m", "pacs", *arguments],
            env=environment(**(env or {})),
            cwd=cwd or self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def spawn(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> tuple[subprocess.Popen[str], Path]:
        """Start ``pacs`` with these arguments; also gives the file that its standard error goes to."""
        cwd = cwd or self.cwd
        log_path = cwd / f"log-{len(self._started)}.txt"
        with log_path.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pacs", *arguments],
                env=environment(**(env or {})),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._started.append(process)
        return process, log_path

    def serve(
        self, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Serving:
        """Start ``pacs serve`` on a free port of the loopback interface and wait until it answers.

        Raises:
            StartFailed: it ended before it listened.
        """
        options = ("--port", "0", "--host", "127.0.0.1", *arguments)
        process, log_path = self.spawn("serve", *options, env=env, cwd=cwd)
        serving = wait_until_listening(process, log_path)
        serving.echo()
        return serving

    def close(self) -> None:
        """Kill what still runs, and wait for all of it."""
        for process in self._started:
            process.kill()
            process.wait(DEADLINE_SECONDS)
            if process.stdout is not None:
                process.stdout.close()


def wait_until_listening(process: subprocess.Popen[str], log_path: Path) -> Serving:
    """Read the start-up summary of a ``pacs serve`` up to its last line.

    Raises:
        StartFailed: it ended before it listened, or took too long.
    """
    assert process.stdout is not None
    deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
    deadline.start()
    summary: list[str] = []
    try:
        for line in process.stdout:
            summary.append(line.rstrip("\n"))
            if found := LISTENING.search(summary[-1]):
                title = next((s.removeprefix("AE title ") for s in summary if "AE title" in s), "")
                return Serving(process, summary, int(found[1]), log_path, title or "PACS")
    finally:
        deadline.cancel()
    status = process.wait(DEADLINE_SECONDS)
    raise StartFailed(status, "\n".join(summary), log_path.read_text("utf-8"))


def succeeded(completed: subprocess.CompletedProcess[str]) -> str:
    """What a command printed that did what it was asked to do."""
    assert completed.returncode == 0, completed
    return completed.stdout


def failed(completed: subprocess.CompletedProcess[str], status: int) -> str:
    """The message of a command that failed: one line, no traceback."""
    assert completed.returncode == status, completed
    assert re.fullmatch(r"pacs: .+\n", completed.stderr), completed.stderr
    assert completed.stdout == ""
    return completed.stderr.strip()


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table, empty ones left out."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
