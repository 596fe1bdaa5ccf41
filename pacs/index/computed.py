"""Computed Attributes (PS3.4 C.3.4 and the optional keys of C.6) as SQL expressions, by keyword.

Each is correlated with the row of its own level in the enclosing SELECT, so it costs something only for the rows
that are returned, and nothing is stored that could become untrue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from pacs.dicom.attributes import Attribute
from pacs.index.tables import instance, patient, series, study

Expression = sa.ColumnElement[Any]


def _count(children: sa.FromClause, link: sa.ColumnElement[bool], parent: sa.Table) -> Expression:
    return (
        sa.select(sa.func.count())
        .select_from(children)
        .where(link)
        .correlate(parent)
        .scalar_subquery()
    )


# Aliases: the enclosing SELECT may join these tables too, and a name would then mean the outer row.
_studies = study.alias("child_study")
_series = series.alias("child_series")
_instances = instance.alias("child_instance")

_series_of_studies = _series.join(_studies, _series.c.study_pk == _studies.c.id)
_instances_of_series = _instances.join(_series, _instances.c.series_pk == _series.c.id)
_instances_of_studies = _instances_of_series.join(_studies, _series.c.study_pk == _studies.c.id)

COUNTS: dict[str, Expression] = {
    "NumberOfPatientRelatedStudies": _count(
        _studies, _studies.c.patient_pk == patient.c.id, patient
    ),
    "NumberOfPatientRelatedSeries": _count(
        _series_of_studies, _studies.c.patient_pk == patient.c.id, patient
    ),
    "NumberOfPatientRelatedInstances": _count(
        _instances_of_studies, _studies.c.patient_pk == patient.c.id, patient
    ),
    "NumberOfStudyRelatedSeries": _count(_series, _series.c.study_pk == study.c.id, study),
    "NumberOfStudyRelatedInstances": _count(
        _instances_of_series, _series.c.study_pk == study.c.id, study
    ),
    "NumberOfSeriesRelatedInstances": _count(
        _instances, _instances.c.series_pk == series.c.id, series
    ),
}

#: The value of a child, and where the children of a study are.
_COLLECTED: dict[str, tuple[sa.Column[str] | Expression, sa.FromClause]] = {
    "ModalitiesInStudy": (_series.c.modality, _series),
    "SOPClassesInStudy": (_instances.c.sop_class_uid, _instances_of_series),
}


def expression(attribute: Attribute) -> Expression:
    """The value of a computed Attribute; several values are joined with a backslash, in no order."""
    keyword = attribute.keyword
    if keyword in COUNTS:
        return COUNTS[keyword]
    if keyword in _COLLECTED:
        return _joined_values(*_COLLECTED[keyword])
    assert keyword == "AvailableTransferSyntaxUID", keyword
    return instance.c.transfer_syntax_uid


def collected_condition(
    attribute: Attribute, compile_match: Callable[[Expression], Expression]
) -> Expression | None:
    """Whether the value of any child matches; None if the Attribute collects nothing from children."""
    if attribute.keyword not in _COLLECTED:
        return None
    value, children = _COLLECTED[attribute.keyword]
    return (
        sa.select(sa.literal(1))
        .select_from(children)
        .where(_series.c.study_pk == study.c.id, compile_match(value))
        .correlate(study)
        .exists()
    )


def _joined_values(value: Expression, children: sa.FromClause) -> Expression:
    distinct = (
        sa.select(value.label("value"))
        .select_from(children)
        .where(_series.c.study_pk == study.c.id, value.is_not(None))
        .distinct()
        .correlate(study)
        .subquery("child_values")
    )
    return sa.select(sa.func.aggregate_strings(distinct.c.value, "\\")).scalar_subquery()
