"""Write rows again from headers that were read again: after the attribute table has grown, or to mend rows.

Rows are only updated, never inserted: a row that was removed, or that points at another file by now, is left
alone, so a writer may be at work at the same time. Parents follow the usual rule (``pacs.index.parents``), so
records have to come in the order of receipt, and a value that no instance has any more is not erased: unless it was
written by an earlier release, and says of a patient or a study what may be another patient's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.conflicts import conflict_note
from pacs.index.engine import Engine, StaleState
from pacs.index.parent_rows import remove_empty
from pacs.index.parents import KnownSeries, resolve
from pacs.index.rows import LEVEL_COLUMNS
from pacs.model.instances import InstanceRecord

LOGGER = logging.getLogger(__name__)


def rewrite(engine: Engine, records: Sequence[InstanceRecord]) -> set[str]:
    """Update the rows of these instances in one transaction; return the locations of those there were.

    When an instance was received and from whom stays as it is in the row. At most 500 records at a time, each
    of another instance.

    Raises:
        IndexUnavailable: nothing was committed, or all; calling again is safe.
    """

    def work(connection: sa.Connection) -> tuple[set[str], list[str]]:
        rows = {row.location: row for row in _rows(connection, records)}
        present = [
            record
            for record in records
            if (row := rows.get(record.location)) is not None
            and row.sop_instance_uid == record.header.sop_instance_uid
        ]
        if not present:
            return set(), []
        resolution = resolve(connection, [record.header for record in present], rewrite=True)
        left_series = set()
        for record, known in zip(present, resolution.known, strict=True):
            row = rows[record.location]
            updated = connection.execute(_UPDATE, _columns(record, known) | {"_key": row.id})
            if updated.rowcount != 1:
                raise StaleState
            if row.series_pk != known.series.key:
                left_series.add(row.series_pk)
        remove_empty(connection, series=left_series, patients=resolution.left_patients)
        notes = [
            conflict_note(word, record.header.study_instance_uid)
            for record, words in zip(present, resolution.conflicts, strict=True)
            for word in words
        ]
        return {record.location for record in present}, notes

    locations, notes = engine.transact(work)
    for note in notes:
        LOGGER.warning("%s", note)
    return locations


def _rows(connection: sa.Connection, records: Sequence[InstanceRecord]) -> Sequence[Any]:
    locations = [record.location for record in records]
    return connection.execute(_SELECT, {"locations": locations}).all()


def _columns(record: InstanceRecord, known: KnownSeries) -> dict[str, Any]:
    columns = LEVEL_COLUMNS[Level.IMAGE]
    return {
        **columns.row(columns.values(record.header.values)),
        "series_pk": known.series.key,
        "sop_class_uid": record.header.sop_class_uid,
        "transfer_syntax_uid": record.header.transfer_syntax_uid,
        "data_set_offset": record.data_set_offset,
        "data_set_size": record.data_set_size,
        "digest": record.digest,
        "_location": record.location,
    }


_SELECT = sa.select(
    tables.instance.c.id,
    tables.instance.c.series_pk,
    tables.instance.c.sop_instance_uid,
    tables.instance.c.location,
).where(tables.instance.c.location.in_(sa.bindparam("locations", expanding=True)))

_REWRITTEN = (
    "series_pk",
    "sop_class_uid",
    "transfer_syntax_uid",
    "data_set_offset",
    "data_set_size",
    "digest",
    *LEVEL_COLUMNS[Level.IMAGE].all_columns,
)
_UPDATE = (
    sa.update(tables.instance)
    .where(
        tables.instance.c.id == sa.bindparam("_key"),
        # Another writer may have replaced the instance since: then the row is about other bytes.
        tables.instance.c.location == sa.bindparam("_location"),
    )
    .values({name: sa.bindparam(name) for name in _REWRITTEN})
)
