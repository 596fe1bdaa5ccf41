from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from pacs.index import ingest, tables
from pacs.index.driver_parents import DriverParents
from pacs.index.engine import Attempt
from pacs.index.index import Index
from pacs.model.instances import IngestOutcome, IngestResult, InstanceRecord
from tests.index.test_ingest import dump, rows, run_in_threads, stats

_PATIENTS = [
    {"PatientID": "P-1", "PatientName": "Doe^Jane"},
    {"PatientID": "P-1", "PatientName": "Doe^John"},
    {"PatientID": "P-1", "IssuerOfPatientID": "A", "PatientBirthDate": "19500101"},
    {"PatientID": "P-2", "PatientName": ""},
    {"PatientID": "", "PatientName": "Nobody"},
]
_STUDIES = [{}, {"StudyDescription": "Thorax"}, {"StudyDescription": "Abdomen", "StudyDate": ""}]
_SERIES = [{}, {"SeriesDescription": "axial"}, {"SeriesDescription": "sagittal"}]


@contextmanager
def only_resolve(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All parents are read, locked and merged."""
    with monkeypatch.context() as patched:
        patched.setattr(ingest, "_MOST_UNKNOWN", {"sqlite": -1, "postgresql": -1})
        yield


@contextmanager
def no_memory(index: Index) -> Iterator[None]:
    """As of a process that has just started."""
    index._ingest._memory.__init__()
    yield


def random_records(make_record: Any, seed: int) -> list[list[InstanceRecord]]:
    chosen = random.Random(seed)
    batches = []
    for _ in range(25):
        batch = []
        for _ in range(chosen.choice([1, 1, 1, 2, 5])):
            study = chosen.randrange(16)
            series = f"1.{study}.{chosen.randrange(3)}"
            values = (
                chosen.choice(
                    _PATIENTS[study % 4 : study % 4 + 2] if chosen.random() < 0.9 else _PATIENTS
                )
                | chosen.choice(_STUDIES)
                | chosen.choice(_SERIES)
            )
            uid = f"{series}.{chosen.randrange(40)}"
            digest = chosen.choice("ab") * 64
            batch.append(make_record(f"1.{study}", series, uid, digest=digest, **values))
        batches.append(batch)
    return batches


def told(results: list[IngestResult]) -> list[tuple[IngestOutcome, tuple[str, ...]]]:
    return [(one.outcome, one.notes) for one in results]


@pytest.mark.parametrize("seed", range(6))
def test_both_ways_say_the_same_of_any_instances(
    index: Index, make_record, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    batches = random_records(make_record, seed)
    said = []
    for batch in batches:
        with no_memory(index):
            said.append(told(index.ingest_batch(batch)))
    seen = dump(index)
    with index._engine.read() as connection:
        revisions = connection.execute(
            sa.select(tables.study.c.study_instance_uid, tables.study.c.revision).order_by(
                tables.study.c.study_instance_uid
            )
        ).all()

    _empty(index)
    with only_resolve(monkeypatch):
        resolved = []
        for batch in batches:
            with no_memory(index):
                resolved.append(told(index.ingest_batch(batch)))

    assert said == resolved
    assert seen == dump(index)
    with index._engine.read() as connection:
        assert revisions == (
            connection.execute(
                sa.select(tables.study.c.study_instance_uid, tables.study.c.revision).order_by(
                    tables.study.c.study_instance_uid
                )
            ).all()
        )


def _empty(index: Index) -> None:
    def work(connection: sa.Connection) -> None:
        for table in (tables.instance, tables.series, tables.study, tables.patient):
            connection.execute(sa.delete(table))

    index._engine.transact(work)
    index._ingest._memory.__init__()


def test_what_is_new_goes_past_sqlalchemy(index: Index, make_record, record_statements) -> None:
    steps = {
        "new patient": make_record("1.1", "1.1.1", PatientID="P-1", PatientName="Doe^Jane"),
        "new study": make_record("1.2", "1.2.1", PatientID="P-1"),
        "new series": make_record("1.2", "1.2.2", PatientID="P-1"),
    }
    counts = {}
    for name, record in steps.items():
        with record_statements() as statements:
            assert index.ingest(record).outcome is IngestOutcome.STORED
        counts[name] = len(statements)

    with no_memory(index), record_statements() as statements:
        index.ingest(make_record("1.2", "1.2.2", PatientID="P-1"))
    counts["forgotten series"] = len(statements)

    assert counts == dict.fromkeys(counts, 0)
    assert index.stats() == stats(1, 2, 3, 4)


def test_what_changes_a_row_is_read_and_locked(
    index: Index, make_record, record_statements
) -> None:
    index.ingest(make_record("1.1", "1.1.1", PatientID="P-1", PatientName="Doe^Jane"))
    with record_statements() as statements:
        index.ingest(make_record("1.2", "1.2.1", PatientID="P-1", PatientName="Doe^John"))

    assert len(statements) > 5
    assert rows(index, tables_level("patient"), "patient_name") == [("Doe^John",)]


def tables_level(name: str) -> Any:
    return next(level for level, table in tables.ENTITIES.items() if table.name == name)


def test_series_is_not_made_below_a_study_that_changed_since_it_was_read(
    index: Index, make_record
) -> None:
    index.ingest(make_record("1.1", "1.1.1"))
    header = make_record("1.1", "1.1.2").header
    parents = DriverParents(index._engine.dialect)
    made = []

    def work(cursor: Any) -> bool:
        known = parents(cursor, make_record("1.1", "1.1.1").header)
        assert known is not None
        stale = replace(known.study, revision=known.study.revision + 1)
        made.append(parents._with_series(cursor, header, known.patient, known.identity, stale))
        made.append(parents._new_study(cursor, make_record("1.1", "1.1.3").header))
        return False

    assert index._engine.attempt(work) is Attempt.ROLLED_BACK
    assert made == [None, None]
    assert index.stats() == stats(1, 1, 1, 1)


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_eight_threads_of_the_same_new_patients_make_each_once(
    index: Index, make_record, batched: bool
) -> None:
    def work(thread: int) -> None:
        records = [
            make_record(f"8.{thread}.{n}", f"8.{thread}.{n}.1", PatientID=f"P{n}")
            for n in (range(6) if thread % 2 else reversed(range(6)))
        ]
        if batched:
            index.ingest_batch(records)
        else:
            for record in records:
                index.ingest(record)

    run_in_threads(8, work)

    assert index.stats() == stats(6, 48, 48, 48)
