"""Which process a record belongs to, and whether that one is still there.

A record names its process by host, boot, process id and start time. Processes of another host cannot be seen from
here: they count as gone when they have recorded nothing for long.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class ProcessToken:
    """One process, told from every other that ever ran, as far as the system lets us."""

    host: str
    boot: str
    pid: int
    #: Clock ticks from boot to the start of the process; empty where the system does not say.
    started: str

    @classmethod
    def own(cls) -> ProcessToken:
        """The token of this process."""
        # Not remembered: a fork would inherit it.
        return cls(socket.gethostname(), _boot_id(), os.getpid(), _start_of(os.getpid()) or "")

    @classmethod
    def parse(cls, text: str) -> ProcessToken:
        """Read what ``str`` wrote."""
        host, boot, pid, started = text.rsplit("/", 3)
        return cls(host, boot, int(pid), started)

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; meaningful on its own host only."""
        if self.boot != _boot_id():
            return False
        started = _start_of(self.pid)
        if started is not None:
            return started == self.started
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False


def ids_of_ended(
    connection: sa.Connection, statement: sa.Select[Any], silent_since: datetime
) -> list[int]:
    """The ids among rows of (id, process, active_at) whose process has ended."""
    return [
        row.id
        for row in connection.execute(statement)
        if _has_ended(ProcessToken.parse(row.process), row.active_at < silent_since)
    ]


def _has_ended(process: ProcessToken, is_silent: bool) -> bool:
    if process.host == socket.gethostname():
        return not process.is_alive
    return is_silent


@lru_cache(maxsize=1)
def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _start_of(pid: int) -> str | None:
    # Field 22 of proc_pid_stat(5). The command in field 2 may contain spaces and parentheses.
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return None
