"""A study says who its patient is; patients whose studies disagree are conflicts, told once."""

from __future__ import annotations

import pytest

from pacs.dicom.levels import Level
from pacs.dicom.query.matching import SingleValue, WildCard, fuzzy
from pacs.dicom.query.ranges import Range
from pacs.index.conflicts import conflict_note
from pacs.index.index import Index
from pacs.model.instances import IngestResult
from pacs.model.patients import ConflictingStudy, PatientConflict

_ALPHA = {"PatientName": "Alpha^A", "PatientBirthDate": "19500101", "PatientSex": "M"}
_BETA = {"PatientName": "Beta^B", "PatientBirthDate": "19990909", "PatientSex": "F"}


def store(index: Index, record) -> IngestResult:
    [result] = index.ingest_batch([record])
    return result


def conflicts(index: Index) -> list[PatientConflict]:
    return list(index.patient_conflicts())


def names(index: Index, make_query, level: Level, **keys) -> list[tuple[str | None, str | None]]:
    query = make_query(level, keys, ["PatientName", "PatientBirthDate"])
    found = index.search(query)
    return sorted((one["PatientName"], one["PatientBirthDate"]) for one in found)


@pytest.fixture
def shared(index: Index, make_record) -> Index:
    """Two people with one Patient ID; the second one's images came last."""
    store(index, make_record("1.1", "1.1.1", StudyDate="20240101", **_ALPHA))
    store(index, make_record("1.2", "1.2.1", AccessionNumber="A-2", **_BETA))
    return index


def test_study_is_returned_with_the_patient_of_its_own_instances(shared: Index, make_query) -> None:
    for level in (Level.STUDY, Level.SERIES, Level.IMAGE):
        assert names(shared, make_query, level) == [
            ("Alpha^A", "19500101"),
            ("Beta^B", "19990909"),
        ]
    assert names(shared, make_query, Level.PATIENT) == [("Beta^B", "19990909")]


@pytest.mark.parametrize(
    ("keyword", "match"),
    [
        ("PatientName", SingleValue("ALPHA^A")),
        ("PatientName", WildCard("al*")),
        ("PatientName", fuzzy("PN", SingleValue("A Alfa"))),
        ("PatientBirthDate", Range("19400101", "19601231")),
        ("PatientSex", SingleValue("M")),
    ],
)
def test_study_is_matched_by_the_patient_of_its_own_instances(
    shared: Index, make_query, keyword: str, match
) -> None:
    for level in (Level.STUDY, Level.SERIES, Level.IMAGE):
        assert names(shared, make_query, level, **{keyword: match}) == [("Alpha^A", "19500101")]
    assert names(shared, make_query, Level.PATIENT, **{keyword: match}) == []


def test_conflict_lists_the_studies_and_in_what_they_disagree(shared: Index) -> None:
    assert conflicts(shared) == [
        PatientConflict(
            patient_id="P-1",
            issuer="",
            keywords=("PatientName", "PatientBirthDate", "PatientSex"),
            studies=(
                ConflictingStudy("1.2", "", "A-2", "Beta^B", "19990909", "F"),
                ConflictingStudy("1.1", "20240101", "", "Alpha^A", "19500101", "M"),
            ),
        )
    ]
    assert shared.count_patient_conflicts() == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PatientName": "Müller^Jörg"}, {"PatientName": "MULLER^JORG^^^"}),
        ({"PatientName": "De Vries^A"}, {"PatientName": "DeVries ^ A"}),
        ({"PatientName": "Yamada^Tarou=山田^太郎"}, {"PatientName": "YAMADA^TAROU"}),
        ({"PatientName": "Doe^J"}, {"PatientName": ""}),
        ({"PatientBirthDate": "19500101"}, {}),
        ({"PatientSex": "M"}, {"PatientSex": ""}),
        ({"PatientComments": "a"}, {"PatientComments": "b"}),
        ({**_ALPHA, "PatientID": ""}, {**_BETA, "PatientID": ""}),
        ({**_ALPHA, "IssuerOfPatientID": "A"}, {**_BETA, "IssuerOfPatientID": "B"}),
    ],
    ids=str,
)
def test_what_is_no_conflict(index: Index, make_record, one, other) -> None:
    results = [
        store(index, make_record("1.1", "1.1.1", **one)),
        store(index, make_record("1.2", "1.2.1", **other)),
    ]

    assert conflicts(index) == []
    assert index.count_patient_conflicts() == 0
    assert [result.notes for result in results] == [(), ()]


@pytest.mark.parametrize(
    ("one", "other", "keyword"),
    [
        ({"PatientName": "Doe^J"}, {"PatientName": "Roe^J"}, "PatientName"),
        (
            {"PatientName": "Yamada^Tarou=山田^太郎"},
            {"PatientName": "Yamada^Tarou=山本^太郎"},
            "PatientName",
        ),
        ({"PatientBirthDate": "19500101"}, {"PatientBirthDate": "19500110"}, "PatientBirthDate"),
        ({"PatientSex": "M"}, {"PatientSex": "F"}, "PatientSex"),
    ],
    ids=str,
)
def test_conflict_is_told_once_and_without_a_value(
    index: Index, make_record, one, other, keyword: str
) -> None:
    results = [
        store(index, make_record("1.1", "1.1.1", **one)),
        store(index, make_record("1.2", "1.2.1", **other)),
        store(index, make_record("1.2", "1.2.1", **other)),
        store(index, make_record("1.1", "1.1.1", **one)),
        store(index, make_record("1.3", "1.3.1", **other)),
    ]

    assert [found.keywords for found in conflicts(index)] == [(keyword,)]
    notes = [note for result in results for note in result.notes]
    assert notes == [conflict_note(keyword, "1.2")]
    assert not set(one.values()) & set(notes[0].split())


def test_conflict_within_one_batch_is_told_of_the_study_that_brings_it(
    index: Index, make_record
) -> None:
    results = index.ingest_batch(
        [make_record("1.1", "1.1.1", **_ALPHA), make_record("1.2", "1.2.1", **_BETA)]
    )

    assert [len(result.notes) for result in results] == [0, 3]
    assert len(conflicts(index)) == 1


def test_corrected_study_ends_the_conflict_and_another_one_is_told_anew(
    shared: Index, make_record
) -> None:
    corrected = store(shared, make_record("1.2", "1.2.1", **_ALPHA))
    ended = conflicts(shared)
    again = store(shared, make_record("1.3", "1.3.1", **_BETA))

    assert ended == []
    assert [note.split()[0] for note in corrected.notes] == [
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
    ]
    assert [note.split(" is not")[0] for note in again.notes] == [
        "PatientName of study 1.3",
        "PatientBirthDate of study 1.3",
        "PatientSex of study 1.3",
    ]


def test_correction_of_the_only_study_is_no_conflict(index: Index, make_record) -> None:
    store(index, make_record("1.1", "1.1.1", **_ALPHA))
    result = store(index, make_record("1.1", "1.1.1", PatientName="Alfa^A"))

    assert conflicts(index) == []
    assert result.notes == ("PatientName of study 1.1 changed by a later instance",)


def test_study_that_goes_to_another_patient_takes_nothing_of_the_first_along(
    shared: Index, make_record, make_query
) -> None:
    store(shared, make_record("1.2", "1.2.1", PatientID="P-2", PatientName="Beta^B"))

    assert conflicts(shared) == []
    assert names(shared, make_query, Level.STUDY) == [("Alpha^A", "19500101"), ("Beta^B", None)]


def test_study_that_goes_to_another_issuer_takes_nothing_of_the_first_along(
    index: Index, make_record, make_query
) -> None:
    store(index, make_record("1.1", "1.1.1", IssuerOfPatientID="A", **_ALPHA))
    store(index, make_record("1.1", "1.1.1", IssuerOfPatientID="B", PatientSex="F"))

    assert names(index, make_query, Level.STUDY) == [(None, None)]


def test_study_whose_patient_gets_an_issuer_keeps_what_is_known_of_him(
    index: Index, make_record, make_query
) -> None:
    store(index, make_record("1.1", "1.1.1", **_ALPHA))
    store(index, make_record("1.1", "1.1.1", IssuerOfPatientID="B", PatientSex="M"))

    assert names(index, make_query, Level.STUDY) == [("Alpha^A", "19500101")]


def test_instance_without_a_patient_id_says_nothing_of_the_patient(
    shared: Index, make_record, make_query
) -> None:
    result = store(shared, make_record("1.1", "1.1.1", PatientID="", PatientName="Nobody"))

    assert result.notes == ()
    assert names(shared, make_query, Level.STUDY) == [
        ("Alpha^A", "19500101"),
        ("Beta^B", "19990909"),
    ]
