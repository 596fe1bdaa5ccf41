"""The readings as Markdown: one row for each work and archive, and what was wanted beside what was reached."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.report import table
from benchmarks.wire_targets import WORKS, Bound, Faster, Work
from benchmarks.wire_work import Reading


@dataclass
class Readings:
    """What one archive gave for one work, by round; a round that failed has no reading."""

    by_round: dict[int, Reading] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(reading.seconds for reading in self.by_round.values())

    def fact(self, name: str) -> float:
        """The median of a fact."""
        return statistics.median(reading.facts[name] for reading in self.by_round.values())


Results = Mapping[str, Mapping[str, Readings]]


def ratios(ours: Readings, theirs: Readings) -> list[float]:
    """Their time over ours, for each round in which both have one."""
    both = sorted(ours.by_round.keys() & theirs.by_round.keys())
    return [theirs.by_round[one].seconds / ours.by_round[one].seconds for one in both]


def rows_of(name: str, archives: Mapping[str, Readings]) -> list[list[str]]:
    """The rows of one work."""
    ours = next(iter(archives.values()))
    return [_row(name, archive, readings, ours) for archive, readings in archives.items()]


def _row(name: str, archive: str, readings: Readings, ours: Readings) -> list[str]:
    if readings.failures:
        rounds = len(readings.failures) + len(readings.by_round)
        note = f"in {len(readings.failures)} of {rounds} rounds: {readings.failures[0][:120]}"
        return [name, archive, "failed", "", "", "", note]
    seconds = [reading.seconds for reading in readings.by_round.values()]
    cpu = statistics.median(reading.cpu_seconds for reading in readings.by_round.values())
    facts = next(iter(readings.by_round.values())).facts
    notes = [f"{fact} {readings.fact(fact):.3g}" for fact in facts]
    against = [] if ours.failures else ratios(ours, readings)
    return [
        name,
        archive,
        _time(statistics.median(seconds)),
        f"{_time(min(seconds))}-{_time(max(seconds))}",
        f"{cpu:.2f}" if cpu >= 0.1 else f"{cpu * 1000:.1f} ms",
        _spread(against) if against and readings is not ours else "",
        ", ".join(notes),
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.3f}" if seconds >= 0.05 else f"{seconds * 1000:.2f} ms"


def _spread(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


READINGS_HEADER = (
    "work",
    "archive",
    "median, s",
    "min-max",
    "its CPU, s",
    "times ours (by round)",
    "notes",
)


def readings_table(results: Results) -> str:
    """One row for each work and archive."""
    rows = [row for name, archives in results.items() for row in rows_of(name, archives)]
    return table(READINGS_HEADER, rows)


def targets_table(results: Results) -> str:
    """What was wanted, what was reached, and whether that is enough; by archive of ours."""
    rows = []
    for name, archives in results.items():
        work = WORKS[name]
        for ours in (one for one in archives if one.startswith("pacs")):
            rows += [_verdict(work, target, ours, archives) for target in work.targets]
    return table(("work", "archive", "wanted", "reached", "enough"), [row for row in rows if row])


def _verdict(
    work: Work, target: Faster | Bound, ours: str, archives: Mapping[str, Readings]
) -> list[str]:
    mine = archives[ours]
    start = [work.title, ours, target.text]
    if mine.failures:
        return [*start, "failed", "no"]
    if isinstance(target, Bound):
        value = mine.fact(target.fact)
        return [*start, f"{value:.3g}", "yes" if target.is_met(value) else "no"]
    if target.peer not in archives:
        return []
    against = ratios(mine, archives[target.peer])
    if archives[target.peer].failures or not against:
        return [*start, f"{target.peer} failed", "n/a"]
    reached = statistics.median(against)
    return [*start, _spread(against), "yes" if reached >= target.wanted else "no"]
