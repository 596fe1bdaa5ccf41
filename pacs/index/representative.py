"""The instance that speaks for an entity: the one received last, whose values the index has too (PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.index import tables

_FILE = tables.instance.alias("representative")
_OTHER, _SERIES, _STUDY = (
    tables.instance.alias("of_entity"),
    tables.series.alias("series_of_entity"),
    tables.study.alias("study_of_entity"),
)
_INSTANCES = {
    Level.PATIENT: sa.select(sa.func.max(_OTHER.c.location))
    .select_from(_OTHER.join(_SERIES).join(_STUDY))
    .where(_STUDY.c.patient_pk == tables.patient.c.id),
    Level.STUDY: sa.select(sa.func.max(_OTHER.c.location))
    .select_from(_OTHER.join(_SERIES))
    .where(_SERIES.c.study_pk == tables.study.c.id),
    Level.SERIES: sa.select(sa.func.max(_OTHER.c.location)).where(
        _OTHER.c.series_pk == tables.series.c.id
    ),
}


def joined(level: Level, source: sa.FromClause) -> sa.FromClause:
    """The tables of a level with one instance for each entity.

    Locations sort in the order of receipt, and are unique: the greatest is the latest, also of those replaced.
    """
    if level is Level.IMAGE:
        return source
    entity = tables.ENTITIES[level]
    latest = _INSTANCES[level].correlate(entity).scalar_subquery()
    # An entity that has just lost its last instance is still found, without a file.
    return source.outerjoin(_FILE, _FILE.c.location == latest)


def columns(level: Level) -> tuple[sa.ColumnElement[Any], ...]:
    """Transfer syntax, location, offset and key of that instance, as in ``HeaderFile``."""
    instance = tables.instance if level is Level.IMAGE else _FILE
    c = instance.c
    return c.transfer_syntax_uid, c.location, c.data_set_offset, c.id
