"""What an archive takes besides time: memory for one huge instance, memory and processor time for idle peers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers import (
    NODELAY,
    Archive,
    WorkFailed,
    destination,
    movescu,
    storescu,
)
from benchmarks.processes import cpu_seconds, memory_bytes
from benchmarks.wire_work import Bench, Reading, Watch, client, verify_stored

_MIB = 1024 * 1024
IDLE_ASSOCIATIONS = 200
_IDLE_SECONDS = 10.0
#: After the associations were opened, before their cost is read: what opening them takes is not idling.
_SETTLE_SECONDS = 1.0


def memory(archive: Archive, bench: Bench) -> Reading:
    """Receive one instance of 2 GiB, then C-MOVE it; the peak of the largest process, in MiB.

    The seconds are those of receiving and moving together.
    """
    instances = bench.data["huge"]
    place = bench.scratch.directory(archive.name)
    with destination(place) as dest, archive.run(place, {"DEST": dest.port}) as running:
        before = _largest(running.roots[0])
        watch = Watch(running)
        storescu(running, instances.files, 1, NODELAY)
        received = _largest(running.roots[0])
        printed = movescu(running, instances.study, 1, "-v")
        reading = watch.stop()
        moved = _largest(running.roots[0])
        if "Final Move Response (Success)" not in printed:
            raise WorkFailed(" ".join(printed.split())[-200:])
        verify_stored(running, instances)
    return Reading(
        reading.seconds,
        reading.cpu_seconds,
        {"start_mib": before, "received_mib": received, "moved_mib": moved, "peak_mib": moved},
    )


def _largest(root: int) -> float:
    """The highest peak among the processes of the archive itself (a database server has its own bounds)."""
    return max(memory_bytes([root], "VmHWM").values()) / _MIB


def idle(archive: Archive, bench: Bench) -> Reading:
    """Hold 200 associations for ten seconds; the seconds are those of a C-ECHO in the meantime."""
    with archive.run(bench.scratch.directory(archive.name)) as running:
        own = [running.roots[0]]
        client("echo", running.port, "--count", 5)  # what is loaded only once
        resident = sum(memory_bytes(own, "VmRSS").values())
        with _held(running.port):
            time.sleep(_SETTLE_SECONDS)
            grown = sum(memory_bytes(own, "VmRSS").values()) - resident
            cpu, started = cpu_seconds(own), time.perf_counter()
            time.sleep(_IDLE_SECONDS)
            used = cpu_seconds(own) - cpu
            percent = 100 * used / (time.perf_counter() - started)
            said = client("echo", running.port, "--count", 20)
    return Reading(
        said["seconds"],
        used,
        {"cpu_percent": percent, "mib_per_association": grown / _MIB / IDLE_ASSOCIATIONS},
    )


@contextmanager
def _held(port: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.client", "idle", str(port)]
    command += ["--associations", str(IDLE_ASSOCIATIONS)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if not holder.stdout.readline():
            raise WorkFailed(f"{IDLE_ASSOCIATIONS} associations could not be opened")
        yield
        holder.stdin.close()
        holder.wait(30)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
