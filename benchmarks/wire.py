"""Claim: storing and retrieving over the wire is faster than with the archives people use today.

Every archive is started fresh for every measurement, the archives take turns within each round and the first one
changes from round to round, so that other load on the machine meets all of them; a ratio is the median of those of
the rounds. A reading counts only if everything that was stored is found afterwards, and every retrieve ended in
success. The processor time of an archive's processes stands beside its time: noise changes it least.

    python -m benchmarks.wire --postgresql --with-qrscp --json readings.jsonl
    python -m benchmarks.wire --work store-ct --work move-ct --rounds 5
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import click

from benchmarks.archives import Dcmqrscp, Orthanc, Pacs, Receiver, StockQrscp, Storescp
from benchmarks.databases import FreshDatabases, postgres_server
from benchmarks.instances import Data
from benchmarks.peers import Archive, WorkFailed
from benchmarks.report import environment, table, write_line
from benchmarks.scratch import SLOW_MILLISECONDS, Scratch, scratch
from benchmarks.wire_tables import READINGS_HEADER, Readings, readings_table, rows_of, targets_table
from benchmarks.wire_targets import WORKS, Work
from benchmarks.wire_work import Bench


@dataclass
class Contest:
    """All servers that take part, and what they did so far."""

    ours: list[Pacs]
    peers: list[Archive]
    rounds: int
    output: TextIO | None
    results: dict[str, dict[str, Readings]] = field(default_factory=dict)

    def entrants(self, work: Work) -> list[Archive]:
        """Who does a work, ours first."""
        ours: Sequence[Archive] = self.ours if work.ours == "pacs" else [Receiver()]
        return [*ours, *(peer for peer in self.peers if peer.name in work.peers)]

    def measure(self, name: str, bench: Bench) -> None:
        """Do one work, round by round."""
        entrants = self.entrants(WORKS[name])
        self.results[name] = {archive.name: Readings() for archive in entrants}
        for number in range(1 if WORKS[name].is_once else self.rounds):
            turn = number % len(entrants)
            for archive in entrants[turn:] + entrants[:turn]:
                self._one(name, number, archive, bench)

    def _one(self, name: str, number: int, archive: Archive, bench: Bench) -> None:
        readings = self.results[name][archive.name]
        line = {"work": name, "round": number, "archive": archive.name}
        try:
            reading = WORKS[name].measure(archive, bench)
        except WorkFailed as failure:
            click.echo(f"{name}, round {number + 1}, {archive.name} failed: {failure}", err=True)
            readings.failures.append(str(failure))
            self._write({**line, "failure": str(failure)})
            return
        readings.by_round[number] = reading
        self._write(
            {
                **line,
                "seconds": reading.seconds,
                "cpu_seconds": reading.cpu_seconds,
                **reading.facts,
            }
        )

    def _write(self, line: Mapping[str, object]) -> None:
        if self.output is not None:
            write_line(self.output, dict(line))


@contextmanager
def databases(url: str | None, is_own: bool, place: Scratch) -> Iterator[FreshDatabases | None]:
    """PostgreSQL, the user's or one started here, or None."""
    if url is None and not is_own:
        yield None
        return
    with ExitStack() as stack:
        data = None if url else place.root / "postgresql"
        if url is None:
            assert data is not None
            url = stack.enter_context(postgres_server(data))
        fresh = FreshDatabases(url, data)
        try:
            yield fresh
        finally:
            fresh.drop()


def describe(contest: Contest, place: Scratch, fresh: FreshDatabases | None, scale: float) -> str:
    """Machine, versions and settings, as Markdown."""
    facts = environment()
    machine, versions = facts["machine"], facts["versions"]
    lines = [
        f"{facts['date']}, commit {facts['commit']}, {contest.rounds} rounds, scale {scale:g}",
        "machine: "
        + ", ".join(
            (
                machine["processor"],
                f"{machine['cores']} cores",
                f"{machine['memory_bytes'] >> 30} GiB",
                machine["system"],
                f"load {machine['load']}",
            )
        ),
        "versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()),
        f"making a file in {place.root.parent}: {place.creation_milliseconds:.3f} ms (median of 200)",
        "TCP_NODELAY=1 for every DCMTK process and Orthanc unless the work says otherwise",
    ]
    lines += [f"{one.name}: {one.settings}" for one in (*contest.ours, Receiver(), *contest.peers)]
    if fresh is not None:
        lines.append("PostgreSQL: " + ", ".join(" ".join(pair) for pair in fresh.facts().items()))
    return "\n".join(f"- {line}" for line in lines)


def _json_file(path: Path | None, stack: ExitStack) -> TextIO | None:
    return None if path is None else stack.enter_context(path.open("a", encoding="utf-8"))


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--work", "works", multiple=True, type=click.Choice(list(WORKS)), help="[all]")
@click.option("--only-pacs", is_flag=True, help="No peers: for profiling.")
@click.option("--with-qrscp", is_flag=True, help="Also pynetdicom's qrscp, for move-ct.")
@click.option("--postgresql", is_flag=True, help="Also pacs on a PostgreSQL started here.")
@click.option("--database-url", help="Also pacs on this PostgreSQL server; databases are made.")
@click.option("--workers", default=1, type=click.IntRange(1), help="As for pacs serve.")
@click.option("--directory", type=Path, help="Where the archives keep their data.  [temporary]")
@click.option("--json", "json_path", type=Path, help="Append each reading to this file.")
@click.option("--scale", default=1.0, help="Fraction of the instances, for trying out.")
def main(
    rounds: int,
    works: tuple[str, ...],
    only_pacs: bool,
    with_qrscp: bool,
    postgresql: bool,
    database_url: str | None,
    workers: int,
    directory: Path | None,
    json_path: Path | None,
    scale: float,
) -> None:
    """Measure, and print medians, spread and ratios."""
    with ExitStack() as stack:
        output = _json_file(json_path, stack)
        place = stack.enter_context(scratch(directory))
        if place.creation_milliseconds > SLOW_MILLISECONDS:
            click.echo(
                f"WARNING: making a file takes {place.creation_milliseconds:.2f} ms here; were many "
                "deleted just before? Wait some minutes, or name another --directory.",
                err=True,
            )
        fresh = stack.enter_context(databases(database_url, postgresql, place))
        ours = [Pacs(workers=workers)] + ([Pacs(fresh, workers)] if fresh else [])
        peers: list[Archive] = [Orthanc(), Dcmqrscp(), Storescp(keeps=True), Storescp(keeps=False)]
        peers += [StockQrscp()] if with_qrscp else []
        contest = Contest(ours, [] if only_pacs else peers, rounds, output)
        click.echo(describe(contest, place, fresh, scale) + "\n")
        if output is not None:
            write_line(output, {**environment(), "rounds": rounds, "scale": scale})
        bench = Bench(Data(place.root / "instances", scale), place)
        for name in works or WORKS:
            contest.measure(name, bench)
            # As soon as they are known: a run takes minutes.
            click.echo(table(READINGS_HEADER, rows_of(name, contest.results[name])) + "\n")
        click.echo(readings_table(contest.results) + "\n\n" + targets_table(contest.results))


if __name__ == "__main__":
    main()
