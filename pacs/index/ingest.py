"""Store instances in the index: one transaction for a batch.

The usual instance is new, belongs to a series that this process knows and says nothing new about its parents. It
costs one INSERT (``pacs.index.known_insert``), which inserts nothing if any of that is not so. That of a new series or
study costs one more for each row that is new (``pacs.index.driver_parents``). Where that does not do, the transaction
runs with everything read and the parents locked: that is this module. So the memory of parents needs no invalidation:
neither by a rollback nor by a removal, here or in another process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from pacs.index import tables
from pacs.index.conflicts import conflict_note
from pacs.index.driver_parents import DriverParents
from pacs.index.engine import Attempt, Engine, StaleState
from pacs.index.instance_rows import INSTANCE_COLUMNS, guarded_insert, instance_row
from pacs.index.known_insert import KnownInsert
from pacs.index.log_positions import FromLog, LogPositionWriter
from pacs.index.parent_rows import remove_empty
from pacs.index.parents import KnownSeries, ParentMemory, claimed_identity, resolve
from pacs.index.redo_rows import delete_redo
from pacs.index.statistics import Statistics
from pacs.model.instances import DuplicatePolicy, IngestOutcome, IngestResult, InstanceRecord

#: Beyond so many instances of series that are not known, statements for all of them are faster than some for each.
#: One in a transaction takes 3.2 ms of CPU with them and 0.7 without (PostgreSQL 5.6, 1.2); 32 take no more
#: (PostgreSQL, where each statement is a message, 0.6 and 1.1).
_MOST_UNKNOWN = {"sqlite": 32, "postgresql": 8}
#: Study and Series Instance UID.
_SeriesUIDs = tuple[str, str]

#: Instances in one statement; below SQLite's limit of 32,766 variables.
_WAVE_SIZE = 500

_ON_CONFLICT = {
    DuplicatePolicy.REPLACE: IngestOutcome.REPLACED,
    DuplicatePolicy.KEEP: IngestOutcome.KEPT,
    DuplicatePolicy.REFUSE: IngestOutcome.REFUSED,
}


_STORED = IngestResult(outcome=IngestOutcome.STORED)


class Ingest:
    """Writes batches of instances; safe to call from several threads and processes at once."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        """Ingest into ``engine``, whose ``statistics`` are told how it grows."""
        self._engine = engine
        self._statistics = statistics
        self._memory = ParentMemory()
        self._known_insert = KnownInsert(engine.dialect)
        self._driver_parents = DriverParents(engine.dialect)
        self._write_position = LogPositionWriter(engine.dialect)

    def __call__(
        self,
        policy: DuplicatePolicy,
        records: Sequence[InstanceRecord],
        since: float | None = None,
        source: FromLog | None = None,
    ) -> list[IngestResult]:
        """Index the instances as if one by one, all or none; return when they are committed.

        The time to wait for other writers counts from ``since`` (``time.monotonic``), or from now. If they come from a
        log, ``source`` says what there is to know of it.

        Only a patient who has no study between two records of the batch is not forgotten in between.

        Raises:
            IndexUnavailable: nothing was committed, unless it says ``may_have_committed``; calling again with
                the same records is safe either way.
        """
        since = time.monotonic() if since is None else since
        attempt = self._insert_new(records, since, source)
        if attempt is Attempt.COMMITTED:
            results = [_STORED] * len(records)
        else:
            results = self._decide_and_write(records, policy, attempt, since, source)
        self._statistics.note(sum(r.outcome is IngestOutcome.STORED for r in results))
        return results

    def _insert_new(
        self, records: Sequence[InstanceRecord], since: float, source: FromLog | None
    ) -> Attempt:
        """Insert instances that are new and change nothing that is there, or none of them."""
        if not records:
            return Attempt.ROLLED_BACK
        known = [self._memory.recall(record.header) for record in records]
        contents = [(r.location, r.content) for r in records if r.content is not None]
        if None not in known:
            rows = _rows(records, known)
            return self._engine.attempt(
                lambda cursor: self._insert_by_driver(cursor, rows, contents, source), since=since
            )
        if known.count(None) > _MOST_UNKNOWN[self._engine.backend]:
            return Attempt.ROLLED_BACK
        learnt: dict[_SeriesUIDs, tuple[InstanceRecord, KnownSeries]] = {}

        def work(cursor: Any) -> bool:
            learnt.clear()
            whole = self._with_parents(cursor, records, known, learnt)
            return whole is not None and self._insert_by_driver(
                cursor, _rows(records, whole), contents, source
            )

        attempt = self._engine.attempt(work, since=since)
        if attempt is Attempt.COMMITTED:
            for record, series in learnt.values():
                self._memory.remember(record.header, series)
        return attempt

    def _insert_by_driver(
        self,
        cursor: Any,
        rows: Sequence[dict[str, Any]],
        contents: Sequence[tuple[str, bytes]],
        source: FromLog | None,
    ) -> bool:
        if not self._known_insert(cursor, rows, contents):
            return False
        if source is not None and source.reached is not None:
            self._write_position.by_driver(cursor, source.reached)
        return True

    def _with_parents(
        self,
        cursor: Any,
        records: Sequence[InstanceRecord],
        known: Sequence[KnownSeries | None],
        learnt: dict[_SeriesUIDs, tuple[InstanceRecord, KnownSeries]],
    ) -> list[KnownSeries | None] | None:
        """What is known, and the rest found or made; None if that cannot be done here."""
        whole = list(known)
        # Writers of the same new patients meet in one order, or two of them wait for each other.
        unknown = [index for index, one in enumerate(known) if one is None]
        for index in sorted(unknown, key=lambda one: claimed_identity(records[one].header).key):
            record = records[index]
            header = record.header
            uids = header.study_instance_uid, header.series_instance_uid
            if uids in learnt:
                series: KnownSeries | None = learnt[uids][1]
                if series is None or not series.covers(header):
                    return None
            else:
                series = self._driver_parents(cursor, header)
                if series is None:
                    return None
                learnt[uids] = record, series
            whole[index] = series
        return whole

    def _decide_and_write(
        self,
        records: Sequence[InstanceRecord],
        policy: DuplicatePolicy,
        attempt: Attempt,
        since: float,
        source: FromLog | None,
    ) -> list[IngestResult]:
        batches: list[_Batch] = []

        def work(connection: sa.Connection) -> None:
            batches.append(_Batch(connection, policy, source.horizon if source else None))
            for wave in _waves(records):
                batches[-1].write([(index, records[index]) for index in wave])
            if source is not None and source.reached is not None:
                self._write_position(connection, source.reached)

        may_have_committed = attempt is Attempt.MAY_HAVE_COMMITTED
        self._engine.transact(work, may_have_committed=may_have_committed, since=since)
        batch = batches[-1]
        for record, known in batch.learnt:
            self._memory.remember(record.header, known)
        return [batch.results[index] for index in range(len(records))]


def _rows(
    records: Sequence[InstanceRecord], known: Sequence[KnownSeries | None]
) -> list[dict[str, Any]]:
    return [instance_row(r, k) for r, k in zip(records, known, strict=True) if k is not None]


def _waves(records: Sequence[InstanceRecord]) -> Iterator[list[int]]:
    """Split a batch so that a SOP Instance UID occurs once in each part, in order."""
    wave: list[int] = []
    seen: set[str] = set()
    for index, record in enumerate(records):
        uid = record.header.sop_instance_uid
        if uid in seen or len(wave) == _WAVE_SIZE:
            yield wave
            wave, seen = [], set()
        wave.append(index)
        seen.add(uid)
    if wave:
        yield wave


@dataclass(frozen=True, slots=True)
class _Existing:
    key: int
    series_key: int
    location: str
    digest: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class _Write:
    """One instance row to insert, or to replace the existing one with."""

    index: int
    record: InstanceRecord
    existing: _Existing | None


@dataclass(slots=True)
class _Batch:
    """One attempt at a batch: its results are true only if its transaction commits."""

    connection: sa.Connection
    policy: DuplicatePolicy
    #: See ``FromLog``.
    horizon: str | None
    results: dict[int, IngestResult] = field(default_factory=dict)
    learnt: list[tuple[InstanceRecord, KnownSeries]] = field(default_factory=list)

    def write(self, wave: list[tuple[int, InstanceRecord]]) -> None:
        """Index instances with different SOP Instance UIDs."""
        existing = self._existing([record.header.sop_instance_uid for _, record in wave])
        writes: list[_Write] = []
        own: list[InstanceRecord] = []
        for index, record in wave:
            duplicate = existing.get(record.header.sop_instance_uid)
            outcome, is_written = self._decide(record, duplicate)
            self.results[index] = IngestResult(outcome=outcome)
            if is_written:
                writes.append(_Write(index, record, duplicate))
            elif duplicate is not None and duplicate.location == record.location:
                own.append(record)
        self._keep_contents_again(own)
        if writes:
            pairs = self._with_parents(writes)
            self._insert([pair for pair in pairs if pair[0].existing is None])
            self._replace([pair for pair in pairs if pair[0].existing is not None])

    def _existing(self, uids: list[str]) -> dict[str, _Existing]:
        found = self.connection.execute(_SELECT_EXISTING, {"uids": uids})
        return {uid: _Existing(*row) for uid, *row in found}

    def _decide(
        self, record: InstanceRecord, existing: _Existing | None
    ) -> tuple[IngestOutcome, bool]:
        """The outcome, and whether there is a row to write."""
        if existing is None:
            return IngestOutcome.STORED, True
        if existing.location == record.location:
            # Our own row: the connection was lost after the server had committed. It must not be taken for
            # a duplicate, whose new file the caller would remove.
            return IngestOutcome.STORED, False
        if existing.location == record.in_place_of:
            return IngestOutcome.REPLACED, True
        if (existing.digest, existing.transfer_syntax_uid) == (
            record.digest,
            record.header.transfer_syntax_uid,
        ):
            return IngestOutcome.IDENTICAL, False
        policy = self.policy
        if policy is DuplicatePolicy.LATEST:
            is_ahead = self.horizon is not None and existing.location > self.horizon
            is_later = is_ahead or record.location > existing.location
            policy = DuplicatePolicy.REPLACE if is_later else DuplicatePolicy.KEEP
        if policy is DuplicatePolicy.REPLACE and record.header.lacking:
            # Better than nothing, but not than what is stored.
            policy = DuplicatePolicy.KEEP
        outcome = _ON_CONFLICT[policy]
        return outcome, outcome is IngestOutcome.REPLACED

    def _with_parents(self, writes: list[_Write]) -> list[tuple[_Write, KnownSeries]]:
        resolution = resolve(self.connection, [write.record.header for write in writes])
        for write, keywords, conflicts in zip(
            writes, resolution.contradictions, resolution.conflicts, strict=True
        ):
            study = write.record.header.study_instance_uid
            notes = tuple(
                [f"{word} of study {study} changed by a later instance" for word in keywords]
                + [conflict_note(word, study) for word in conflicts]
            )
            if notes:
                outcome = self.results[write.index].outcome
                self.results[write.index] = IngestResult(outcome=outcome, notes=notes)
        remove_empty(self.connection, patients=resolution.left_patients)
        pairs = list(zip(writes, resolution.known, strict=True))
        self.learnt.extend((write.record, known) for write, known in pairs)
        return pairs

    def _insert(self, pairs: list[tuple[_Write, KnownSeries]]) -> None:
        if not pairs:
            return
        rows = [instance_row(write.record, known) for write, known in pairs]
        result = self.connection.execute(_INSERT, rows)
        if result.rowcount != len(rows):
            raise StaleState
        self._keep_contents([write.record for write, _ in pairs])

    def _keep_contents(self, records: Sequence[InstanceRecord]) -> None:
        rows = [
            {"location": record.location, "content": record.content}
            for record in records
            if record.content is not None
        ]
        if rows:
            self.connection.execute(sa.insert(tables.redo), rows)

    def _keep_contents_again(self, records: Sequence[InstanceRecord]) -> None:
        """Keep the bytes of files whose row is there already, unless they are kept.

        Nothing tells whether this process wrote the row, or somebody who found the file and cannot know that it is
        not on the disk yet. To keep bytes once more that are on the disk by now costs a row for a moment.
        """
        kept = [record for record in records if record.content is not None]
        if not kept:
            return
        locations = [record.location for record in kept]
        found = set(self.connection.scalars(_SELECT_KEPT, {"locations": locations}))
        self._keep_contents([record for record in kept if record.location not in found])

    def _replace(self, pairs: list[tuple[_Write, KnownSeries]]) -> None:
        left_series: set[int] = set()
        for write, known in pairs:
            assert write.existing is not None
            row = instance_row(write.record, known)
            row |= {"_key": write.existing.key, "_location": write.existing.location}
            # Two writers may replace one row: the second finds another location than it read.
            if self.connection.execute(_UPDATE, row).rowcount != 1:
                raise StaleState
            if write.existing.series_key != known.series.key:
                left_series.add(write.existing.series_key)
            self.results[write.index] = IngestResult(
                outcome=IngestOutcome.REPLACED,
                superseded_location=write.existing.location,
                notes=self.results[write.index].notes,
            )
            delete_redo(self.connection, [write.existing.location])
        self._keep_contents([write.record for write, _ in pairs])
        remove_empty(self.connection, series=left_series)


_SELECT_EXISTING = sa.select(
    tables.instance.c.sop_instance_uid,
    tables.instance.c.id,
    tables.instance.c.series_pk,
    tables.instance.c.location,
    tables.instance.c.digest,
    tables.instance.c.transfer_syntax_uid,
).where(tables.instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True)))


_SELECT_KEPT = sa.select(tables.redo.c.location).where(
    tables.redo.c.location.in_(sa.bindparam("locations", expanding=True))
)
_INSERT = guarded_insert(sa.insert(tables.instance)).execution_options(preserve_rowcount=True)
_UPDATE = (
    sa.update(tables.instance)
    .where(
        tables.instance.c.id == sa.bindparam("_key"),
        tables.instance.c.location == sa.bindparam("_location"),
    )
    .values(
        {column.name: sa.bindparam(column.name) for column in INSTANCE_COLUMNS}
        | {"series_pk": sa.bindparam("_series_key")}
    )
)
