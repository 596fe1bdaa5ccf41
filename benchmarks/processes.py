"""What the kernel says of running processes: processor time and memory of a whole family (Linux, /proc)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    #: Its own time and that of the children it has waited for.
    ticks: int


def _stat(pid: int) -> _Stat | None:
    """Read ``/proc/PID/stat``; None when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("ascii", "replace")
    except OSError:
        return None
    # The name, in brackets, may hold spaces; what follows is separated by single ones (proc(5)).
    fields = text.rpartition(")")[2].split()
    return _Stat(int(fields[1]), sum(map(int, fields[11:15])))


def family(roots: Iterable[int]) -> dict[int, _Stat]:
    """The processes ``roots`` that are alive, with all their descendants."""
    everybody = {
        int(entry.name): stat
        for entry in _PROC.iterdir()
        if entry.name.isdigit() and (stat := _stat(int(entry.name)))
    }
    children: dict[int, list[int]] = {}
    for pid, stat in everybody.items():
        children.setdefault(stat.parent, []).append(pid)
    found: dict[int, _Stat] = {}
    waiting = [pid for pid in roots if pid in everybody]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = everybody[pid]
            waiting.extend(children.get(pid, []))
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of ``roots``, their descendants, and the children they have waited for."""
    return sum(stat.ticks for stat in family(roots).values()) / _TICKS_PER_SECOND


def memory_bytes(roots: Iterable[int], name: str) -> dict[int, int]:
    """A line of ``/proc/PID/status`` such as VmHWM (peak) or VmRSS, for each process of the family."""
    found = {}
    for pid in family(roots):
        with suppress(OSError):
            lines = (_PROC / str(pid) / "status").read_text("utf-8").splitlines()
            # A process that is ending has no memory left to report.
            sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")]
            if sizes:
                found[pid] = sizes[0]
    return found
