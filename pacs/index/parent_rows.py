"""The rows of one parent table: read, locked, changed and written; and removed when nothing is below them.

``pacs.index.parents`` decides what they say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pacs.dicom.attributes import ATTRIBUTE_SET_VERSION
from pacs.dicom.levels import Level
from pacs.index import tables
from pacs.index.engine import StaleState
from pacs.index.rows import LEVEL_COLUMNS, Values, contradicted, merge

#: The values of a row's unique key.
RowKey = tuple[Any, ...]

#: The unique key of each table.
KEY_COLUMNS: dict[Level, tuple[str, ...]] = {
    Level.PATIENT: ("identity",),
    Level.STUDY: ("study_instance_uid",),
    Level.SERIES: ("series_instance_uid", "study_pk"),
}
#: Levels whose rows say something of a patient.
_VERSIONED = frozenset({Level.PATIENT, Level.STUDY})
_PARENT_COLUMNS = {Level.STUDY: "patient_pk", Level.SERIES: "study_pk"}


@dataclass(frozen=True, slots=True)
class ParentRow:
    """One parent row as it was when it was read or written."""

    key: int
    revision: int
    values: Values


@dataclass(slots=True)
class _Pending:
    """A row as it was and as it will be."""

    key: int | None
    revision: int
    values: Values
    parent: int | None
    changed: bool = False
    #: Whether what it says of the patient was read by the attribute table of this release.
    is_current: bool = True


class LevelWriter:
    """Reads and locks the wanted rows of one table, folds values into them, writes what changed."""

    def __init__(
        self,
        connection: sa.Connection,
        level: Level,
        keys: Iterable[RowKey],
        *,
        rewrite: bool = False,
    ) -> None:
        """With ``rewrite`` a row is written even if its values stay: the forms for matching may not."""
        self._rewrite = rewrite
        self._connection = connection
        self._level = level
        self._columns = LEVEL_COLUMNS[level]
        self._rows = self._lock(sorted(set(keys)))

    def _lock(self, keys: list[RowKey]) -> dict[RowKey, _Pending]:
        table = tables.ENTITIES[self._level].c
        names = KEY_COLUMNS[self._level]
        parent = _PARENT_COLUMNS.get(self._level)
        statement = sa.select(
            *(table[name] for name in names),
            table.id,
            table.revision,
            table[parent] if parent else sa.null(),
            table.attribute_set_version if self._level in _VERSIONED else sa.null(),
            *(table[name] for name in self._columns.columns),
        )
        for position, name in enumerate(names):
            statement = statement.where(table[name].in_(sorted({key[position] for key in keys})))
        # KEY SHARE locks, which the foreign keys of inserted children take, do not wait for this one.
        statement = statement.order_by(*names).with_for_update(key_share=True)
        count = len(names)
        return {
            tuple(row[:count]): _Pending(
                row[count],
                row[count + 1],
                tuple(row[count + 4 :]),
                row[count + 2],
                is_current=row[count + 3] == ATTRIBUTE_SET_VERSION,
            )
            for row in self._connection.execute(statement)
        }

    def expect_parents(self, parents: Mapping[RowKey, int]) -> None:
        """Check that the locked rows still have the parents they were seen with.

        Raises:
            StaleState: one has another parent, has appeared or has gone.
        """
        if {key: row.parent for key, row in self._rows.items()} != parents:
            raise StaleState

    def values_of(self, key: RowKey) -> Values | None:
        """What the row says now, with all that was folded into it; None if it is not there."""
        row = self._rows.get(key)
        return None if row is None else row.values

    def fold(
        self,
        key: RowKey,
        header_values: Mapping[str, str],
        notes: list[str],
        parent: int | None = None,
        *,
        forget: Collection[str] = (),
    ) -> None:
        """Apply what one instance says about the row; note what it contradicts.

        What the row says of the keywords ``forget`` is of somebody else.
        """
        latest = self._columns.values(header_values)
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = _Pending(None, 0, latest, parent, changed=True)
            return
        if forget:
            row.values = self._without(row.values, forget)
            row.is_current = row.changed = True
        merged = merge(row.values, latest)
        notes.extend(contradicted(self._level, row.values, latest))
        is_same = merged == row.values and parent == row.parent
        row.changed = row.changed or self._rewrite or not is_same
        row.values, row.parent = merged, parent

    def is_old(self, key: RowKey) -> bool:
        """Whether the row says of the patient what an earlier release has read."""
        row = self._rows.get(key)
        return row is not None and not row.is_current

    def _without(self, values: Values, keywords: Collection[str]) -> Values:
        pairs = zip(self._columns.keywords, values, strict=True)
        return tuple([None if keyword in keywords else value for keyword, value in pairs])

    def write(self) -> dict[RowKey, ParentRow]:
        """Insert and update; return every wanted row as it is now."""
        changed = {key: row for key, row in sorted(self._rows.items()) if row.changed}
        self._insert({key: row for key, row in changed.items() if row.key is None})
        self._update([row for row in changed.values() if row.revision])
        written: dict[RowKey, ParentRow] = {}
        for key, row in self._rows.items():
            assert row.key is not None
            revision = row.revision + 1 if row.changed else row.revision
            written[key] = ParentRow(row.key, revision, row.values)
        return written

    def _insert(self, missing: dict[RowKey, _Pending]) -> None:
        if not missing:
            return
        names = KEY_COLUMNS[self._level]
        rows = [
            self._row(row) | dict(zip(names, key, strict=True)) | {"revision": 1}
            for key, row in missing.items()
        ]
        if self._level is Level.PATIENT:
            rows = [row | {"conflicts": None} for row in rows]
        backend = self._connection.dialect.name
        parameters = rows if backend == "sqlite" else _by_column(rows)
        inserted = self._connection.execute(_INSERTS[backend][self._level], parameters).all()
        # Race: another writer committed one of these rows after our SELECT. ON CONFLICT has waited for it and
        # left the row alone, but we have not merged with its values; a new transaction will see them.
        if len(inserted) != len(missing):
            raise StaleState
        for number, *key in inserted:
            missing[tuple(key)].key = number

    def _update(self, rows: list[_Pending]) -> None:
        if not rows:
            return
        self._connection.execute(
            _UPDATES[self._level],
            [self._row(row) | {"_key": row.key, "revision": row.revision + 1} for row in rows],
        )

    def _row(self, row: _Pending) -> dict[str, Any]:
        columns: dict[str, Any] = {**self._columns.row(row.values)}
        if self._level in _PARENT_COLUMNS:
            columns[_PARENT_COLUMNS[self._level]] = row.parent
        if self._level in _VERSIONED:
            columns["attribute_set_version"] = ATTRIBUTE_SET_VERSION if row.is_current else None
        return columns


def _by_column(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _insert_statement(level: Level, backend: str) -> Any:
    table = tables.ENTITIES[level]
    key = [table.c[name] for name in KEY_COLUMNS[level]]
    insert: Any = sqlite.insert(table)
    if backend == "postgresql":
        names = [column.name for column in table.c if column.name != "id"]
        insert = postgresql.insert(table).from_select(names, _unnested(table, names))
    return insert.on_conflict_do_nothing(index_elements=key).returning(table.c.id, *key)


def _unnested(table: sa.Table, names: list[str]) -> sa.Select[Any]:
    """Rows from one array a column, so that the statement is the same for any number of rows.

    As VALUES, the driver reads a text with thousands of parameters anew each time: that was half of the time for
    new studies (128 of them in a batch: 902 a second with VALUES, 1,558 with arrays, in the same minute).
    """
    arrays = (sa.bindparam(name, type_=postgresql.ARRAY(table.c[name].type)) for name in names)
    rows = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="new_rows")
    return sa.select(*(rows.c[name] for name in names))


def _update_statement(level: Level) -> sa.Update:
    table = tables.ENTITIES[level]
    names = ["revision", *LEVEL_COLUMNS[level].all_columns]
    if level in _PARENT_COLUMNS:
        names.append(_PARENT_COLUMNS[level])
    if level in _VERSIONED:
        names.append("attribute_set_version")
    return (
        sa.update(table)
        .where(table.c.id == sa.bindparam("_key"))
        .values({name: sa.bindparam(name) for name in names})
    )


_INSERTS: dict[str, dict[Level, Any]] = {
    backend: {level: _insert_statement(level, backend) for level in KEY_COLUMNS}
    for backend in ("sqlite", "postgresql")
}
_UPDATES = {level: _update_statement(level) for level in KEY_COLUMNS}


def remove_empty(
    connection: sa.Connection, *, series: Collection[int] = (), patients: Collection[int] = ()
) -> None:
    """Remove those of the rows, and of the rows above them, that have no children left.

    A writer that inserts a child at the same time holds the row's key: the DELETE waits for it and is then
    stopped by the foreign key, and the whole transaction runs again.
    """
    studies = _parents_of(connection, tables.series, series, "study_pk")
    _delete_childless(connection, tables.series, series, tables.instance)
    patients = {*patients, *_parents_of(connection, tables.study, studies, "patient_pk")}
    _delete_childless(connection, tables.study, studies, tables.series)
    _delete_childless(connection, tables.patient, patients, tables.study)


def _parents_of(
    connection: sa.Connection, table: sa.Table, keys: Collection[int], column: str
) -> set[int]:
    if not keys:
        return set()
    return set(connection.scalars(sa.select(table.c[column]).where(table.c.id.in_(sorted(keys)))))


def _delete_childless(
    connection: sa.Connection, table: sa.Table, keys: Collection[int], children: sa.Table
) -> None:
    if not keys:
        return
    parent = children.c[f"{table.name}_pk"]
    connection.execute(
        sa.delete(table).where(
            table.c.id.in_(sorted(keys)),
            ~sa.exists().where(parent == table.c.id).correlate(table),
        )
    )
