"""No full scan for the unique and required keys at their level, on either backend."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.dicom.matching import Match, Range, SingleValue, UidList, WildCard
from pacs.index.index import Index
from pacs.index.search import _column


def explain(index: Index, statement: sa.Select) -> str:
    """The plan that the database has for a statement."""
    sql = statement.compile(
        dialect=index._engine._readers.dialect, compile_kwargs={"literal_binds": True}
    )
    with index._engine.read() as connection:
        if index._engine.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
            return "\n".join(str(row.detail) for row in rows)
        # With the few rows of a test a scan is the quickest: forbidden, it shows whether an index could serve.
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        text = str(sql).replace("%%", "%")
        return "\n".join(
            str(row[0]) for row in connection.execute(sa.text(f"EXPLAIN {escape(text)}"))
        )


def escape(text: str) -> str:
    return re.sub(r"(?<!:):(?!:)", r"\\:", text)


def assert_no_scan(plan: str, table: str) -> None:
    assert f"SCAN {table}" not in plan, plan  # SQLite
    assert f"Seq Scan on {table}" not in plan, plan  # PostgreSQL
    assert table in plan, plan


_CASES: list[tuple[Level, str, Match]] = [
    (Level.PATIENT, "PatientID", SingleValue("P-1")),
    (Level.PATIENT, "PatientID", WildCard("P-*")),
    (Level.PATIENT, "PatientName", SingleValue("Doe^Jane")),
    (Level.PATIENT, "PatientName", WildCard("Doe*")),
    (Level.PATIENT, "PatientBirthDate", SingleValue("19700101")),
    (Level.STUDY, "StudyInstanceUID", SingleValue("1.2.3")),
    (Level.STUDY, "StudyInstanceUID", UidList(("1.2.3", "1.2.4"))),
    (Level.STUDY, "StudyDate", SingleValue("20240229")),
    (Level.STUDY, "StudyDate", Range("20240101", "20240229")),
    (Level.STUDY, "StudyTime", Range("100000.000000", "100001.000000")),
    (Level.STUDY, "AccessionNumber", SingleValue("A-1")),
    (Level.STUDY, "AccessionNumber", WildCard("A-1*")),
    (Level.STUDY, "StudyID", SingleValue("1")),
    (Level.SERIES, "SeriesInstanceUID", SingleValue("1.2.3.1")),
    (Level.IMAGE, "SOPInstanceUID", SingleValue("1.2.3.1.1")),
    (Level.IMAGE, "SOPInstanceUID", UidList(("1.2.3.1.1", "1.2"))),
]


@pytest.fixture
def filled(index: Index, make_record) -> Index:
    """Enough rows, and statistics of them, that the planner has a choice."""
    for first in range(0, 300, 100):
        index.ingest_batch(
            [
                make_record(
                    f"1.{n}",
                    f"1.{n}.1",
                    PatientID=f"P-{n}",
                    PatientName=f"Name{n}^X",
                    PatientBirthDate=f"19{n % 90:02}0101",
                    StudyDate=f"20{n % 24:02}0101",
                    StudyTime=f"{n % 24:02}{n % 60:02}",
                    AccessionNumber=f"A-{n}",
                    StudyID=str(n),
                )
                for n in range(first, first + 100)
            ]
        )
    with index._engine.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    return index


def test_query_plan_of_unique_and_required_keys_has_no_full_scan(filled: Index, make_query) -> None:
    tables = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series"}
    for level, keyword, match in _CASES:
        query = make_query(level, {keyword: match})
        statement = filled._search._select(query, [_column(query.conditions[0].attribute)])

        assert_no_scan(explain(filled, statement), tables.get(level, "instance"))


def test_query_plan_of_a_retrieve_has_no_full_scan(filled: Index, make_query) -> None:
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID"):
        query = make_query(Level.IMAGE, {keyword: UidList(("1.2.3", "1.2.4"))})

        plan = explain(filled, filled._search._plan_statement(query))

        for table in ("instance", "series", "study"):
            assert_no_scan(plan, table)


def test_query_plan_of_computed_attributes_reads_only_the_children(
    filled: Index, make_query
) -> None:
    for keyword in ("ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedInstances"):
        query = make_query(
            Level.STUDY, {"StudyInstanceUID": SingleValue("1.2.3")}, [keyword, "StudyInstanceUID"]
        )
        statement = filled._search._select(query, [_column(a) for a in query.returns])

        plan = explain(filled, statement)

        for table in ("child_series", "child_instance", "study"):
            assert f"SCAN {table}" not in plan, plan
        assert "Seq Scan" not in plan, plan
