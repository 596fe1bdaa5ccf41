from __future__ import annotations

import pytest

from pacs.dicom.levels import Level
from pacs.index.parent_rows import ParentRow
from pacs.index.parents import KnownSeries, ParentMemory, PatientIdentity, decide_patient
from pacs.index.rows import LEVEL_COLUMNS

_KNOWN = PatientIdentity("7", "hospital", "")
_WITHOUT_ISSUER = PatientIdentity("7", "", "")
_OTHER = PatientIdentity("8", "", "")
_OTHER_ISSUER = PatientIdentity("7", "clinic", "")
_NOBODY = PatientIdentity.of("", "hospital", "1.2.3")


@pytest.mark.parametrize(
    ("current", "claimed", "decided"),
    [
        (None, _KNOWN, _KNOWN),
        (None, _NOBODY, _NOBODY),
        (_KNOWN, _NOBODY, _KNOWN),
        (_KNOWN, _WITHOUT_ISSUER, _KNOWN),
        (_KNOWN, _OTHER, _OTHER),
        (_KNOWN, _OTHER_ISSUER, _OTHER_ISSUER),
        (_WITHOUT_ISSUER, _KNOWN, _KNOWN),
        (_NOBODY, _WITHOUT_ISSUER, _WITHOUT_ISSUER),
        (_NOBODY, _NOBODY, _NOBODY),
    ],
)
def test_decide_patient_latest_wins_unless_it_says_less(current, claimed, decided) -> None:
    assert decide_patient(current, claimed) == decided


def test_identity_key_tells_all_parts_apart() -> None:
    identities = [
        PatientIdentity("ab", "c", ""),
        PatientIdentity("a", "bc", ""),
        PatientIdentity("abc", "", ""),
        PatientIdentity("", "", "abc"),
        PatientIdentity("1:a", "", ""),
        PatientIdentity("", "1:a", ""),
    ]

    assert len({identity.key for identity in identities}) == len(identities)
    assert all(len(identity.key) == 64 for identity in identities)


def known_series(make_record, **values: str) -> KnownSeries:
    header = make_record(**values).header

    def row(level: Level) -> ParentRow:
        return ParentRow(1, 1, LEVEL_COLUMNS[level].values(header.values))

    return KnownSeries(
        patient=row(Level.PATIENT),
        identity=PatientIdentity.of(
            header.values.get("PatientID"), header.values.get("IssuerOfPatientID"), "1.2.3"
        ),
        study=row(Level.STUDY),
        series=row(Level.SERIES),
    )


@pytest.mark.parametrize(
    ("values", "is_covered"),
    [
        ({"StudyID": "1"}, True),
        ({}, True),
        ({"StudyID": "", "Rows": "512"}, True),
        ({"StudyID": "2"}, False),
        ({"Laterality": "L"}, False),
        ({"PatientSex": "F"}, False),
        ({"PatientID": "P-2"}, False),
        ({"PatientID": "", "PatientSex": "F"}, True),
    ],
    ids=str,
)
def test_known_series_covers_what_would_change_nothing(
    make_record, values: dict[str, str], is_covered: bool
) -> None:
    known = known_series(make_record, StudyID="1")

    assert known.covers(make_record(**values).header) is is_covered


def test_parent_memory_is_bounded_and_keeps_the_latest_used(make_record) -> None:
    memory = ParentMemory(capacity=2)
    headers = [make_record(series=f"1.2.3.{n}").header for n in range(3)]
    known = known_series(make_record)

    memory.remember(headers[0], known)
    memory.remember(headers[1], known)
    assert memory.recall(headers[0]) is known
    memory.remember(headers[2], known)

    assert memory.recall(headers[0]) is known
    assert memory.recall(headers[1]) is None
    assert memory.recall(headers[2]) is known
