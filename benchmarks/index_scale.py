"""Claim: neither storing nor finding slows down as the index grows.

Loads synthetic instances through the archive's own ingest, in batches of one transaction each, and stops at 10,000,
100,000 and 1,000,000 instances to measure C-FIND and the plan of a C-MOVE: from the decoded Identifier of the
request to the response Identifiers (for a C-MOVE, to the locations of the instances), which is all but the network and
the encoding of the data sets. Every answer is checked for its number of matches.

The baselines run interleaved with it: the same values inserted by ``executemany`` into one table without indexes, in
transactions of the same size, and SELECTs by its primary key.

    python -m benchmarks.index_scale --instances 100000 --output readings.jsonl

Prints Markdown; ``--output`` keeps each reading as a JSON line.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks.databases import Database, PlainTable, opened
from benchmarks.index_tables import ingest_table, query_table, universal_table
from benchmarks.queries import Archive, Kind, Request, make_kinds, universal
from benchmarks.report import (
    Reading,
    environment,
    own_memory_bytes,
    peak_memory_bytes,
    percentile,
    reset_peak_memory,
    write_line,
)
from benchmarks.synthetic import INSTANCES_PER_STUDY, Study, make_records, make_studies
from pacs.dicom.query.identifier import parse_find, parse_retrieve
from pacs.dicom.query.query_options import QueryOptions
from pacs.dicom.query.response import encode_response
from pacs.index.index import Index

SIZES = (10_000, 100_000, 1_000_000)
#: Records in a transaction, as an import makes them.
BATCH = 128
_STUDIES_AT_A_TIME = 100
_ROUNDS = 3
_REQUESTS_PER_ROUND = 30
_WARM_UP = 3
#: Instances that a retrieve looks up at a time (pacs.archive.retrieve).
_LOOKED_UP = 256


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    instances: int
    backends: tuple[str, ...]
    seed: int
    output: TextIO | None
    postgres_url: str | None
    directory: Path | None


class Run:
    """The benchmark on one backend."""

    def __init__(self, backend: str, database: Database, options: Options, bar: Progress) -> None:
        """Measure ``database``."""
        self._backend = backend
        self._database = database
        self._options = options
        self._bar = bar
        self._studies = make_studies(-(-options.instances // INSTANCES_PER_STUDY), options.seed)

    def __call__(self) -> Iterator[Reading]:
        """Load and measure, size after size."""
        task = self._bar.add_task(self._backend, total=len(self._studies) * INSTANCES_PER_STUDY)
        with ExitStack() as stack:
            index = stack.enter_context(closing(Index.open(self._database.url)))
            plain = stack.enter_context(closing(self._database.plain_table()))
            loaded = 0
            for size in _sizes(len(self._studies)):
                yield from self._load(index, plain, self._studies[loaded:size], task)
                loaded = size
                yield from self._measure(index, plain, self._studies[:size])

    def _reading(self, size: int, what: str, **values: object) -> Reading:
        return {
            "backend": self._backend,
            "instances": size * INSTANCES_PER_STUDY,
            "what": what,
            **values,
        }

    def _load(
        self, index: Index, plain: PlainTable, studies: list[Study], task: TaskID
    ) -> Iterator[Reading]:
        reset_peak_memory()
        seconds: list[float] = []
        plain_seconds = 0.0
        count = 0
        for first in range(0, len(studies), _STUDIES_AT_A_TIME):
            records = list(make_records(studies[first : first + _STUDIES_AT_A_TIME]))
            for start in range(0, len(records), BATCH):
                batch = records[start : start + BATCH]
                began = time.perf_counter()
                index.ingest_batch(batch)
                stored = time.perf_counter()
                plain.insert(batch)
                plain_seconds += time.perf_counter() - stored
                seconds.append(stored - began)
                self._bar.advance(task, len(batch))
            count += len(records)
        total = sum(seconds)
        yield self._reading(
            studies[-1].number + 1,
            "ingest",
            stored=count,
            seconds=total,
            per_second=count / total,
            batch_median_ms=percentile(seconds, 50) * 1000,
            batch_p95_ms=percentile(seconds, 95) * 1000,
            batch_maximum_ms=max(seconds) * 1000,
            plain_per_second=count / plain_seconds,
            times_plain=total / plain_seconds,
            index_bytes=self._database.size_bytes(),
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _measure(self, index: Index, plain: PlainTable, studies: list[Study]) -> Iterator[Reading]:
        reset_peak_memory()
        rng = random.Random(f"{self._options.seed}/requests/{len(studies)}")
        archive = Archive(studies)
        kinds = make_kinds(archive)
        timings: list[list[list[float]]] = [[] for _ in kinds]
        matches: list[list[int]] = [[] for _ in kinds]
        plain_ms: list[float] = []
        # Rounds over all kinds, so that a noisy minute of the machine does not hit one kind alone.
        for _ in range(_ROUNDS):
            for number, kind in enumerate(kinds):
                requests = [kind.make(rng) for _ in range(_WARM_UP + _REQUESTS_PER_ROUND)]
                elapsed = [_timed(index, kind, request) for request in requests]
                timings[number].append(elapsed[_WARM_UP:])
                matches[number].extend(request.matches for request in requests[_WARM_UP:])
            plain_ms.extend(_plain_select(plain, len(studies), rng))
        for kind, rounds, found in zip(kinds, timings, matches, strict=True):
            yield self._reading(
                len(studies),
                kind.name,
                level=kind.level.name,
                **_spread(rounds),
                matches_median=percentile([float(n) for n in found], 50),
                matches_least=min(found),
                matches_most=max(found),
            )
        yield self._reading(len(studies), "plain SELECT", **_spread([plain_ms]))
        yield self._reading(
            len(studies),
            "universal query",
            **_consume(index, universal(archive)),
            peak_memory_bytes=peak_memory_bytes(),
        )


def _sizes(studies: int) -> list[int]:
    """The sizes to measure at, in studies."""
    wanted = {size // INSTANCES_PER_STUDY for size in SIZES}
    return sorted({size for size in wanted if size < studies} | {studies})


def _timed(index: Index, kind: Kind, request: Request) -> float:
    """Milliseconds for one request."""
    began = time.perf_counter()
    found = _retrieve(index, request) if kind.is_retrieve else _find(index, request)
    elapsed = time.perf_counter() - began
    if found != request.matches:
        what = f"{kind.name} at {kind.level.name}"
        raise SystemExit(
            f"{what}: {found} matches instead of {request.matches}\n{request.identifier}"
        )
    return elapsed * 1000


def _find(index: Index, request: Request) -> int:
    query = parse_find(
        request.identifier, request.model, QueryOptions(relational=request.relational)
    )
    count = 0
    for record in index.search(query):
        encode_response(query, record, retrieve_ae_title="PACS")
        count += 1
    return count


def _consume(index: Index, request: Request) -> dict[str, float]:
    """Answer a request with very many matches: when the first comes, what each costs, what memory grows by."""
    before = most = own_memory_bytes()
    began = time.perf_counter()
    first = 0.0
    query = parse_find(request.identifier, request.model)
    for count, record in enumerate(index.search(query), start=1):
        encode_response(query, record, retrieve_ae_title="PACS")
        if count == 1:
            first = time.perf_counter() - began
        if count % 500 == 0:
            most = max(most, own_memory_bytes())
    elapsed = time.perf_counter() - began
    return {
        "matches": count,
        "first_ms": first * 1000,
        "seconds": elapsed,
        "per_100_ms": elapsed / count * 100_000,
        "memory_growth_bytes": most - before,
    }


def _retrieve(index: Index, request: Request) -> int:
    plan = index.plan(parse_retrieve(request.identifier, request.model))
    return sum(
        len(index.instances(plan.keys[first : first + _LOOKED_UP]))
        for first in range(0, len(plan.keys), _LOOKED_UP)
    )


def _plain_select(plain: PlainTable, studies: int, rng: random.Random) -> Iterator[float]:
    for _ in range(_REQUESTS_PER_ROUND):
        key = rng.randint(1, studies * INSTANCES_PER_STUDY)
        began = time.perf_counter()
        plain.select(key)
        yield (time.perf_counter() - began) * 1000


def _spread(rounds: list[list[float]]) -> dict[str, float]:
    every = [elapsed for elapsed_of_round in rounds for elapsed in elapsed_of_round]
    medians = [percentile(elapsed, 50) for elapsed in rounds]
    return {
        "requests": len(every),
        "median_ms": percentile(every, 50),
        "p95_ms": percentile(every, 95),
        "lowest_round_median_ms": min(medians),
        "highest_round_median_ms": max(medians),
    }


def main() -> None:
    """Run the benchmark from the command line."""
    options = _options()
    readings: list[Reading] = []
    surroundings = environment()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:
        for backend in options.backends:
            with opened(backend, options.postgres_url, options.directory) as database:
                settings = {"seed": options.seed, "batch": BATCH, "database": database.facts()}
                for reading in Run(backend, database, options, bar)():
                    readings.append(reading)
                    if options.output is not None:
                        write_line(options.output, reading | settings | surroundings)
    print(ingest_table(readings))
    for backend in options.backends:
        print(f"\n{query_table(readings, backend)}")
    print(f"\n{universal_table(readings)}")


def _options() -> Options:
    parser = argparse.ArgumentParser(description="Does the index slow down as it grows?")
    parser.add_argument("--instances", type=int, default=SIZES[-1], help="how many to load")
    parser.add_argument("--backend", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic data and requests")
    parser.add_argument(
        "--output", type=argparse.FileType("a", encoding="utf-8"), help="append JSON lines here"
    )
    parser.add_argument(
        "--postgres-url", help="an empty database to use; the default is a server of our own"
    )
    parser.add_argument("--directory", type=Path, help="where the databases are made; they go")
    found = parser.parse_args()
    return Options(
        instances=found.instances,
        backends=("sqlite", "postgresql") if found.backend == "both" else (found.backend,),
        seed=found.seed,
        output=found.output,
        postgres_url=found.postgres_url,
        directory=found.directory,
    )


if __name__ == "__main__":
    main()
