"""Which process a record belongs to, and whether that one is still there.

A record names its process by host, boot, process id and start time. Processes of another host, or of another container
on this one, cannot be seen from here: their lease tells (``pacs.index.leases``).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessToken:
    """One process, told from every other that ever ran, as far as the system lets us."""

    host: str
    #: The boot of the system and, after a colon, the namespace that process ids are of.
    boot: str
    pid: int
    #: Clock ticks from boot to the start of the process; empty where the system does not say.
    started: str

    @classmethod
    def own(cls) -> ProcessToken:
        """The token of this process."""
        return cls(socket.gethostname(), _namespace(), os.getpid(), _own_start())

    @classmethod
    def parse(cls, text: str) -> ProcessToken:
        """Read what ``str`` wrote."""
        host, boot, pid, started = text.rsplit("/", 3)
        return cls(host, boot, int(pid), started)

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"

    @property
    def is_visible(self) -> bool:
        """Whether the process, if it runs, can be seen from here."""
        # Earlier releases wrote no namespace.
        return self.host == socket.gethostname() and self.boot in (_namespace(), _boot_id())

    @property
    def is_of_an_earlier_boot(self) -> bool:
        """Whether a host of this name has been started anew since; another one may have the same name."""
        boot = self.boot.partition(":")[0]
        return self.host == socket.gethostname() and boot != _boot_id()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs; meaningful only if it is visible."""
        started = _start_of(self.pid)
        if started is not None:
            return started == self.started
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False


@lru_cache(maxsize=1)
def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@lru_cache(maxsize=1)
def _namespace() -> str:
    # Process ids are counted in each container; to look for one of another would find a stranger, or nobody.
    with suppress(OSError):
        return f"{_boot_id()}:{Path('/proc/self/ns/pid').stat().st_ino}"
    return _boot_id()


@lru_cache(maxsize=1)
def _own_start() -> str:
    return _start_of(os.getpid()) or ""


# A fork is another process.
os.register_at_fork(after_in_child=_own_start.cache_clear)


def _start_of(pid: int) -> str | None:
    # Field 22 of proc_pid_stat(5). The command in field 2 may contain spaces and parentheses.
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return None
