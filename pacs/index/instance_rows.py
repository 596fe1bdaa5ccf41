"""The row of an instance: its columns, and the INSERT that finds its parents only as they are remembered."""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.parents import KnownSeries
from pacs.index.rows import LEVEL_COLUMNS
from pacs.model.instances import InstanceRecord

Insert = TypeVar("Insert", bound=sa.Insert)

#: Without the keys.
INSTANCE_COLUMNS = [c for c in tables.instance.c if c.name not in {"id", "series_pk"}]


def instance_row(record: InstanceRecord, known: KnownSeries) -> dict[str, Any]:
    """The values of an instance's columns, and of the parameters that stand for its parents."""
    columns = LEVEL_COLUMNS[Level.IMAGE]
    header = record.header
    row: dict[str, Any] = {**columns.row(columns.values(header.values))}
    row["sop_instance_uid"] = header.sop_instance_uid
    row["sop_class_uid"] = header.sop_class_uid
    row["transfer_syntax_uid"] = header.transfer_syntax_uid
    row["location"] = record.location
    row["data_set_offset"] = record.data_set_offset
    row["data_set_size"] = record.data_set_size
    row["digest"] = record.digest
    row["received_at"] = record.received_at
    row["source_ae"] = record.source_ae
    row["_series_key"], row["_series_revision"] = known.series.key, known.series.revision
    row["_study_key"], row["_study_revision"] = known.study.key, known.study.revision
    row["_patient_key"], row["_patient_revision"] = known.patient.key, known.patient.revision
    return row


def guarded_insert(insert: Insert) -> Insert:
    """INSERT ... SELECT from the parent rows, which inserts nothing if one has another revision."""
    parents = (tables.series, tables.study, tables.patient)
    select = (
        sa.select(
            tables.series.c.id, *(sa.bindparam(c.name, type_=c.type) for c in INSTANCE_COLUMNS)
        )
        .select_from(tables.series.join(tables.study).join(tables.patient))
        .where(*(table.c.id == sa.bindparam(f"_{table.name}_key") for table in parents))
        .where(*(table.c.revision == sa.bindparam(f"_{table.name}_revision") for table in parents))
    )
    names = ["series_pk", *(c.name for c in INSTANCE_COLUMNS)]
    return insert.from_select(names, select, include_defaults=False)
