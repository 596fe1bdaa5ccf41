"""What is measured on the wire: each work, done to one archive, gives one reading."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import click

from benchmarks.archives import Pacs
from benchmarks.client import count_instances
from benchmarks.instances import STUDIES_OF_A_DAY, Data, Instances
from benchmarks.peers import (
    NAGLE,
    NODELAY,
    Archive,
    Environment,
    Running,
    WorkFailed,
    destination,
    findscu,
    getscu,
    last_words,
    movescu,
    storescu,
)
from benchmarks.scratch import Scratch

_CLIENT_SECONDS = 300.0
#: C-MOVEs or C-GETs on one association: starting the requester would otherwise be a part of what is measured.
_REPEAT = 5
_ECHOES = 300


@dataclass(frozen=True)
class Reading:
    """What one work took of one archive."""

    seconds: float
    #: User and system time of the archive's processes meanwhile.
    cpu_seconds: float
    #: More numbers; ``client_cpu`` and ``destination_cpu`` say how much of the time the other side needs anyway.
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What a work needs beside the archive."""

    data: Data
    scratch: Scratch


Measure = Callable[[Archive, Bench], Reading]


class Watch:
    """Time, and the archive's processor time, from now on."""

    def __init__(self, running: Running) -> None:
        """Start."""
        self._running = running
        self._cpu = running.cpu_seconds
        self._client_cpu = _clients_cpu_seconds()
        self._started = time.perf_counter()

    def stop(self, times: int = 1) -> Reading:
        """The reading for one of so many repetitions."""
        seconds = time.perf_counter() - self._started
        client_cpu = (_clients_cpu_seconds() - self._client_cpu) / times
        cpu = (self._running.cpu_seconds - self._cpu) / times
        return Reading(seconds / times, cpu, {"client_cpu": client_cpu})


def _clients_cpu_seconds() -> float:
    """The processor time of the clients that have ended; servers are waited for after their work only."""
    now = os.times()
    return now.children_user + now.children_system


# Clients


def client(*arguments: object) -> dict[str, float]:
    """Run our own SCU in a process of its own; what it says."""
    command = [sys.executable, "-m", "benchmarks.client", *map(str, arguments)]
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, text=True, timeout=_CLIENT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise WorkFailed(f"the client took over {_CLIENT_SECONDS:.0f} s") from error
    if done.returncode:
        raise WorkFailed(" ".join(done.stderr.split())[-300:])
    said: dict[str, float] = json.loads(done.stdout)
    return said


def verify_stored(running: Running, instances: Instances) -> None:
    """Ask by C-FIND whether every instance of every series is there; without that the reading is void."""
    missing = 0
    for (study, series), count in instances.series.items():
        try:
            missing += count - count_instances(running.port, study, series)
        except (ValueError, click.ClickException) as error:
            raise WorkFailed(f"C-FIND after storing: {error}") from error
    if missing:
        raise WorkFailed(f"{missing} of {instances.count} instances are not there")


# Storing


def store(name: str, associations: int = 1, sender: Environment = NODELAY) -> Measure:
    """Have storescu send a set over one or several associations at once."""

    def measure(archive: Archive, bench: Bench) -> Reading:
        instances = bench.data[name]
        with archive.run(bench.scratch.directory(archive.name)) as running:
            watch = Watch(running)
            storescu(running, instances.files, associations, sender)
            reading = watch.stop()
            verify_stored(running, instances)
        return reading

    return measure


def store_mixed(archive: Archive, bench: Bench) -> Reading:
    """Our own SCU sends real files, each in its own transfer syntax, which storescu cannot do at one go."""
    instances = bench.data["mix"]
    with archive.run(bench.scratch.directory(archive.name)) as running:
        cpu = running.cpu_seconds
        said = client("store", running.port, instances.folder)
        reading = Reading(said["seconds"], running.cpu_seconds - cpu)
        verify_stored(running, instances)
    return reading


def store_each(name: str, contexts: int) -> Measure:
    """Our own SCU sends a set, each instance over an association that proposes so many presentation contexts."""

    def measure(archive: Archive, bench: Bench) -> Reading:
        instances = bench.data[name]
        with archive.run(bench.scratch.directory(archive.name)) as running:
            watch = Watch(running)
            said = client("studies", running.port, instances.folder, "--contexts", contexts)
            reading = replace(watch.stop(), seconds=said["seconds"])
            verify_stored(running, instances)
        return reading

    return measure


def receive(name: str, sender: Environment = NODELAY, receiver: Environment = NODELAY) -> Measure:
    """Have storescu send a set to something that cannot be asked what it has; success responses must do."""

    def measure(archive: Archive, bench: Bench) -> Reading:
        instances = bench.data[name]
        place = bench.scratch.directory(archive.name)
        with archive.run(place, environment=receiver) as running:
            watch = Watch(running)
            storescu(running, instances.files, 1, sender)
            return watch.stop()

    return measure


# Retrieving


@contextmanager
def _holding(
    archive: Archive, bench: Bench, environment: Environment, parallel: int, name: str = "move"
) -> Iterator[tuple[Running, Running]]:
    """A fresh archive that holds the study to retrieve, which is the set ``name``, and knows DEST; and DEST."""
    place = bench.scratch.directory(archive.name)
    with ExitStack() as stack:
        dest = stack.enter_context(destination(place, environment, is_parallel=parallel > 1))
        if isinstance(archive, Pacs):
            archive.parallel = parallel
        running = stack.enter_context(archive.run(place, {"DEST": dest.port}, environment))
        storescu(running, bench.data[name].files, 1, NODELAY)
        verify_stored(running, bench.data[name])
        yield running, dest


def _check(printed: str, wanted: str, running: Running) -> None:
    if wanted not in printed:
        raise WorkFailed(f"{' '.join(printed.split())[-200:]} | {last_words(running.log)}")


def move(parallel: int = 1, name: str = "move") -> Measure:
    """C-MOVE a study to ``storescp --ignore``, over one or several associations."""

    def measure(archive: Archive, bench: Bench) -> Reading:
        study = bench.data[name].study
        with _holding(archive, bench, NODELAY, parallel, name) as (running, dest):
            # The first one, which is not timed, warms up the page cache and proves that all arrives.
            _check(movescu(running, study, 1, "-v"), "Final Move Response (Success)", running)
            watch, before = Watch(running), dest.cpu_seconds
            movescu(running, study, _REPEAT)
            reading = watch.stop(_REPEAT)
            used = (dest.cpu_seconds - before) / _REPEAT
            return replace(reading, facts={**reading.facts, "destination_cpu": used})

    return measure


def move_nagle(archive: Archive, bench: Bench) -> Reading:
    """C-MOVE the study once, Nagle's algorithm left on in all of DCMTK and Orthanc."""
    with _holding(archive, bench, NAGLE, 1) as (running, _):
        watch = Watch(running)
        printed = movescu(running, bench.data["move"].study, 1, "-v")
        reading = watch.stop()
        _check(printed, "Final Move Response (Success)", running)
        return reading


def get(archive: Archive, bench: Bench) -> Reading:
    """C-GET a study; the requester keeps nothing."""
    instances = bench.data["move"]
    with _holding(archive, bench, NODELAY, 1) as (running, _):
        done = f"Number of Completed Suboperations : {instances.count}\n"
        _check(getscu(running, instances.study, 1, "-v"), done, running)
        watch = Watch(running)
        getscu(running, instances.study, _REPEAT)
        return watch.stop(_REPEAT)


# Finding

_STUDY_KEYS = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "PatientName",
    "PatientID",
)
COMPUTED_KEYS = (
    "ModalitiesInStudy",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)


def find(repeat: int, *more: str, day: str = "", one: bool = False) -> Measure:
    """C-FIND studies with eight return keys and ``more``: all, those of a ``day``, or ``one``.

    The seconds are those of one of ``repeat`` queries on one association.
    """

    def measure(archive: Archive, bench: Bench) -> Reading:
        instances = bench.data["studies"]
        keys = [*_STUDY_KEYS, *more]
        matches = instances.count
        if day:
            keys[1] = f"StudyDate={day}"
            matches = min(STUDIES_OF_A_DAY, matches - STUDIES_OF_A_DAY)  # it is the second day
        elif one:
            keys[0] = f"StudyInstanceUID={next(iter(instances.series))[0]}"
            matches = 1
        with archive.run(bench.scratch.directory(archive.name)) as running:
            storescu(running, instances.files, 1, NODELAY)
            # The first one, which is not timed, warms up and proves that all is found.
            found = findscu(running, keys, 1, "-v").count("Find Response:")
            if found != matches:
                raise WorkFailed(f"{found} matches instead of {matches}")
            watch = Watch(running)
            findscu(running, keys, repeat, "--hide-responses")
            return watch.stop(repeat)

    return measure


# Associations


def echo(archive: Archive, bench: Bench) -> Reading:
    """Associate, C-ECHO, release, one after the other, all by one client process."""
    with archive.run(bench.scratch.directory(archive.name)) as running:
        cpu = running.cpu_seconds
        said = client("echo", running.port, "--count", _ECHOES)
        return Reading(said["seconds"], (running.cpu_seconds - cpu) / (_ECHOES + 1))


def parallel(associations: Sequence[int], name: str = "small") -> Measure:
    """The same instances over few and over many associations; the seconds are those of the many."""

    def measure(archive: Archive, bench: Bench) -> Reading:
        instances = bench.data[name]
        facts = {}
        for count in associations:
            with archive.run(bench.scratch.directory(archive.name)) as running:
                cpu = running.cpu_seconds
                said = client("store", running.port, instances.folder, "--associations", count)
                reading = Reading(said["seconds"], running.cpu_seconds - cpu)
                verify_stored(running, instances)
            facts[f"seconds_{count}"] = reading.seconds
            facts[f"opening_seconds_{count}"] = said["opening_seconds"]
            facts[f"cpu_seconds_{count}"] = reading.cpu_seconds
        few, many = (facts[f"seconds_{count}"] for count in associations)
        return Reading(reading.seconds, reading.cpu_seconds, {**facts, "ratio": few / many})

    return measure
