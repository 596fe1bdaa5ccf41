"""SQLite's planner knows how large the tables are, in every process."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue
from pacs.errors import IndexUnavailable
from pacs.index.index import Index
from pacs.index.statistics import Statistics


def analysed_instances(index: Index) -> int | None:
    """How many instances there were when the statistics were gathered; None without any."""
    statement = "SELECT value FROM archive_state WHERE name = 'statistics_instances'"
    with index._engine.read() as connection:
        found = connection.exec_driver_sql(statement).scalar()
    return None if found is None else int(found)


def plan_for_patient(index: Index, make_query) -> str:
    """The plan for a patient by ID and birth date: it uses the index with fewer rows to a value."""
    index.stats()  # any statement that reads a table notices that the schema has changed
    keys = {"PatientID": SingleValue("P-1"), "PatientBirthDate": SingleValue("19700101")}
    query = make_query(Level.PATIENT, keys)
    statement = index._search._select(query)
    sql = statement.compile(
        dialect=index._engine._readers.dialect, compile_kwargs={"literal_binds": True}
    )
    with index._engine.read() as connection:
        # A prepared EXPLAIN does not notice it: each text is another one.
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar()
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN /* {version} */ {sql}").all()
    return "\n".join(str(row.detail) for row in rows)


def fill(index: Index, make_record, first: int, last: int) -> None:
    """Studies of ten instances: numbers ``first`` to before ``last``, 100 instances in a batch."""
    for start in range(first, last, 10):
        index.ingest_batch(
            [
                make_record(f"1.{n}", f"1.{n}.1", PatientID=f"P-{n}", PatientName=f"Doe{n}")
                for n in range(start, start + 10)
                for _ in range(10)
            ]
        )


@pytest.fixture
def sqlite_index(index: Index) -> Index:
    if not index._engine.is_sqlite:
        pytest.skip("PostgreSQL gathers its own statistics")
    return index


def test_statistics_are_gathered_each_time_the_index_has_doubled(
    sqlite_index: Index, make_record
) -> None:
    gathered = []
    for first in range(0, 100, 10):
        fill(sqlite_index, make_record, first, first + 10)
        gathered.append(analysed_instances(sqlite_index))

    assert gathered == [100, 200, 200, 400, 400, 400, 400, 800, 800, 800]


def test_statistics_of_few_instances_are_not_gathered(sqlite_index: Index, make_record) -> None:
    for _ in range(3):
        sqlite_index.ingest(make_record())

    assert analysed_instances(sqlite_index) is None


def test_statistics_reach_connections_that_are_open_already(
    sqlite_index: Index, make_record, make_query
) -> None:
    elsewhere = Index.open(sqlite_index.description, upgrade=False)
    try:
        one_date = [
            make_record(f"1.{n}", PatientID=f"P-{n}", PatientBirthDate="19700101")
            for n in range(100)
        ]
        sqlite_index.ingest_batch(one_date)
        assert analysed_instances(sqlite_index) == 100
        for at in (sqlite_index, elsewhere):
            assert "patient_id_idx" in plan_for_patient(at, make_query)

        one_id = [
            make_record(f"2.{n}", IssuerOfPatientID=str(n), PatientBirthDate=str(19_000_000 + n))
            for n in range(900)
        ]
        sqlite_index.ingest_batch(one_id)
        assert analysed_instances(sqlite_index) == 1000

        for at in (sqlite_index, elsewhere):
            assert "patient_birth_date_idx" in plan_for_patient(at, make_query)
    finally:
        elsewhere.close()


def test_statistics_missing_after_a_crash_are_gathered_by_the_next_open(
    sqlite_index: Index, make_record, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crashing:
        crashing.setattr(Statistics, "refresh", lambda self: None)
        fill(sqlite_index, make_record, 0, 20)
    assert analysed_instances(sqlite_index) is None

    Index.open(sqlite_index.description, upgrade=False).close()

    assert analysed_instances(sqlite_index) == 200


def test_statistics_that_cannot_be_gathered_do_not_fail_the_store(
    sqlite_index: Index,
    make_record,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unavailable(_connection: sa.Connection) -> int:
        raise IndexUnavailable("The disk is busy.")

    monkeypatch.setattr("pacs.index.statistics._gather", unavailable)

    with caplog.at_level(logging.WARNING, "pacs.index.statistics"):
        fill(sqlite_index, make_record, 0, 10)

    assert sqlite_index.stats().instances == 100
    assert "The disk is busy." in caplog.text


def test_statistics_are_left_to_postgresql(index: Index, make_record) -> None:
    if index._engine.is_sqlite:
        pytest.skip("SQLite has nobody else to gather them")

    fill(index, make_record, 0, 10)

    assert analysed_instances(index) is None
