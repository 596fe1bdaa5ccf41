from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import pytest
from pydicom.uid import CTImageStorage, EnhancedSRStorage, ExplicitVRLittleEndian, JPEGLSLossless

from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue, UidList, WildCard
from pacs.dicom.query.ranges import Range
from pacs.errors import LimitExceeded
from pacs.index import search as search_module
from pacs.index.index import Index


@pytest.fixture
def archive(index: Index, make_record) -> Index:
    """Two patients; the first has two studies, one of them with a CT and an SR series."""
    index.ingest_batch(
        [
            make_record("1.1", "1.1.1", "1.1.1.1", PatientName="Doe^Jane", InstanceNumber="1"),
            make_record("1.1", "1.1.1", "1.1.1.2", PatientName="Doe^Jane", InstanceNumber="2"),
            make_record("1.1", "1.1.2", "1.1.2.1", Modality="SR", sop_class=EnhancedSRStorage),
            make_record("1.2", "1.2.1", "1.2.1.1", StudyDate="20240229", StudyTime="101530"),
            make_record(
                "2.1",
                "2.1.1",
                "2.1.1.1",
                PatientID="P-2",
                PatientName="Roe^Richard",
                Modality="MR",
                transfer_syntax=JPEGLSLossless,
            ),
        ]
    )
    return index


@pytest.mark.parametrize(
    ("level", "expected"),
    [(Level.PATIENT, 2), (Level.STUDY, 3), (Level.SERIES, 4), (Level.IMAGE, 5)],
    ids=lambda value: getattr(value, "name", value),
)
def test_search_without_conditions_gives_one_record_per_entity(
    archive: Index, make_query, level: Level, expected: int
) -> None:
    records = list(archive.search(make_query(level)))

    assert len(records) == expected
    keys = [key.unique_key for key in (*level.above, level)]
    assert all(list(record) == keys for record in records)
    assert len({tuple(record.values()) for record in records}) == expected


def test_search_returns_what_is_asked_for_in_order_and_the_unique_keys(
    archive: Index, make_query
) -> None:
    returns = ["StudyTime", "PatientName", "Modality", "SeriesInstanceUID", "Laterality"]
    query = make_query(Level.SERIES, {"SeriesInstanceUID": SingleValue("1.1.1")}, returns)

    [record] = archive.search(query)

    assert dict(record) == {
        "StudyTime": None,
        "PatientName": "Doe^Jane",
        "Modality": "CT",
        "SeriesInstanceUID": "1.1.1",
        "Laterality": None,
        "PatientID": "P-1",
        "StudyInstanceUID": "1.1",
    }


def test_search_combines_conditions_of_all_levels_above(archive: Index, make_query) -> None:
    query = make_query(
        Level.IMAGE,
        {
            "PatientName": WildCard("doe*"),
            "StudyInstanceUID": UidList(("1.1", "2.1")),
            "Modality": SingleValue("CT"),
            "InstanceNumber": SingleValue("2"),
        },
    )

    assert [record["SOPInstanceUID"] for record in archive.search(query)] == ["1.1.1.2"]


def test_search_study_root_has_patient_attributes_at_study_level(
    archive: Index, make_query
) -> None:
    query = make_query(
        Level.STUDY,
        {"PatientName": WildCard("Roe*")},
        ["PatientName"],
        InformationModel.STUDY_ROOT,
    )

    [record] = archive.search(query)

    assert (record["StudyInstanceUID"], record["PatientName"]) == ("2.1", "Roe^Richard")


def test_search_time_range_uses_the_canonical_form(archive: Index, make_query) -> None:
    query = make_query(
        Level.STUDY,
        {
            "StudyTime": Range("101530.000000", "101530.999999"),
            "StudyDate": Range(None, "20240301"),
        },
        ["StudyTime"],
    )

    assert [record["StudyTime"] for record in archive.search(query)] == ["101530"]


def test_search_condition_below_the_level_asks_for_one_chain_of_entities(
    index: Index, make_record, make_query
) -> None:
    """PS3.4 C.4.1.3.2.1; the series with the value may not be that of the instance with the other."""
    index.ingest_batch(
        [
            make_record("1", "1.1", PatientID="A", Modality="CT", Rows="512"),
            *(
                make_record("1", "1.2", PatientID="A", Modality="SR", Rows="64", ImageType="X\\Y")
                for _ in range(3)
            ),
            make_record("2", "2.1", PatientID="B", Modality="MR", Rows="512", ImageType="Y\\Z"),
        ]
    )

    def found(level: Level, **keys: str) -> set[str | None]:
        match = {keyword: SingleValue(value) for keyword, value in keys.items()}
        records = list(index.search(make_query(level, match)))
        patients = [record["PatientID"] for record in records]
        assert len(patients) == len(set(patients))
        return set(patients)

    for level in (Level.PATIENT, Level.STUDY):
        assert found(level, Rows="512") == {"A", "B"}
        assert found(level, Rows="512", Modality="CT") == {"A"}
        assert found(level, Rows="512", Modality="SR") == set()
        assert found(level, ImageType="Y") == {"A", "B"}
        assert found(level, ImageType="Y", Rows="512") == {"B"}
        assert found(level, ImageType="X", Modality="CT") == set()
        assert found(level, ImageType="Y", PatientID="A", Modality="SR") == {"A"}
    assert found(Level.PATIENT, StudyInstanceUID="2", Modality="MR") == {"B"}
    assert found(Level.PATIENT, ModalitiesInStudy="SR", Modality="CT") == {"A"}


def test_search_computed_attributes_of_a_patient(archive: Index, make_query) -> None:
    returns = [f"NumberOfPatientRelated{what}" for what in ("Studies", "Series", "Instances")]
    query = make_query(Level.PATIENT, {"PatientID": SingleValue("P-1")}, returns)

    [record] = archive.search(query)

    assert [record[keyword] for keyword in returns] == ["2", "3", "4"]


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES], ids=["study", "series"])
def test_search_computed_attributes_of_a_study(archive: Index, make_query, level: Level) -> None:
    returns = [
        "ModalitiesInStudy",
        "SOPClassesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
    ]
    query = make_query(level, {"StudyInstanceUID": SingleValue("1.1")}, returns)

    record = next(iter(archive.search(query)))

    expected_classes = "\\".join(sorted([CTImageStorage, EnhancedSRStorage]))
    assert [record[keyword] for keyword in returns] == ["CT\\SR", expected_classes, "2", "3"]


def test_search_computed_attributes_of_series_and_instance(archive: Index, make_query) -> None:
    series = make_query(
        Level.SERIES,
        {"SeriesInstanceUID": SingleValue("1.1.1")},
        ["NumberOfSeriesRelatedInstances"],
    )
    image = make_query(
        Level.IMAGE,
        {"AvailableTransferSyntaxUID": SingleValue(JPEGLSLossless)},
        ["AvailableTransferSyntaxUID", "SOPClassUID"],
    )

    [one_series] = archive.search(series)
    [one_image] = archive.search(image)

    assert one_series["NumberOfSeriesRelatedInstances"] == "2"
    assert one_image["AvailableTransferSyntaxUID"] == JPEGLSLossless
    assert one_image["SOPInstanceUID"] == "2.1.1.1"


def test_search_modalities_of_a_study_without_any_have_no_value(
    index: Index, make_record, make_query
) -> None:
    index.ingest(make_record(Modality=""))

    [record] = index.search(make_query(Level.STUDY, returns=["ModalitiesInStudy"]))

    assert record["ModalitiesInStudy"] is None


@pytest.mark.parametrize(
    ("keyword", "match", "studies"),
    [
        ("ModalitiesInStudy", SingleValue("SR"), {"1.1"}),
        ("ModalitiesInStudy", SingleValue("sr"), set()),
        ("ModalitiesInStudy", WildCard("?R"), {"1.1", "2.1"}),
        ("SOPClassesInStudy", SingleValue(EnhancedSRStorage), {"1.1"}),
        ("SOPClassesInStudy", UidList((EnhancedSRStorage, CTImageStorage)), {"1.1", "1.2", "2.1"}),
        ("NumberOfStudyRelatedSeries", SingleValue("2"), {"1.1"}),
        ("NumberOfStudyRelatedInstances", SingleValue("1"), {"1.2", "2.1"}),
        ("NumberOfStudyRelatedInstances", SingleValue("many"), set()),
        ("NumberOfStudyRelatedInstances", SingleValue("9" * 30), set()),
        ("NumberOfPatientRelatedStudies", SingleValue("2"), {"1.1", "1.2"}),
    ],
)
def test_search_by_computed_attribute(
    archive: Index, make_query, keyword: str, match, studies: set[str]
) -> None:
    found = archive.search(make_query(Level.STUDY, {keyword: match}))

    assert {record["StudyInstanceUID"] for record in found} == studies


def test_search_holds_no_connection_between_two_matches(archive: Index, make_query) -> None:
    unfinished = []
    for _ in range(100):  # more than the pool has
        unfinished.append(archive.search(make_query(Level.IMAGE)))
        next(unfinished[-1])
        assert archive._engine._readers.pool.checkedout() == 0


def test_search_leaves_out_what_is_removed_or_no_match_any_more(
    index: Index, make_record, make_query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_ROWS_IN_MEMORY", 2)
    index.ingest_batch([make_record(uid=f"1.{n}", InstanceNumber="7") for n in range(6)])
    query = make_query(Level.IMAGE, {"InstanceNumber": SingleValue("7")})
    found = index.search(query)
    first = next(found)

    index.remove("1.2")
    index.ingest(make_record(uid="1.5", InstanceNumber="8", digest="e" * 64))

    uids = [record["SOPInstanceUID"] for record in (first, *found)]
    assert uids == ["1.0", "1.1", "1.3", "1.4"]


@pytest.mark.parametrize("file", [False, True], ids=["plain", "with file"])
def test_search_says_that_there_are_more_than_wanted(
    index: Index, make_record, make_query, *, file: bool
) -> None:
    index.ingest_batch([make_record(uid=f"1.{n}") for n in range(4)])
    search = index.search_with_file if file else index.search
    query = make_query(Level.IMAGE)

    assert len(list(search(query, 4))) == 4
    found = search(query, 3)
    assert len([next(found) for _ in range(3)]) == 3
    with pytest.raises(LimitExceeded, match="Limit of 3 matches reached"):
        next(found)


def test_search_is_not_complete_because_one_of_the_wanted_was_removed(
    index: Index, make_record, make_query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_ROWS_IN_MEMORY", 1)
    index.ingest_batch([make_record(uid=f"1.{n}") for n in range(4)])
    found = index.search(make_query(Level.IMAGE), 2)
    next(found)

    index.remove("1.1")

    with pytest.raises(LimitExceeded):
        next(found)


def test_search_left_unfinished_does_not_stop_a_store(
    archive: Index, make_record, make_query
) -> None:
    iterator = archive.search(make_query(Level.IMAGE))
    next(iterator)

    archive.ingest(make_record())

    assert len(list(iterator)) == 4
    assert archive.stats().instances == 6


@pytest.fixture
def large(index: Index, make_record) -> Index:
    """One study of 20,000 instances."""
    for first in range(0, 20_000, 1000):
        index.ingest_batch(
            [make_record(InstanceNumber=str(first + n), SliceLocation="1.5") for n in range(1000)]
        )
    return index


def test_search_and_plan_of_twenty_thousand_rows_stay_flat_in_memory(
    large: Index, make_query
) -> None:
    query = make_query(Level.IMAGE, {"StudyInstanceUID": SingleValue("1.2.3")}, ["InstanceNumber"])
    list(zip(range(10), large.search(query), strict=False))  # compiled and cached
    gc.collect()
    tracemalloc.start()

    count = sum(1 for _ in large.search(query))
    _, search_peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    plan = large.plan(replace(query, returns=()))
    _, plan_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == len(plan.keys) == 20_000
    # 500 rows at a time; the whole result would take ten times as much.
    assert search_peak < 1_500_000
    assert plan_peak < 1_500_000
    assert plan.keys.itemsize == 8


def test_plan_orders_by_study_series_and_number_and_counts_contexts(
    index: Index, make_record, make_query
) -> None:
    numbers = ["10", "9", "-1", "", "two", "1"]
    index.ingest_batch(
        [
            make_record("1.1", "1.1.1", f"1.1.1.{n}", InstanceNumber=number)
            for n, number in enumerate(numbers)
        ]
    )
    index.ingest(make_record("1.1", "1.1.2", "1.1.2.1", transfer_syntax=JPEGLSLossless))

    plan = index.plan(make_query(Level.PATIENT, {"PatientID": SingleValue("P-1")}))

    instances = index.instances(plan.keys)
    assert [instance.sop_instance_uid for instance in instances] == [
        "1.1.1.2",  # -1; then what is no number, by key
        "1.1.1.3",
        "1.1.1.4",
        "1.1.1.5",
        "1.1.1.1",
        "1.1.1.0",
        "1.1.2.1",
    ]
    assert plan.contexts == {
        (CTImageStorage, ExplicitVRLittleEndian): 6,
        (CTImageStorage, JPEGLSLossless): 1,
    }


def test_plan_rechecks_what_sql_cannot_decide(archive: Index, make_record, make_query) -> None:
    archive.ingest(make_record("3.1", "3.1.1", PatientID="P-3", OtherPatientIDs="AB\\C"))
    archive.ingest(make_record("4.1", "4.1.1", PatientID="P-4", OtherPatientIDs="A\\B"))

    plan = archive.plan(make_query(Level.PATIENT, {"OtherPatientIDs": SingleValue("B")}))

    [instance] = archive.instances(plan.keys)
    assert instance.study_instance_uid == "4.1"


def test_plan_without_matches_is_empty(archive: Index, make_query) -> None:
    plan = archive.plan(make_query(Level.STUDY, {"StudyInstanceUID": SingleValue("9.9")}))

    assert (len(plan.keys), plan.contexts) == (0, {})
    assert archive.instances(plan.keys) == []


def test_instances_come_in_the_order_given_without_those_that_are_gone(
    archive: Index, make_query
) -> None:
    plan = archive.plan(make_query(Level.IMAGE))
    keys = [*reversed(plan.keys), 999_999]
    gone = archive.instances(plan.keys[:1])[0]
    archive.remove(gone.sop_instance_uid)

    found = archive.instances(keys)

    assert [instance.key for instance in found] == list(reversed(plan.keys))[:-1]


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name)
def test_search_is_two_statements_and_a_plan_one_however_many_rows(
    archive: Index, make_record, make_query, record_statements, level: Level
) -> None:
    query = make_query(level, {"PatientID": SingleValue("P-1")}, ["PatientName"])
    counts = []
    for _ in range(2):
        with record_statements() as statements:
            found = len(list(archive.search(query)))
        with record_statements() as planned:
            archive.plan(query)
        counts.append((len(statements), len(planned)))
        archive.ingest_batch(
            [make_record(f"6.{n}", f"6.{n}.1", f"6.{n}.1.1") for n in range(found)]
        )

    assert counts == [(2, 1), (2, 1)]


def test_instances_are_one_statement_per_thousand(
    archive: Index, make_query, record_statements
) -> None:
    with record_statements() as statements:
        archive.instances(range(2500))

    assert len(statements) == 3
