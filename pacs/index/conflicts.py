"""Patients whose studies disagree in who they are: maybe two people who share a Patient ID.

The studies of a patient disagree if two of them have another name, birth date or sex. Case, accents, width and spaces
do not count, nor does what one of them does not have; names are compared by component group. Without a Patient ID each
study has a patient of its own, and disagrees with nobody.

What is listed is asked of the studies each time. A patient row remembers the keywords that were noticed, so that one
disagreement is told once. It is noticed when an instance contradicts what the patient row says, which costs those
instances a look at the studies of the patient that have brought something new, and no other instance anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import sqlalchemy as sa

from pacs.dicom.attributes import BY_KEYWORD
from pacs.dicom.levels import Level
from pacs.dicom.text.names import name_groups
from pacs.index import tables
from pacs.index.engine import Engine
from pacs.index.rows import LEVEL_COLUMNS, Values
from pacs.model.patients import ConflictingStudy, PatientConflict

_COMPARED = ("PatientName", "PatientBirthDate", "PatientSex")


def disagreeing(level: Level, one: Values, other: Values) -> set[str]:
    """The keywords in which what two rows of ``level`` say of a patient disagrees."""
    pairs = zip(LEVEL_COLUMNS[level].keywords, one, other, strict=True)
    return {word for word, a, b in pairs if word in _COMPARED and a and b and _differ(word, a, b)}


def _differ(keyword: str, one: str, other: str) -> bool:
    if keyword != "PatientName":
        return one.lower() != other.lower()
    groups = zip(name_groups(one), name_groups(other), strict=True)
    return any(a and b and a.replace(" ", "") != b.replace(" ", "") for a, b in groups)


def note_conflicts(
    connection: sa.Connection, suspected: Mapping[int, Collection[str]], changed: Collection[int]
) -> dict[int, list[str]]:
    """Look at the studies of patients, whose rows are locked; what each of them disagrees in now and did not before.

    Args:
        connection: In the transaction that wrote the studies.
        suspected: Keys of patients to the keywords of which another value than the known one came.
        changed: Keys of patients of whose studies one says something else than before, or has gone.
    """
    keys = sorted({*suspected, *changed})
    if not keys:
        return {}
    patient = tables.patient.c
    rows = connection.execute(
        sa.select(patient.id, patient.conflicts).where(patient.id.in_(keys))
    ).all()
    known = {key: set((words or "").split()) for key, words in rows}
    looked_at = [
        key
        for key, words in known.items()
        if set(suspected.get(key, ())) - words or (key in changed and words)
    ]
    found = _conflicts_of(connection, looked_at)
    for key in looked_at:
        if found[key] != known[key]:
            words = " ".join(word for word in _COMPARED if word in found[key])
            connection.execute(
                sa.update(tables.patient).where(patient.id == key).values(conflicts=words or None)
            )
    return {
        key: [word for word in _COMPARED if word in found[key] - known[key]] for key in looked_at
    }


def conflict_note(keyword: str, study_instance_uid: str) -> str:
    """What the log says of a conflict, without a value."""
    return (
        f"{keyword} of study {study_instance_uid} is not that of another study with its Patient ID: "
        "see 'pacs patient conflicts'"
    )


def _conflicts_of(connection: sa.Connection, keys: Collection[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {key: set() for key in keys}
    if found:
        of_patients = tables.study.c.patient_pk.in_(sorted(found))
        for key, *differ in connection.execute(_DISAGREEING.where(of_patients)):
            found[key] = {word for word, one in zip(_COMPARED, differ, strict=True) if one}
    return found


def _forms(keyword: str) -> list[sa.ColumnElement[str]]:
    """What of an Attribute of a study is compared, without what does not count."""
    attribute = BY_KEYWORD[keyword]
    # The codes for fuzzy matching are no form of a name that tells two of them apart.
    names = attribute.shadow_columns[:-1] if attribute.vr == "PN" else (attribute.column,)
    columns = [tables.study.c[name] for name in names]
    if attribute.vr == "PN":
        return [sa.func.replace(column, " ", "") for column in columns]
    return [sa.func.lower(column) for column in columns]


# MIN and MAX leave out what has no value, and read each group once.
_DIFFERS = [
    sa.func.coalesce(
        sa.or_(*(sa.func.min(form) != sa.func.max(form) for form in _forms(keyword))), sa.false()
    )
    for keyword in _COMPARED
]
_DISAGREEING = (
    sa.select(
        tables.study.c.patient_pk,
        *(differs.label(f"c{number}") for number, differs in enumerate(_DIFFERS)),
    )
    .group_by(tables.study.c.patient_pk)
    .having(sa.or_(*_DIFFERS))
)


def count_conflicts(engine: Engine) -> int:
    """How many patients have studies that disagree."""
    statement = sa.select(sa.func.count()).select_from(_DISAGREEING.subquery())
    with engine.read() as connection:
        return connection.scalar(statement) or 0


def list_conflicts(engine: Engine) -> Iterator[PatientConflict]:
    """The patients whose studies disagree, by Patient ID, each with all of its studies by date.

    Nothing of the database is held between them: whoever reads them may take any time.

    Raises:
        IndexUnavailable: also while iterating.
    """
    found = _DISAGREEING.subquery("found")
    patient = tables.patient.c
    words = [found.c[f"c{number}"] for number in range(len(_COMPARED))]
    statement = (
        sa.select(patient.id, patient.patient_id, patient.issuer_of_patient_id, *words)
        .select_from(tables.patient.join(found, found.c.patient_pk == patient.id))
        .order_by(patient.patient_id, patient.id)
    )
    with engine.read() as connection:
        rows = connection.execute(statement).all()
    for key, patient_id, issuer, *differ in rows:
        with engine.read() as connection:
            studies = connection.execute(_STUDIES.where(tables.study.c.patient_pk == key)).all()
        yield PatientConflict(
            patient_id=patient_id or "",
            issuer=issuer or "",
            keywords=tuple(word for word, one in zip(_COMPARED, differ, strict=True) if one),
            studies=tuple(ConflictingStudy(*(value or "" for value in row)) for row in studies),
        )


#: In the order of the fields of ``ConflictingStudy``.
_STUDIES = sa.select(
    tables.study.c.study_instance_uid,
    tables.study.c.study_date,
    tables.study.c.accession_number,
    tables.study.c.patient_name,
    tables.study.c.patient_birth_date,
    tables.study.c.patient_sex,
).order_by(sa.func.coalesce(tables.study.c.study_date, ""), tables.study.c.id)
