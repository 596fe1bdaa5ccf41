from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue, Universal, fuzzy
from pacs.index import tables
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceRecord


def changed(record: InstanceRecord, **values: str) -> InstanceRecord:
    """The record with other values, as if its file had been read again."""
    header = dataclasses.replace(record.header, values={**record.header.values, **values})
    return dataclasses.replace(record, header=header)


def instance_row(index: Index, uid: str) -> sa.Row[tuple[object, ...]]:
    statement = sa.select(tables.instance).where(tables.instance.c.sop_instance_uid == uid)
    with index._engine.read() as connection:
        return connection.execute(statement).one()


def test_rewrite_updates_the_instance_and_its_parents(
    index: Index, make_record, make_query
) -> None:
    record = make_record()
    index.ingest(record)
    again = changed(record, InstanceNumber="7", StudyDescription="Head", Modality="MR")

    assert index.rewrite([again]) == {record.location}

    query = make_query(
        Level.IMAGE, {}, ("InstanceNumber", "SOPInstanceUID", "StudyDescription", "Modality")
    )
    (found,) = index.search(query)
    assert (found["InstanceNumber"], found["StudyDescription"]) == ("7", "Head")
    assert found["Modality"] == "MR"


def test_rewrite_fills_the_codes_of_names_that_have_none(
    index: Index, make_record, make_query
) -> None:
    """After the migration that adds them; nothing else about the patient changes."""
    record = make_record(PatientName="Smith^Mary")
    index.ingest(record)
    with index._engine.write() as connection:
        connection.execute(sa.update(tables.patient).values(patient_name_codes=None))
    query = make_query(Level.PATIENT, {"PatientName": fuzzy("PN", SingleValue("Mary Smythe"))})
    assert list(index.search(query)) == []

    index.rewrite([record])

    assert [one["PatientID"] for one in index.search(query)] == ["P-1"]


def test_rewrite_keeps_when_and_from_whom_it_was_received(index: Index, make_record) -> None:
    record = make_record()
    index.ingest(record)
    before = instance_row(index, record.header.sop_instance_uid)
    later = record.received_at + timedelta(days=1)

    index.rewrite([dataclasses.replace(record, received_at=later, source_ae="OTHER")])

    assert instance_row(index, record.header.sop_instance_uid) == before


def test_rewrite_takes_over_size_offset_and_digest(index: Index, make_record) -> None:
    record = make_record()
    index.ingest(record)

    index.rewrite(
        [dataclasses.replace(record, data_set_offset=9, data_set_size=8, digest="e" * 64)]
    )

    found = index.find_by_uid(record.header.sop_instance_uid)
    assert found is not None
    assert (found.data_set_offset, found.data_set_size, found.digest) == (9, 8, "e" * 64)


def test_rewrite_of_an_instance_that_was_removed_inserts_nothing(index: Index, make_record) -> None:
    record = make_record()
    index.ingest(record)
    index.remove(record.header.sop_instance_uid)

    assert index.rewrite([record]) == set()
    assert index.stats().instances == index.stats().patients == 0


def test_rewrite_of_an_instance_that_was_replaced_changes_nothing(
    index: Index, make_record
) -> None:
    record = make_record(uid="1.2.3.1.1")
    newer = make_record(uid="1.2.3.1.1", digest="e" * 64, InstanceNumber="2")
    index.ingest(record)
    index.ingest(newer)

    assert index.rewrite([changed(record, InstanceNumber="1")]) == set()
    assert instance_row(index, "1.2.3.1.1").instance_number == "2"


def test_rewrite_of_a_file_that_holds_another_instance_changes_nothing(
    index: Index, make_record
) -> None:
    record = make_record(uid="1.2.3.1.1")
    index.ingest(record)
    other = make_record(uid="1.2.3.1.2", location=record.location)

    assert index.rewrite([other]) == set()
    assert index.find_by_uid("1.2.3.1.2") is None


def test_rewrite_into_another_series_and_study_removes_the_old_ones(
    index: Index, make_record
) -> None:
    record = make_record(study="1.2.3", series="1.2.3.1", uid="9.1")
    index.ingest(record)
    moved = make_record(
        study="1.2.4", series="1.2.4.1", uid="9.1", location=record.location, PatientID="P-2"
    )

    index.rewrite([moved])

    stats = index.stats()
    assert (stats.patients, stats.studies, stats.series, stats.instances) == (1, 1, 1, 1)
    found = index.find_by_uid("9.1")
    assert found is not None
    assert found.study_instance_uid == "1.2.4"


def test_rewrite_many_at_once_lets_the_last_one_win_for_parents(
    index: Index, make_record, make_query
) -> None:
    records = [make_record(StudyDescription=str(number)) for number in range(300)]
    index.ingest_batch(records)

    assert len(index.rewrite(records)) == 300

    query = make_query(Level.STUDY, {"StudyInstanceUID": Universal()}, ("StudyDescription",))
    assert [row["StudyDescription"] for row in index.search(query)] == ["299"]


def test_rewrite_is_seen_by_an_ingest_that_remembers_the_parents(
    index: Index, make_record, make_query
) -> None:
    record = make_record(StudyDescription="Old")
    index.ingest(record)
    index.rewrite([changed(record, StudyDescription="New")])

    index.ingest(make_record(StudyDescription="Old"))

    query = make_query(Level.STUDY, {}, ("StudyDescription",))
    assert [row["StudyDescription"] for row in index.search(query)] == ["Old"]


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [("a", "b", IngestOutcome.REPLACED), ("b", "a", IngestOutcome.KEPT)],
)
def test_ingest_latest_location_wins_in_any_order(
    index: Index, make_record, first: str, second: str, outcome: IngestOutcome
) -> None:
    index.ingest(make_record(uid="9.1", location=first, digest="d" * 64))
    again = make_record(uid="9.1", location=second, digest="e" * 64)

    results = index.ingest_batch([again], DuplicatePolicy.LATEST)

    assert [result.outcome for result in results] == [outcome]
    found = index.find_by_uid("9.1")
    assert found is not None
    assert found.location == "b"


def test_locations_from_one_on_and_at_most_so_many(index: Index, make_record) -> None:
    index.ingest_batch([make_record(location=name) for name in "dbca"])

    assert [row.location for row in index.locations("a", 2)] == ["b", "c"]
    assert [row.location for row in index.locations("d")] == []


def test_is_location_indexed_tells_the_exact_location(index: Index, make_record) -> None:
    index.ingest(make_record(location="a/b"))

    assert index.is_location_indexed("a/b")
    assert not index.is_location_indexed("a/B")


def test_remove_from_a_location_spares_an_instance_that_is_elsewhere(
    index: Index, make_record
) -> None:
    index.ingest(make_record(uid="9.1", location="new"))

    assert index.remove("9.1", location="old") is None
    assert index.remove("9.1", location="new") == "new"
