"""Store instances in the index: one transaction for a batch.

The usual instance belongs to a series that this process knows and says nothing new about its parents. It costs
one SELECT (is it a duplicate?) and one INSERT. That INSERT selects from the parent rows and demands the
revisions that are remembered: if another writer changed or removed one meanwhile, it inserts fewer rows than
expected, the transaction is rolled back and runs again with the parents read and locked. So the memory needs no
invalidation: neither by a rollback nor by a removal, here or in another process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.engine import Engine, StaleState
from pacs.index.parent_rows import remove_empty
from pacs.index.parents import KnownSeries, ParentMemory, resolve
from pacs.index.records import DuplicatePolicy, IngestOutcome, IngestResult, InstanceRecord
from pacs.index.rows import LEVEL_COLUMNS
from pacs.index.statistics import Statistics

#: Instances in one statement; below SQLite's limit of 32,766 variables.
_WAVE_SIZE = 500

_ON_CONFLICT = {
    DuplicatePolicy.REPLACE: IngestOutcome.REPLACED,
    DuplicatePolicy.KEEP: IngestOutcome.KEPT,
    DuplicatePolicy.REFUSE: IngestOutcome.REFUSED,
}


class Ingest:
    """Writes batches of instances; safe to call from several threads and processes at once."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        """Ingest into ``engine``, whose ``statistics`` are told how it grows."""
        self._engine = engine
        self._statistics = statistics
        self._memory = ParentMemory()

    def __call__(
        self, records: Sequence[InstanceRecord], policy: DuplicatePolicy
    ) -> list[IngestResult]:
        """Index the instances as if one by one, all or none; return when they are committed.

        Only a patient who has no study between two records of the batch is not forgotten in between.

        Raises:
            IndexUnavailable: nothing was committed, unless it says ``may_have_committed``; calling again with
                the same records is safe either way.
        """
        attempts: list[_Batch] = []

        def work(connection: sa.Connection) -> None:
            # Only the first attempt trusts the memory.
            memory = None if attempts else self._memory
            attempts.append(_Batch(connection, policy, memory))
            for wave in _waves(records):
                attempts[-1].write([(index, records[index]) for index in wave])

        self._engine.transact(work)
        batch = attempts[-1]
        for record, known in batch.learnt:
            self._memory.remember(record.header, known)
        results = [batch.results[index] for index in range(len(records))]
        self._statistics.note(sum(r.outcome is IngestOutcome.STORED for r in results))
        return results


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
    memory: ParentMemory | None
    results: dict[int, IngestResult] = field(default_factory=dict)
    learnt: list[tuple[InstanceRecord, KnownSeries]] = field(default_factory=list)

    def write(self, wave: list[tuple[int, InstanceRecord]]) -> None:
        """Index instances with different SOP Instance UIDs."""
        existing = self._existing([record.header.sop_instance_uid for _, record in wave])
        writes: list[_Write] = []
        for index, record in wave:
            duplicate = existing.get(record.header.sop_instance_uid)
            outcome, is_written = self._decide(record, duplicate)
            self.results[index] = IngestResult(outcome=outcome)
            if is_written:
                writes.append(_Write(index, record, duplicate))
        known = self._known_parents(writes)
        self._insert([pair for pair in known if pair[0].existing is None])
        self._replace([pair for pair in known if pair[0].existing is not None])

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
        if (existing.digest, existing.transfer_syntax_uid) == (
            record.digest,
            record.header.transfer_syntax_uid,
        ):
            return IngestOutcome.IDENTICAL, False
        policy = self.policy
        if policy is DuplicatePolicy.LATEST:
            is_later = record.location > existing.location
            policy = DuplicatePolicy.REPLACE if is_later else DuplicatePolicy.KEEP
        outcome = _ON_CONFLICT[policy]
        return outcome, outcome is IngestOutcome.REPLACED

    def _known_parents(self, writes: list[_Write]) -> list[tuple[_Write, KnownSeries]]:
        """The parents for each write, from memory if it knows all of them, else from the tables."""
        if not writes:
            return []
        if self.memory is not None:
            # A replaced row has no guard like the INSERT's, so its parents are always locked.
            recalled = [
                (write, self.memory.recall(write.record.header))
                for write in writes
                if write.existing is None
            ]
            pairs = [(write, known) for write, known in recalled if known is not None]
            if len(pairs) == len(writes):
                return pairs
        return self._resolved_parents(writes)

    def _resolved_parents(self, writes: list[_Write]) -> list[tuple[_Write, KnownSeries]]:
        resolution = resolve(self.connection, [write.record.header for write in writes])
        for write, keywords in zip(writes, resolution.contradictions, strict=True):
            study = write.record.header.study_instance_uid
            notes = tuple(
                f"{word} of study {study} changed by a later instance" for word in keywords
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
        rows = [_instance_row(write.record, known) for write, known in pairs]
        result = self.connection.execute(_INSERT, rows)
        if result.rowcount != len(rows):
            raise StaleState

    def _replace(self, pairs: list[tuple[_Write, KnownSeries]]) -> None:
        left_series: set[int] = set()
        for write, known in pairs:
            assert write.existing is not None
            row = _instance_row(write.record, known)
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
        remove_empty(self.connection, series=left_series)


_SELECT_EXISTING = sa.select(
    tables.instance.c.sop_instance_uid,
    tables.instance.c.id,
    tables.instance.c.series_pk,
    tables.instance.c.location,
    tables.instance.c.digest,
    tables.instance.c.transfer_syntax_uid,
).where(tables.instance.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True)))


def _instance_row(record: InstanceRecord, known: KnownSeries) -> dict[str, Any]:
    columns = LEVEL_COLUMNS[Level.IMAGE]
    header = record.header
    row: dict[str, Any] = {**columns.row(columns.values(header.values))}
    row["sop_instance_uid"] = header.sop_instance_uid
    row["sop_class_uid"] = header.sop_class_uid
    row["transfer_syntax_uid"] = header.transfer_syntax_uid
    row["location"] = record.location
    row["data_set_offset"] = record.data_set_offset
    row["data_set_size"] = record.data_set_size
    row["digest"] = record.digest
    row["received_at"] = record.received_at
    row["source_ae"] = record.source_ae
    row["_series_key"], row["_series_revision"] = known.series.key, known.series.revision
    row["_study_key"], row["_study_revision"] = known.study.key, known.study.revision
    row["_patient_key"], row["_patient_revision"] = known.patient.key, known.patient.revision
    return row


_COLUMNS = [c for c in tables.instance.c if c.name not in {"id", "series_pk"}]


def _guarded_insert() -> sa.Insert:
    """INSERT ... SELECT that finds its parents only in the remembered state."""
    source = tables.series.join(tables.study).join(tables.patient)
    select = (
        sa.select(tables.series.c.id, *(sa.bindparam(c.name, type_=c.type) for c in _COLUMNS))
        .select_from(source)
        .where(
            *(
                condition
                for table in (tables.series, tables.study, tables.patient)
                for condition in (
                    table.c.id == sa.bindparam(f"_{table.name}_key"),
                    table.c.revision == sa.bindparam(f"_{table.name}_revision"),
                )
            )
        )
    )
    return (
        sa.insert(tables.instance)
        .from_select(["series_pk", *(c.name for c in _COLUMNS)], select, include_defaults=False)
        .execution_options(preserve_rowcount=True)
    )


_INSERT = _guarded_insert()
_UPDATE = (
    sa.update(tables.instance)
    .where(
        tables.instance.c.id == sa.bindparam("_key"),
        tables.instance.c.location == sa.bindparam("_location"),
    )
    .values(
        {column.name: sa.bindparam(column.name) for column in _COLUMNS}
        | {"series_pk": sa.bindparam("_series_key")}
    )
)
