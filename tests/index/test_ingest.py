from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.uid import JPEGLSLossless

from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue
from pacs.errors import PacsError
from pacs.index import tables
from pacs.index.index import Index
from pacs.index.parents import resolve
from pacs.model.instances import DuplicatePolicy, IngestOutcome, InstanceRecord
from pacs.model.statistics import Stats


def rows(index: Index, level: Level, *keywords: str, **unique: str) -> list[tuple[Any, ...]]:
    """Columns of the rows of one level, in a stable order."""
    table = tables.ENTITIES[level]
    columns = [table.c[name] for name in keywords]
    statement = sa.select(*columns).order_by(*columns)
    for name, value in unique.items():
        statement = statement.where(table.c[name] == value)
    with index._engine.read() as connection:
        return [tuple(row) for row in connection.execute(statement)]


def dump(index: Index) -> list[dict[str, Any]]:
    """Everything the index says about each instance, surrogate keys and revisions aside."""
    joined = tables.instance.join(tables.series).join(tables.study).join(tables.patient)
    columns = [
        column.label(f"{table.name}_{column.name}")
        for table in tables.ENTITIES.values()
        for column in table.c
        if column.name not in {"id", "revision", "patient_pk", "study_pk", "series_pk"}
    ]
    with index._engine.read() as connection:
        found = connection.execute(sa.select(*columns).select_from(joined)).mappings()
        return sorted(
            (dict(row) for row in found), key=lambda row: row["instance_sop_instance_uid"]
        )


def stats(patients: int, studies: int, series: int, instances: int) -> Stats:
    return Stats(
        patients=patients,
        studies=studies,
        series=series,
        instances=instances,
        size_bytes=1000 * instances,
    )


def test_ingest_new_instance_is_stored_with_its_values(index: Index, make_record) -> None:
    record = make_record(
        PatientName="Äneas^Rüdiger", StudyTime="1015", Rows="512", PatientBirthTime="nonsense"
    )

    result = index.ingest(record)

    assert result.outcome is IngestOutcome.STORED
    assert result.superseded_location is None
    stored = index.find_by_uid(record.header.sop_instance_uid)
    assert stored is not None
    assert (stored.location, stored.digest) == (record.location, record.digest)
    assert stored.received_at == record.received_at
    [row] = dump(index)
    assert row["patient_patient_name"] == "Äneas^Rüdiger"
    assert row["patient_patient_name_alphabetic"] == "aneas^rudiger"
    assert row["patient_patient_birth_time_canonical"] is None
    assert row["study_study_time_canonical"] == "101500.000000"
    assert row["instance_rows"] == "512"
    assert row["instance_source_ae"] == "CT1"


def test_ingest_same_data_set_again_changes_nothing(index: Index, make_record) -> None:
    record = make_record(PatientName="Doe^Jane")
    index.ingest(record)
    before = dump(index)
    header = replace(record.header, values={"PatientID": "P-2", "PatientName": "Roe"})

    result = index.ingest(replace(record, header=header, location="elsewhere"))

    assert result.outcome is IngestOutcome.IDENTICAL
    assert result.superseded_location is None
    assert dump(index) == before


def test_ingest_own_location_again_is_stored_not_identical(index: Index, make_record) -> None:
    # The commit was lost on the way back and is repeated: the file must not be taken for superfluous.
    record = make_record()
    index.ingest(record)

    assert index.ingest(record).outcome is IngestOutcome.STORED
    assert index.stats() == stats(1, 1, 1, 1)


def test_ingest_same_bytes_in_another_transfer_syntax_is_not_identical(
    index: Index, make_record
) -> None:
    record = make_record()
    index.ingest(record)
    header = replace(record.header, transfer_syntax_uid=JPEGLSLossless)

    result = index.ingest(replace(record, header=header, location="elsewhere"))

    assert result.outcome is IngestOutcome.REPLACED


def test_ingest_different_data_set_replaces_and_returns_the_old_location(
    index: Index, make_record
) -> None:
    old = make_record(uid="1.2.9", InstanceNumber="1")
    index.ingest(old)
    key = index.find_by_uid("1.2.9").key

    result = index.ingest(make_record(uid="1.2.9", digest="e" * 64, InstanceNumber="2"))

    assert result.outcome is IngestOutcome.REPLACED
    assert result.superseded_location == old.location
    stored = index.find_by_uid("1.2.9")
    assert (stored.key, stored.digest) == (key, "e" * 64)
    assert rows(index, Level.IMAGE, "instance_number") == [("2",)]


@pytest.mark.parametrize(
    ("policy", "outcome"),
    [
        (DuplicatePolicy.KEEP, IngestOutcome.KEPT),
        (DuplicatePolicy.REFUSE, IngestOutcome.REFUSED),
    ],
)
def test_ingest_different_data_set_by_policy_leaves_the_first(
    index: Index, make_record, policy: DuplicatePolicy, outcome: IngestOutcome
) -> None:
    index.ingest(make_record(uid="1.2.9", PatientName="First"))
    before = dump(index)

    result = index.ingest(make_record(uid="1.2.9", digest="e" * 64, PatientName="Second"), policy)

    assert result.outcome is outcome
    assert dump(index) == before


def test_ingest_replacement_in_another_study_removes_the_empty_parents(
    index: Index, make_record
) -> None:
    index.ingest(make_record("1.1", "1.1.1", "1.2.9", PatientID="A"))

    index.ingest(make_record("2.1", "2.1.1", "1.2.9", digest="e" * 64, PatientID="B"))

    assert index.stats() == stats(1, 1, 1, 1)
    assert rows(index, Level.PATIENT, "patient_id") == [("B",)]
    assert index.find_by_uid("1.2.9").study_instance_uid == "2.1"


def test_ingest_one_uid_three_times_in_a_batch_is_as_if_one_by_one(
    index: Index, make_record
) -> None:
    first = make_record(uid="1.2.9")
    second = make_record(uid="1.2.9")
    third = make_record(uid="1.2.9", digest="e" * 64)

    results = index.ingest_batch([first, second, third])

    assert [result.outcome for result in results] == [
        IngestOutcome.STORED,
        IngestOutcome.IDENTICAL,
        IngestOutcome.REPLACED,
    ]
    assert results[2].superseded_location == first.location
    assert index.find_by_uid("1.2.9").location == third.location


def test_ingest_batch_with_an_unusable_record_stores_none(index: Index, make_record) -> None:
    good = make_record()
    clash = make_record(location=good.location)

    with pytest.raises(PacsError):
        index.ingest_batch([good, clash])

    assert index.stats() == stats(0, 0, 0, 0)
    assert index.ingest(good).outcome is IngestOutcome.STORED


def test_ingest_latest_parent_value_wins_and_an_empty_one_never_erases(
    index: Index, make_record
) -> None:
    index.ingest(make_record(StudyDescription="first", StudyID="7", PatientSex="F"))

    result = index.ingest(make_record(StudyDescription="second", StudyID=""))

    assert rows(index, Level.STUDY, "study_description", "study_id") == [("second", "7")]
    assert rows(index, Level.PATIENT, "patient_sex") == [("F",)]
    assert result.notes == ("StudyDescription of study 1.2.3 changed by a later instance",)


def test_ingest_value_that_was_missing_is_filled_in_without_a_note(
    index: Index, make_record
) -> None:
    index.ingest(make_record())

    result = index.ingest(make_record(SeriesDescription="thorax"))

    assert rows(index, Level.SERIES, "series_description") == [("thorax",)]
    assert result.notes == ()


def test_ingest_value_of_another_process_does_not_outlive_a_later_one(
    index: Index, database_url: str, make_record
) -> None:
    # This process remembers "first" and must notice that another one wrote "second" meanwhile.
    other = Index.open(database_url, upgrade=False)
    index.ingest(make_record(StudyDescription="first"))
    other.ingest(make_record(StudyDescription="second"))

    result = index.ingest(make_record(StudyDescription="first"))

    other.close()
    assert rows(index, Level.STUDY, "study_description") == [("first",)]
    assert len(result.notes) == 1


def test_ingest_after_another_process_removed_the_parents_creates_them_again(
    index: Index, database_url: str, make_record
) -> None:
    other = Index.open(database_url, upgrade=False)
    first = make_record()
    index.ingest(first)
    assert other.remove(first.header.sop_instance_uid) == first.location
    other.ingest(make_record("9.9", "9.9.1", PatientID="other"))

    index.ingest(make_record())

    other.close()
    assert index.stats() == stats(2, 2, 2, 2)
    assert {row["study_study_instance_uid"] for row in dump(index)} == {"9.9", "1.2.3"}


def test_ingest_latest_instance_decides_the_patient_of_its_study(index: Index, make_record) -> None:
    index.ingest(make_record(PatientID="wrong"))
    index.ingest(make_record("8.8", "8.8.1", PatientID="keeps a study"))
    index.ingest(make_record("8.9", "8.9.1", PatientID="keeps a study"))

    result = index.ingest(make_record(PatientID="right"))
    index.ingest(make_record("8.8", "8.8.1", PatientID="right"))

    assert rows(index, Level.PATIENT, "patient_id") == [("keeps a study",), ("right",)]
    assert result.notes == ("PatientID of study 1.2.3 changed by a later instance",)


def test_ingest_without_patient_id_never_shares_a_patient(index: Index, make_record) -> None:
    for study in ("1.1", "1.2"):
        index.ingest(make_record(study, f"{study}.1", PatientID="", PatientName="Unknown"))
        index.ingest(make_record(study, f"{study}.1", PatientID="", PatientName="Unknown"))

    assert index.stats() == stats(2, 2, 2, 4)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ingest_less_precise_patient_leaves_the_known_one_in_any_order(
    index: Index, make_record, order: tuple[int, ...]
) -> None:
    precise = make_record(PatientID="7", IssuerOfPatientID="hospital", PatientSex="F")
    without_issuer = make_record(PatientID="7", PatientSex="M")
    without_id = make_record(PatientID="", PatientSex="O")
    records = [precise, without_issuer, without_id]

    for number in order:
        index.ingest(records[number])

    assert rows(index, Level.PATIENT, "patient_id", "issuer_of_patient_id", "patient_sex") == [
        ("7", "hospital", "F")
    ]


def test_ingest_same_patient_id_of_two_issuers_is_two_patients(index: Index, make_record) -> None:
    index.ingest(make_record("1.1", "1.1.1", IssuerOfPatientID="A"))
    index.ingest(make_record("1.2", "1.2.1", IssuerOfPatientID="B"))

    assert index.stats().patients == 2


def test_ingest_series_uid_of_another_study_does_not_move_that_series(
    index: Index, make_record
) -> None:
    first = make_record("1.1", "5.5")
    index.ingest(first)

    index.ingest(make_record("1.2", "5.5"))

    assert index.stats() == stats(1, 2, 2, 2)
    stored = index.find_by_uid(first.header.sop_instance_uid)
    assert stored.study_instance_uid == "1.1"


def _consistent_study(make_record) -> list[InstanceRecord]:
    """Instances that agree, though not all of them say everything."""
    return [
        make_record("1.1", "1.1.1", PatientName="Doe^Jane", InstanceNumber="1"),
        make_record("1.1", "1.1.1", StudyDescription="thorax", PatientName="Doe^Jane"),
        make_record("1.1", "1.1.2", Modality="SR", PatientID=""),
        make_record("1.1", "1.1.2", Modality="SR", StudyDate="20240229", PatientSex="F"),
    ]


def test_ingest_any_order_and_repeats_of_a_study_give_equal_indexes(
    index: Index, make_record
) -> None:
    study = _consistent_study(make_record)
    expected = None

    for order in itertools.permutations(study):
        for record in order:
            assert index.ingest(record).notes == ()
        for record in reversed(order):
            index.ingest(replace(record, location=f"again/{record.location}"))
        index.ingest_batch([order[1], order[0]])
        found = dump(index)
        expected = expected or found
        assert found == expected
        for record in order:
            index.remove(record.header.sop_instance_uid)
        assert index.stats() == stats(0, 0, 0, 0)


def test_ingest_batch_equals_one_by_one(index: Index, make_record) -> None:
    study = _consistent_study(make_record)
    contradicting = [
        make_record("1.1", "1.1.1", PatientID="P-2", PatientName="Roe"),
        make_record("1.1", "1.1.1", PatientID="P-2", StudyDescription="knee"),
        make_record("1.2", "1.2.1", PatientID="P-2", PatientName="Poe"),
        make_record("1.2", "1.2.1", uid=study[0].header.sop_instance_uid, digest="e" * 64),
    ]
    records = study + contradicting
    one_by_one = [index.ingest(record) for record in records]
    expected = dump(index)
    for record in records:
        index.remove(record.header.sop_instance_uid)

    batch = index.ingest_batch(records)

    assert dump(index) == expected
    assert [result.outcome for result in batch] == [result.outcome for result in one_by_one]
    assert [sorted(result.notes) for result in batch] == [
        sorted(result.notes) for result in one_by_one
    ]


def test_ingest_usual_instance_needs_nothing_read(
    index: Index, make_record, record_statements
) -> None:
    index.ingest(make_record(StudyDescription="thorax"))
    records = [make_record(StudyDescription="thorax") for _ in range(50)]

    # The driver's one INSERT is none of SQLAlchemy's statements, which begin with a SELECT.
    with record_statements() as statements:
        results = [index.ingest(make_record(StudyDescription="thorax"))]
        results += index.ingest_batch(records)
        results += [index.ingest(make_record())]

    assert statements == []
    assert {result.outcome for result in results} == {IngestOutcome.STORED}
    assert index.stats().instances == 53


def test_ingest_known_series_with_a_stored_instance_among_new_ones_decides_each(
    index: Index, make_record
) -> None:
    first = make_record()
    index.ingest(first)
    again = dataclasses.replace(first, location=make_record().location)

    results = index.ingest_batch([make_record(), again, make_record()])

    assert [result.outcome for result in results] == [
        IngestOutcome.STORED,
        IngestOutcome.IDENTICAL,
        IngestOutcome.STORED,
    ]


def test_ingest_first_instance_of_a_study_has_a_pinned_cost_however_many_there_are(
    index: Index, make_record, record_statements
) -> None:
    counts = []
    for batch in (33, 50):  # more than go by prepared statements
        records = [
            make_record(f"{batch}.{n}", f"{batch}.{n}.1", PatientID=str(n)) for n in range(batch)
        ]
        with record_statements() as statements:
            index.ingest_batch(records)
        counts.append(len(statements))

    # Duplicates, links of the studies; a lock and an insert per parent table; the instances.
    assert counts == [9, 9]


def test_ingest_hostile_values_are_stored_or_refused_alone(index: Index, make_record) -> None:
    hostile = {
        "PatientID": "x' OR 1=1 --" + "%_\\*?[" * 20,
        "PatientName": "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 256,
        "AccessionNumber": "\N{GRINNING FACE}" * 256,
        "StudyDescription": "名" * 256,
        "PatientComments": "x" * 10_240,
        "OtherPatientIDs": "\N{GRINNING FACE}" * 600,
    }

    assert index.ingest(make_record(**hostile)).outcome is IngestOutcome.STORED
    with pytest.raises(PacsError):
        index.ingest(make_record(StudyDescription="lone \ud800 surrogate"))
    assert index.stats().instances == 1


def run_in_threads(count: int, work: Callable[[int], None]) -> None:
    barrier = threading.Barrier(count)

    def start(number: int) -> None:
        barrier.wait(10)
        work(number)

    with ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(start, number) for number in range(count)]:
            future.result(60)


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
def test_ingest_eight_threads_of_interleaved_studies_lose_nothing(
    index: Index, make_record, batched: bool
) -> None:
    # Each thread meets the studies in another order, so parents are inserted in opposite orders.
    def work(thread: int) -> None:
        records = [
            make_record(f"7.{n % 6}", f"7.{n % 6}.{n % 2}", PatientID=f"P{n % 3}", PatientSex="F")
            for n in (range(24) if thread % 2 else reversed(range(24)))
        ]
        if batched:
            index.ingest_batch(records)
        else:
            for record in records:
                index.ingest(record)

    run_in_threads(8, work)

    assert index.stats() == stats(3, 6, 6, 8 * 24)


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_ingest_locks_the_patient_that_a_study_leaves_before_the_study(
    index: Index, make_record
) -> None:
    """Writers that move one study to and fro meet at the patients: none waits for another that holds the study."""
    index.ingest(make_record("1.5", "1.5.1", PatientID="P-1"))
    index.ingest(make_record("1.6", "1.6.1", PatientID="P-2"))
    unlocked = sa.select(tables.patient.c.patient_id).with_for_update(skip_locked=True)

    with index._engine.write() as mover, index._engine.write() as other:
        resolve(mover, [make_record("1.5", "1.5.1", PatientID="P-2").header])
        left = other.scalars(unlocked).all()

    assert left == []


def test_ingest_eight_threads_of_one_uid_store_it_once(index: Index, make_record) -> None:
    outcomes: list[IngestOutcome] = []

    def work(thread: int) -> None:
        [result] = index.ingest_batch([make_record(uid="1.2.9", PatientID=f"P{thread % 2}")])
        outcomes.append(result.outcome)

    run_in_threads(8, work)

    assert outcomes.count(IngestOutcome.STORED) == 1
    assert outcomes.count(IngestOutcome.IDENTICAL) == 7
    assert index.stats() == stats(1, 1, 1, 1)


def test_ingest_and_remove_at_once_leave_no_instance_without_parents(
    index: Index, make_record
) -> None:
    # Removing the last instance removes its parents while others insert children of them.
    def work(thread: int) -> None:
        for _ in range(15):
            record = make_record()
            index.ingest_batch([record])
            if thread % 2:
                index.remove(record.header.sop_instance_uid)

    run_in_threads(6, work)

    assert index.stats() == stats(1, 1, 1, 45)


def test_ingest_two_processes_on_one_database(index: Index, database_url: str, make_record) -> None:
    script = textwrap.dedent(
        """
        import sys
        from datetime import UTC, datetime
        from pacs.dicom.instance import InstanceHeader
        from pacs.index.index import Index
        from pacs.model.instances import InstanceRecord

        index = Index.open(sys.argv[1], upgrade=False)
        sys.stdin.readline()
        for number in range(60):
            study = f"7.{number % 4}"
            header = InstanceHeader("1.2", f"8.{sys.argv[2]}.{number}", f"{study}.1", study, "1.2", {"PatientID": "P"})
            index.ingest(InstanceRecord(
                header=header, location=f"{sys.argv[2]}/{number}", data_set_offset=1, data_set_size=1000,
                digest="d", received_at=datetime.now(UTC), source_ae="A"))
        index.close()
        """
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, database_url, name], stdin=subprocess.PIPE)
        for name in "12"
    ]
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.close()

    codes = [process.wait(60) for process in processes]

    assert codes == [0, 0]
    assert index.stats() == stats(1, 4, 4, 120)


def test_remove_returns_the_location_and_removes_empty_parents(index: Index, make_record) -> None:
    first, second = make_record(), make_record()
    index.ingest_batch([first, second])

    assert index.remove(first.header.sop_instance_uid) == first.location
    assert index.stats() == stats(1, 1, 1, 1)
    assert index.remove(second.header.sop_instance_uid) == second.location
    assert index.stats() == stats(0, 0, 0, 0)
    assert index.remove(second.header.sop_instance_uid) is None


def test_remove_never_lets_a_key_come_back(index: Index, make_record, make_query) -> None:
    # A retrieve plan made before must not send another instance.
    record = make_record()
    index.ingest(record)
    plan = index.plan(make_query(Level.STUDY, {"StudyInstanceUID": SingleValue("1.2.3")}))
    index.remove(record.header.sop_instance_uid)

    index.ingest(make_record())

    assert index.instances(plan.keys) == []
