"""Claim: 200 peers at once, that store, find, move and get without a pause, are all served, and none waits long.

Each peer stores an instance of 3 KB in a study and of a patient of its own, finds that study by the Patient ID, moves
it to a Move Destination and gets it, over and over. It holds one association, or opens one for each request
(``--new-associations``). A request counts as failed if its status is not Success, if the match, the sub-operation or
the instance is not the one expected, or if nothing comes for a minute. In the end a C-FIND has to find every study that
was acknowledged.

All peers, and the Move Destination, are coroutines of this process; ``generator`` is its processor time, which shows
that it is not what everybody waits for.

    python -m benchmarks.many_peers --peers 200 --seconds 60
    python -m benchmarks.many_peers --backend postgresql --json readings.jsonl
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import click
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.archives import Pacs
from benchmarks.databases import FreshDatabases, postgres_server
from benchmarks.instances import add_pixels, image
from benchmarks.light_peer import LightAssociation, PeerError, light_destination, proposal
from benchmarks.peers import Running, last_words
from benchmarks.report import environment, percentile, table, write_line
from benchmarks.scratch import scratch
from pacs.conformance.wire.message import encode_data_set

_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_PROPOSAL = proposal((CTImageStorage, _FIND, _MOVE, _GET), scp_of=(CTImageStorage,))
_DESTINATION = "DEST"
_SIDE = 32
#: Without an answer for so long, a request has failed.
_PATIENCE_SECONDS = 60.0
_KINDS = ("associate", "store", "find", "move", "get", "release")
_FAILURES = (PeerError, OSError, EOFError, TimeoutError)
_T = TypeVar("_T")


class Template:
    """What is sent, encoded once: only UIDs and Patient ID differ, and have one length."""

    _UIDS = tuple(f"1.2.826.0.1.3680043.8.498.{kind}{0:020d}" for kind in (1, 2, 3))
    _PATIENT = "P000000000"

    def __init__(self) -> None:
        """Encode an image and the Identifiers."""
        dataset = image(*self._UIDS[:2], 0)
        dataset.SOPInstanceUID, dataset.PatientID = self._UIDS[2], self._PATIENT
        add_pixels(dataset, _SIDE)
        self._image = _encoded(dataset)
        find, retrieve = Dataset(), Dataset()
        find.QueryRetrieveLevel = retrieve.QueryRetrieveLevel = "STUDY"
        retrieve.StudyInstanceUID, find.PatientID = self._UIDS[0], self._PATIENT
        for keyword in ("StudyInstanceUID", "StudyDate", "AccessionNumber", "PatientName"):
            setattr(find, keyword, "")
        self._find, self._retrieve = _encoded(find), _encoded(retrieve)

    def study(self, number: int) -> Study:
        """The study of one image with this number."""
        patient = f"P{number:09d}"
        uids = [f"{uid[:-20]}{number:020d}" for uid in self._UIDS]
        data = self._image
        for old, new in zip((*self._UIDS, self._PATIENT), (*uids, patient), strict=True):
            data = data.replace(old.encode(), new.encode())
        return Study(
            uids[0],
            uids[2],
            data,
            self._find.replace(self._PATIENT.encode(), patient.encode()),
            self._retrieve.replace(self._UIDS[0].encode(), uids[0].encode()),
        )


def _encoded(dataset: Dataset) -> bytes:
    return encode_data_set(dataset, ExplicitVRLittleEndian)


@dataclass(frozen=True, slots=True)
class Study:
    """A study of one instance, and the Identifiers that find and retrieve it."""

    uid: str
    instance_uid: str
    data: bytes
    find: bytes
    retrieve: bytes


@dataclass
class Crowd:
    """All peers, and what they have met."""

    port: int
    deadline: float
    new_associations: bool
    template: Template = field(default_factory=Template)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    #: Study Instance UIDs whose instance was acknowledged.
    stored: set[str] = field(default_factory=set)

    async def peer(self, number: int) -> None:
        """One peer, until the time is over."""
        assoc: LightAssociation | None = None
        # Studies of one peer are numbered apart from those of the others.
        study_number = number * 100_000
        while time.monotonic() < self.deadline:
            study_number += 1
            study = self.template.study(study_number)
            for kind, work in _WORK.items():
                try:
                    if assoc is None:
                        opening = LightAssociation.open(self.port, _PROPOSAL)
                        assoc = await self._timed("associate", opening)
                    await self._timed(kind, work(assoc, study))
                    if kind == "store":
                        self.stored.add(study.uid)
                    if self.new_associations:
                        leaving, assoc = assoc, None
                        await self._timed("release", leaving.release())
                except _FAILURES:
                    if assoc is not None:
                        assoc.drop()
                        assoc = None
                    break
        if assoc is not None:
            with suppress(*_FAILURES):
                await self._timed("release", assoc.release())

    async def _timed(self, kind: str, work: Awaitable[_T]) -> _T:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                done = await work
        except _FAILURES as error:
            self.failures[kind][f"{type(error).__name__}: {error}"] += 1
            raise
        self.seconds[kind].append(time.perf_counter() - started)
        return done


async def _store(assoc: LightAssociation, study: Study) -> None:
    await assoc.store(CTImageStorage, study.instance_uid, study.data)


async def _find(assoc: LightAssociation, study: Study) -> None:
    found = await assoc.find(_FIND, study.find)
    if len(found) != 1 or study.uid.encode() not in found[0]:
        raise PeerError(f"{len(found)} matches, or another study")


async def _move(assoc: LightAssociation, study: Study) -> None:
    if (completed := await assoc.move(_MOVE, study.retrieve, _DESTINATION)) != 1:
        raise PeerError(f"{completed} sub-operations completed")


async def _get(assoc: LightAssociation, study: Study) -> None:
    if (received := await assoc.get(_GET, study.retrieve)) != 1:
        raise PeerError(f"{received} instances came")


_WORK: Mapping[str, Callable[[LightAssociation, Study], Awaitable[None]]] = {
    "store": _store,
    "find": _find,
    "move": _move,
    "get": _get,
}


async def _missing(port: int, stored: set[str]) -> int:
    """How many of the studies that were acknowledged a C-FIND does not find."""
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", ""
    assoc = await LightAssociation.open(port, _PROPOSAL)
    found = await assoc.find(_FIND, _encoded(query))
    await assoc.release()
    # The Identifier of a match has more than the UID: level, AE title, character set.
    text = b"\n".join(found)
    return sum(uid.encode() not in text for uid in stored)


@dataclass(frozen=True)
class Reading:
    """One run."""

    crowd: Crowd
    seconds: float
    server_cpu: float
    generator_cpu: float
    missing: int

    def rows(self) -> list[list[str]]:
        """One row for each kind of request."""
        rows = []
        for kind in _KINDS:
            taken, failed = self.crowd.seconds[kind], self.crowd.failures[kind].total()
            if taken or failed:
                times = _times(taken) if taken else {}
                row = [f"{times[one]:.3f}" if times else "" for one in _TIMES]
                rows.append([kind, str(len(taken)), str(failed), *row])
        return rows

    def line(self) -> dict[str, object]:
        """The same as JSON."""
        kinds = {
            kind: {
                "count": len(taken),
                "failed": self.crowd.failures[kind].total(),
                **(_times(taken) if taken else {}),
            }
            for kind, taken in self.crowd.seconds.items()
        }
        return {
            "seconds": self.seconds,
            "server_cpu_seconds": self.server_cpu,
            "generator_cpu_seconds": self.generator_cpu,
            "missing": self.missing,
            "requests": kinds,
        }


_TIMES = ("median", "p95", "worst")


def _times(taken: list[float]) -> dict[str, float]:
    return dict(
        zip(_TIMES, (statistics.median(taken), percentile(taken, 95), max(taken)), strict=True)
    )


async def _run(archive: Pacs, place: Path, peers: int, seconds: float, is_new: bool) -> Reading:
    with ExitStack() as stack:
        async with light_destination() as destination:
            running: Running = stack.enter_context(archive.run(place, {_DESTINATION: destination}))
            crowd = Crowd(running.port, time.monotonic() + seconds, is_new)
            cpu, own = running.cpu_seconds, time.process_time()
            started = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(peers):
                    group.create_task(crowd.peer(number))
            taken = time.perf_counter() - started
            cpu, own = running.cpu_seconds - cpu, time.process_time() - own
            missing = await _missing(running.port, crowd.stored)
            if crowd.failures:
                click.echo(f"last words of the archive: {last_words(running.log)}\n", err=True)
    return Reading(crowd, taken, cpu, own, missing)


@click.command()
@click.option("--peers", default=200, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(1))
@click.option(
    "--backend",
    default="sqlite",
    show_default=True,
    type=click.Choice(["sqlite", "postgresql"]),
    help="PostgreSQL is started here.",
)
@click.option("--new-associations", is_flag=True, help="One for each request.")
@click.option("--workers", default=1, type=click.IntRange(1), help="As for pacs serve.")
@click.option("--directory", type=Path, help="Where the archive keeps its data.  [temporary]")
@click.option("--json", "json_path", type=Path, help="Append the reading to this file.")
def main(
    peers: int,
    seconds: float,
    backend: str,
    new_associations: bool,
    workers: int,
    directory: Path | None,
    json_path: Path | None,
) -> None:
    """Let the peers loose, and print what each kind of request took."""
    with ExitStack() as stack:
        place = stack.enter_context(scratch(directory))
        fresh = None
        if backend == "postgresql":
            data = place.root / "postgresql"
            fresh = FreshDatabases(stack.enter_context(postgres_server(data)), data)
            stack.callback(fresh.drop)
        archive = Pacs(fresh, workers)
        own_place = place.directory("pacs")
        reading = asyncio.run(_run(archive, own_place, peers, seconds, new_associations))
    click.echo(f"{archive.name}, {peers} peers, {reading.seconds:.1f} s\n")
    header = ("request", "count", "failed", "median, s", "95 %, s", "worst, s")
    click.echo(table(header, reading.rows()) + "\n")
    requests = sum(len(reading.crowd.seconds[kind]) for kind in _WORK)
    click.echo(
        f"{requests / reading.seconds:.0f} requests/s; CPU of the server {reading.server_cpu:.1f} s "
        f"({1000 * reading.server_cpu / max(requests, 1):.2f} ms a request), of the generator "
        f"{reading.generator_cpu:.1f} s; {len(reading.crowd.stored)} studies acknowledged, {reading.missing} not found"
    )
    for kind, reasons in reading.crowd.failures.items():
        for reason, times in reasons.most_common(3):
            click.echo(f"{kind} failed {times} times: {reason}")
    if json_path is not None:
        with json_path.open("a", encoding="utf-8") as output:
            settings = {"backend": backend, "peers": peers, "new_associations": new_associations}
            write_line(output, {**environment(), **settings, **reading.line()})
    if reading.missing or reading.crowd.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
