"""No full scan for the unique and required keys at their level, on either backend."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from pacs.dicom.attributes import at_level
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Query
from pacs.dicom.query.matching import Match, SingleValue, UidList, WildCard
from pacs.dicom.query.ranges import Range
from pacs.index.index import Index
from pacs.index.search import _KEYS, _Page


def explain(index: Index, statement: sa.Select) -> str:
    """The plan that the database has for a statement."""
    sql = statement.compile(
        dialect=index._engine._readers.dialect, compile_kwargs={"literal_binds": True}
    )
    with index._engine.read() as connection:
        if index._engine.is_sqlite:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}")
            return "\n".join(str(row.detail) for row in rows)
        # With the few rows of a test a scan is the quickest, and joining two of them: forbidden, it shows whether
        # an index could serve.
        for method in ("seqscan", "hashjoin", "mergejoin"):
            connection.exec_driver_sql(f"SET LOCAL enable_{method} = off")
        text = str(sql).replace("%%", "%")
        return "\n".join(
            str(row[0]) for row in connection.execute(sa.text(f"EXPLAIN {escape(text)}"))
        )


def page_statement(index: Index, query: Query, *, with_file: bool = False) -> sa.Select:
    """How a page of three matches is read."""
    conditions = index._search._conditions
    page = _Page(query, conditions, with_file=with_file)
    return page.statement.params({_KEYS: conditions.values([1, 2, 3])})


def escape(text: str) -> str:
    return re.sub(r"(?<!:):(?!:)", r"\\:", text)


def assert_no_scan(plan: str, table: str) -> None:
    assert re.search(rf"\b{table}\b", plan), plan
    assert f"SCAN {table}" not in plan, plan  # SQLite
    assert f"Seq Scan on {table}" not in plan, plan  # PostgreSQL
    # An index that is read from end to end has no condition.
    for node in re.split(r"->", plan):
        if re.search(rf"Index (Only )?Scan .*\b(on {table}\b|{table}_\w+_(idx|key))", node):
            assert "Index Cond" in node, plan


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
    """Enough rows, and statistics of them, that the planner has a choice: 1,200 studies of one instance.

    As in an anonymised archive, no study has a Study ID, and no name an ideographic group.
    """
    for first in range(0, 1200, 300):
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
                )
                for n in range(first, first + 300)
            ]
        )
    # SQLite would have those of the first hundred, and PostgreSQL would not get round to it within a test.
    with index._engine.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    return index


def test_query_plan_of_unique_and_required_keys_has_no_full_scan(filled: Index, make_query) -> None:
    tables = {Level.PATIENT: "patient", Level.STUDY: "study", Level.SERIES: "series"}
    for level, keyword, match in _CASES:
        query = make_query(level, {keyword: match})
        statement = filled._search._select(query)

        assert_no_scan(explain(filled, statement), tables.get(level, "instance"))


_DATES = Range("20140101", "20150131")
_COMBINED: list[tuple[Level, dict[str, Match]]] = [
    (Level.SERIES, {"PatientID": SingleValue("P-1")}),
    (Level.IMAGE, {"PatientID": SingleValue("P-1")}),
    (Level.STUDY, {"PatientName": SingleValue("Name11^X")}),
    (Level.STUDY, {"PatientName": WildCard("Name11*")}),
    (Level.STUDY, {"PatientName": WildCard("Name11^X^*")}),
    (Level.STUDY, {"PatientBirthDate": SingleValue("19110101")}),
    (Level.SERIES, {"PatientName": WildCard("Name11*")}),
    (Level.IMAGE, {"PatientName": WildCard("Name11*")}),
    (Level.SERIES, {"StudyDate": _DATES}),
    (Level.IMAGE, {"StudyDate": _DATES}),
    (Level.STUDY, {"StudyDate": _DATES, "ModalitiesInStudy": SingleValue("CT")}),
    (Level.SERIES, {"StudyDate": _DATES, "Modality": SingleValue("CT")}),
    (Level.IMAGE, {"StudyDate": _DATES, "Modality": SingleValue("CT")}),
    (Level.SERIES, {"StudyInstanceUID": SingleValue("1.2"), "SeriesNumber": SingleValue("1")}),
    (Level.IMAGE, {"SeriesInstanceUID": SingleValue("1.2"), "InstanceNumber": SingleValue("1")}),
    # Keys below the level, of relational queries.
    (Level.STUDY, {"SOPInstanceUID": SingleValue("1.2.3.1.1")}),
    (Level.PATIENT, {"SeriesInstanceUID": UidList(("1.2", "1.3")), "Modality": SingleValue("CT")}),
    (Level.STUDY, {"StudyDate": _DATES, "Modality": SingleValue("CT"), "Rows": SingleValue("9")}),
    (Level.STUDY, {"StudyDate": _DATES, "ImageType": SingleValue("AXIAL")}),
]


def test_query_plan_below_the_level_of_the_keys_has_no_full_scan(filled: Index, make_query) -> None:
    for level, keys in _COMBINED:
        query = make_query(level, keys)
        statement = filled._search._select(query)

        plan = explain(filled, statement)

        assert_no_scan(plan, level.name.lower() if level < Level.IMAGE else "instance")
        for table in ("patient", "study", "series")[:level]:
            if re.search(rf"\b{table}\b", plan):
                assert_no_scan(plan, table)


def test_query_plan_of_a_retrieve_has_no_full_scan(filled: Index, make_query) -> None:
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID"):
        query = make_query(Level.IMAGE, {keyword: UidList(("1.2.3", "1.2.4"))})

        plan = explain(filled, filled._search._plan_statement(query))

        for table in ("instance", "series", "study"):
            assert_no_scan(plan, table)


@pytest.mark.parametrize("with_file", [False, True], ids=["plain", "with file"])
def test_page_of_matches_is_read_by_their_keys(
    filled: Index, make_query, *, with_file: bool
) -> None:
    for level in Level:
        stored = [one.keyword for one in at_level(level) if one.is_stored]
        query = make_query(level, {"PatientID": WildCard("P-*")}, stored)

        plan = explain(filled, page_statement(filled, query, with_file=with_file))

        for table in ("patient", "study", "series", "instance")[: level + 1]:
            assert_no_scan(plan, table)


def test_query_plan_of_computed_attributes_reads_only_the_children(
    filled: Index, make_query
) -> None:
    for keyword in ("ModalitiesInStudy", "SOPClassesInStudy", "NumberOfStudyRelatedInstances"):
        query = make_query(
            Level.STUDY, {"StudyInstanceUID": SingleValue("1.2.3")}, [keyword, "StudyInstanceUID"]
        )
        plan = explain(filled, page_statement(filled, query))

        for table in ("child_series", "child_instance", "study"):
            assert f"SCAN {table}" not in plan, plan
        assert "Seq Scan" not in plan, plan
