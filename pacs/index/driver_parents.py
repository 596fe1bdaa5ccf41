"""The parent rows of an instance by statements prepared for the driver: found, or made where they are new.

What radiography sends all day is one image a study: a patient, a study and a series row for each instance. ``resolve``
(``pacs.index.parents``) reads, locks and merges rows for any mixture of instances, and takes as long as all the rest
of a store. Here is only what changes no row that is there: a new study of a patient whose row agrees with it, a new
series, rows that say all of it already. Whatever else it meets it leaves to ``resolve``.

Nothing is locked. A row below another is inserted only while that one has the revision that was read, as instances are
(``pacs.index.known_insert``), and a row that somebody else has inserted meanwhile is not inserted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.driver_statement import DriverStatement
from pacs.index.parent_rows import KEY_COLUMNS, ParentRow
from pacs.index.parents import KnownSeries, PatientIdentity, claimed_identity
from pacs.index.rows import LEVEL_COLUMNS, merge

_PATIENT, _STUDY, _SERIES = (
    LEVEL_COLUMNS[one] for one in (Level.PATIENT, Level.STUDY, Level.SERIES)
)
#: The revision that a row is inserted with.
_FIRST = 1


class DriverParents:
    """Finds or makes the rows above one instance after the other, in a transaction of whoever calls."""

    def __init__(self, dialect: sa.Dialect) -> None:
        """Write the statements in ``dialect``."""
        self._find = DriverStatement(_found(), dialect)
        self._find_patient = DriverStatement(_found_patient(), dialect)
        self._insert_patient = DriverStatement(_inserted(Level.PATIENT, dialect.name), dialect)
        self._insert_study = DriverStatement(_inserted(Level.STUDY, dialect.name), dialect)
        self._insert_series = DriverStatement(_inserted(Level.SERIES, dialect.name), dialect)

    def __call__(self, cursor: Any, header: InstanceHeader) -> KnownSeries | None:
        """The rows above an instance; None if they are not as it says, or not any more."""
        uid = header.study_instance_uid
        self._find.execute(cursor, {"study": uid, "series": header.series_instance_uid})
        found = cursor.fetchone()
        if found is None:
            return self._new_study(cursor, header)
        patient, rest = _row(found, _PATIENT.columns)
        study, rest = _row(rest, _STUDY.columns)
        series, _ = _row(rest, _SERIES.columns)
        assert patient is not None
        assert study is not None
        said = dict(zip(_PATIENT.keywords, patient.values, strict=True))
        identity = PatientIdentity.of(said["PatientID"], said["IssuerOfPatientID"], uid)
        if series is not None:
            known = KnownSeries(patient, identity, study, series)
            return known if known.covers(header) else None
        # Whether the rows above agree is asked of a series that does.
        wanted = ParentRow(0, _FIRST, _SERIES.values(header.values))
        if not KnownSeries(patient, identity, study, wanted).covers(header):
            return None
        return self._with_series(cursor, header, patient, identity, study)

    def _new_study(self, cursor: Any, header: InstanceHeader) -> KnownSeries | None:
        identity = claimed_identity(header)
        patient = self._patient(cursor, header, identity)
        if patient is None:
            return None
        values = _STUDY.values(header.values)
        study = self._inserted(
            cursor,
            self._insert_study,
            _STUDY.row(values)
            | {"study_instance_uid": header.study_instance_uid}
            | {"attribute_set_version": ATTRIBUTE_SET_VERSION}
            | _above(patient),
            ParentRow(0, _FIRST, values),
        )
        if study is None:
            return None
        return self._with_series(cursor, header, patient, identity, study)

    def _patient(
        self, cursor: Any, header: InstanceHeader, identity: PatientIdentity
    ) -> ParentRow | None:
        values = _PATIENT.values(header.values)
        self._find_patient.execute(cursor, {"identity": identity.key})
        found = cursor.fetchone()
        if found is not None:
            patient, _ = _row(found, _PATIENT.columns)
            assert patient is not None
            return patient if merge(patient.values, values) == patient.values else None
        return self._inserted(
            cursor,
            self._insert_patient,
            _PATIENT.row(values)
            | {"identity": identity.key, "conflicts": None}
            | {"attribute_set_version": ATTRIBUTE_SET_VERSION, "revision": _FIRST},
            ParentRow(0, _FIRST, values),
        )

    def _with_series(
        self,
        cursor: Any,
        header: InstanceHeader,
        patient: ParentRow,
        identity: PatientIdentity,
        study: ParentRow,
    ) -> KnownSeries | None:
        values = _SERIES.values(header.values)
        series = self._inserted(
            cursor,
            self._insert_series,
            _SERIES.row(values)
            | {"series_instance_uid": header.series_instance_uid}
            | _above(study),
            ParentRow(0, _FIRST, values),
        )
        return None if series is None else KnownSeries(patient, identity, study, series)

    @staticmethod
    def _inserted(
        cursor: Any, statement: DriverStatement, row: Mapping[str, Any], made: ParentRow
    ) -> ParentRow | None:
        statement.execute(cursor, row)
        inserted = cursor.fetchone()
        return None if inserted is None else ParentRow(inserted[0], made.revision, made.values)


def _row(found: Any, columns: tuple[str, ...]) -> tuple[ParentRow | None, Any]:
    """The row that ``found`` begins with, and what follows it; None of an outer join that found nothing."""
    end = 2 + len(columns)
    row = None if found[0] is None else ParentRow(found[0], found[1], tuple(found[2:end]))
    return row, found[end:]


def _above(parent: ParentRow) -> dict[str, int]:
    return {"_parent_key": parent.key, "_parent_revision": parent.revision, "revision": _FIRST}


def _selected(table: sa.Table, level: Level) -> list[sa.Column[Any]]:
    return [table.c.id, table.c.revision, *(table.c[name] for name in LEVEL_COLUMNS[level].columns)]


def _found() -> sa.Select[Any]:
    patient, study, series = tables.patient, tables.study, tables.series
    is_series = sa.and_(
        series.c.study_pk == study.c.id, series.c.series_instance_uid == sa.bindparam("series")
    )
    return (
        sa.select(
            *_selected(patient, Level.PATIENT),
            *_selected(study, Level.STUDY),
            *_selected(series, Level.SERIES),
        )
        .select_from(study.join(patient).outerjoin(series, is_series))
        .where(study.c.study_instance_uid == sa.bindparam("study"))
    )


def _found_patient() -> sa.Select[Any]:
    patient = tables.patient
    return sa.select(*_selected(patient, Level.PATIENT)).where(
        patient.c.identity == sa.bindparam("identity")
    )


_ABOVE = {Level.STUDY: tables.patient, Level.SERIES: tables.study}


def _inserted(level: Level, backend: str) -> Any:
    table = tables.ENTITIES[level]
    insert: Any = (sqlite.insert if backend == "sqlite" else postgresql.insert)(table)
    columns = [c for c in table.c if c.name != "id" and not c.foreign_keys]
    values = [sa.bindparam(c.name, type_=c.type) for c in columns]
    if level in _ABOVE:
        above = _ABOVE[level]
        row = sa.select(above.c.id, *values).where(
            above.c.id == sa.bindparam("_parent_key"),
            above.c.revision == sa.bindparam("_parent_revision"),
        )
        names = [f"{above.name}_pk", *(c.name for c in columns)]
        insert = insert.from_select(names, row, include_defaults=False)
    else:
        insert = insert.values({c.name: value for c, value in zip(columns, values, strict=True)})
    return insert.on_conflict_do_nothing(index_elements=KEY_COLUMNS[level]).returning(table.c.id)
