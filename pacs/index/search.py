"""A Query becomes a SELECT of keys at its level, whose rows are then read a page at a time.

Whoever takes the rows may be a peer that does not read: no transaction is open while they are in its hands.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from pacs.dicom.attributes import BY_KEYWORD, Attribute, KeyType, Origin
from pacs.dicom.levels import Level
from pacs.dicom.query.identifier import Condition, Query
from pacs.errors import LimitExceeded
from pacs.index import computed, representative, tables
from pacs.index.conditions import ConditionCompiler, needs_recheck
from pacs.index.engine import Engine
from pacs.index.time_limit import limited
from pacs.model.instances import HeaderFile, StoredInstance
from pacs.model.retrieves import RetrievePlan

#: Rows fetched at a time: what one result holds in memory, beside eight bytes for each match.
_ROWS_IN_MEMORY = 500
_KEYS_IN_STATEMENT = 1000
#: The parameter of a page's statement.
_KEYS = "keys"


def _chain(highest: Level, lowest: Level) -> sa.FromClause:
    """The tables of these levels and of those between, each row with its parents."""
    joined: sa.FromClause = tables.ENTITIES[lowest]
    for level in reversed([one for one in Level if highest <= one < lowest]):
        joined = joined.join(tables.ENTITIES[level])
    return joined


_JOINED = {level: _chain(Level.PATIENT, level) for level in Level}


@dataclass(frozen=True, slots=True)
class Matches:
    """What a query has found."""

    #: Of the texts of each row, in order; a row may be longer.
    keywords: tuple[str, ...]
    #: Of at most so many rows that they may all be in memory; each is read when it is asked for.
    pages: Iterator[Sequence[Sequence[str | None]]]


class Search:
    """Answers queries; safe to call from several threads."""

    def __init__(self, engine: Engine) -> None:
        """Search in ``engine``."""
        self._engine = engine
        self._conditions = ConditionCompiler(engine.backend)
        # Made once: it takes longer to make than to find the instances of a small study with it.
        self._select_instances = _SELECT_INSTANCES.where(
            self._conditions.any_of_later(tables.instance.c.id, _KEYS)
        )

    def matches(self, query: Query, at_most: int = 0) -> Matches:
        """The matches at the query's level, a page of rows at a time.

        Each has the Attributes to return and the unique keys of the level and those above. What matches is found when
        the first page is asked for; a match that is removed, or changed into none, before its page is read is left
        out. No connection is held between two pages. With ``at_most`` there is an error instead of further ones.

        Raises:
            IndexUnavailable: while iterating.
            LimitExceeded: likewise; there are, or were, more than ``at_most``, if that is not zero.
        """
        page = _Page(query, self._conditions, with_file=False)
        return Matches(page.keywords, map(page.texts, self._pages(query, page, at_most)))

    def search(self, query: Query, at_most: int = 0) -> Iterator[Mapping[str, str | None]]:
        """As ``matches``, each as keyword to index text, None without a value.

        Raises:
            IndexUnavailable, LimitExceeded: as for ``matches``.
        """
        found = self.matches(query, at_most)
        for rows in found.pages:
            for row in rows:
                yield dict(zip(found.keywords, row, strict=False))
            del rows  # before there are two

    def search_with_file(
        self, query: Query, at_most: int = 0
    ) -> Iterator[tuple[Mapping[str, str | None], HeaderFile]]:
        """As ``search``, each match with the file of the instance of it that was received last.

        Raises:
            IndexUnavailable, LimitExceeded: as for ``matches``.
        """
        page = _Page(query, self._conditions, with_file=True)
        for rows in self._pages(query, page, at_most):
            for row, texts in zip(rows, page.texts(rows), strict=True):
                yield dict(zip(page.keywords, texts, strict=False)), HeaderFile(*page.file(row))

    def _pages(self, query: Query, page: _Page, at_most: int) -> Iterator[list[sa.Row[Any]]]:
        """The rows of the matches, in the order to answer them."""
        with self._engine.read() as connection:
            keys, are_all = self._keys(connection, query, at_most)
            rows = self._rows(connection, page, keys[:_ROWS_IN_MEMORY])
        for first in range(_ROWS_IN_MEMORY, len(keys), _ROWS_IN_MEMORY):
            yield rows
            del rows  # before there are two
            with self._engine.read() as connection:
                rows = self._rows(connection, page, keys[first : first + _ROWS_IN_MEMORY])
        yield rows
        if not are_all:
            raise LimitExceeded(f"Limit of {at_most} matches reached: narrow the query")

    def _rows(self, connection: sa.Connection, page: _Page, keys: array[int]) -> list[sa.Row[Any]]:
        """The rows with these keys that still match, in that order."""
        if not keys:
            return []
        with limited(connection):
            found = connection.execute(page.statement, {_KEYS: self._conditions.values(keys)})
            rows = {row[-1]: row for row in found}
        return page.still_matching([rows[key] for key in keys if key in rows])

    def _keys(
        self, connection: sa.Connection, query: Query, at_most: int
    ) -> tuple[array[int], bool]:
        """The keys of the matches, in the order to answer them, and whether there are no more than these."""
        rechecked = _rechecked(query)
        keys = array("q")
        for row in _streamed(connection, self._select(query)):
            # Joined with what is below it, an entity comes once for each row there.
            if keys and row[-1] == keys[-1]:
                continue
            if rechecked and not _is_match(rechecked, row[:-1]):
                continue
            if at_most and len(keys) == at_most:
                return keys, False
            keys.append(row[-1])
        return keys, True

    def plan(self, query: Query, limit: int = 0) -> RetrievePlan:
        """The instances under the matches of a query: by study, series and Instance Number.

        Raises:
            IndexUnavailable: the matches cannot be calculated.
            LimitExceeded: there are more than ``limit``, if that is not zero.
        """
        statement = self._plan_statement(query)
        rechecked = _rechecked(query)
        keys = array("q")
        contexts: Counter[tuple[str, str]] = Counter()
        with self._engine.read() as connection:
            for row in _streamed(connection, statement):
                key, sop_class_uid, transfer_syntax_uid, *texts = tuple(row)
                if rechecked and not _is_match(rechecked, texts):
                    continue
                if limit and len(keys) == limit:
                    raise LimitExceeded(
                        f"More than {limit} instances match: ask for less at a time"
                    )
                keys.append(key)
                contexts[sop_class_uid, transfer_syntax_uid] += 1
        return RetrievePlan(keys=keys, contexts=dict(contexts))

    def instances(self, keys: Sequence[int]) -> list[StoredInstance]:
        """The instances with these keys, in that order; those removed since are left out.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        found: dict[int, StoredInstance] = {}
        with self._engine.read() as connection:
            for first in range(0, len(keys), _KEYS_IN_STATEMENT):
                part = self._conditions.values(keys[first : first + _KEYS_IN_STATEMENT])
                for row in connection.execute(self._select_instances, {_KEYS: part}):
                    found[row[0]] = _stored_instance(row)
        return [found[key] for key in keys if key in found]

    def find_by_uid(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance with this SOP Instance UID, if it is stored.

        Raises:
            IndexUnavailable: the index cannot be read.
        """
        condition = tables.instance.c.sop_instance_uid == sop_instance_uid
        with self._engine.read() as connection:
            row = connection.execute(_SELECT_INSTANCES.where(condition)).one_or_none()
        return None if row is None else _stored_instance(row)

    def _select(self, query: Query) -> sa.Select[Any]:
        """The keys of the matches, each behind the values that have to be checked again."""
        recheck_columns = [_column(one.attribute, query.level) for one in _rechecked(query)]
        key = tables.ENTITIES[query.level].c.id
        joined = _joined_level(query)
        statement = (
            sa.select(*_numbered([*recheck_columns, key]))
            .select_from(_chain(_highest_level(query), joined))
            .where(*self._where(query, joined))
        )
        return statement.order_by(key) if joined > query.level else statement

    def _plan_statement(self, query: Query) -> sa.Select[Any]:
        instance = tables.instance.c
        columns = [
            instance.id,
            instance.sop_class_uid,
            instance.transfer_syntax_uid,
            *(_column(condition.attribute, query.level) for condition in _rechecked(query)),
        ]
        return (
            sa.select(*_numbered(columns))
            .select_from(_JOINED[Level.IMAGE])
            .where(*self._where(query, Level.IMAGE))
            .order_by(
                tables.series.c.study_pk,
                instance.series_pk,
                self._conditions.number(instance.instance_number),
                instance.id,
            )
        )

    def _where(self, query: Query, joined: Level) -> list[sa.ColumnElement[Any]]:
        """The conditions on the rows of a join down to ``joined``; keys below that ask for a child."""
        conditions = self._conditions.at(query.level)
        compiled = [(c.attribute, conditions.compile(c)) for c in query.conditions]
        compiled += [(c.date, conditions.compile_combined(c)) for c in query.combined]
        below = [(key, condition) for key, condition in compiled if key.level > joined]
        where = [condition for key, condition in compiled if key.level <= joined]
        return [*where, _has_child(joined, below)] if below else where


class _Page:
    """How the rows of some matches are read: values of the file, the Attributes to return, those asked for, the key."""

    def __init__(self, query: Query, conditions: ConditionCompiler, *, with_file: bool) -> None:
        attributes = _returned(query)
        # Of what is below the level, and of what is put together from there, one row cannot tell.
        self._checked = [
            condition
            for condition in query.conditions
            if condition.attribute.is_stored and condition.attribute.level <= query.level
        ]
        columns = (*attributes, *(condition.attribute for condition in self._checked))
        self.statement = _page_statement(conditions, query.level, columns, with_file=with_file)
        self._files = len(representative.columns(query.level)) if with_file else 0
        #: Of the texts of each row, in order.
        self.keywords = tuple(one.keyword for one in attributes)
        self._first_checked = len(attributes) + self._files
        #: What the database does not return as text.
        self._readers = [
            (number, _sorted_values if one.is_multi_valued else _text)
            for number, one in enumerate(attributes)
            if not one.is_stored
        ]

    def still_matching(self, rows: list[sa.Row[Any]]) -> list[sa.Row[Any]]:
        """The rows that have what was asked for: they may have been changed since their keys were found."""
        if not self._checked:
            return rows
        checked = slice(self._first_checked, -1)
        return [row for row in rows if _is_match(self._checked, row[checked])]

    def texts(self, rows: list[sa.Row[Any]]) -> Sequence[Sequence[str | None]]:
        """The index texts of each row; behind them may be what is none of ``keywords``."""
        if self._readers:
            return [self._with_texts(row) for row in rows]
        return [row[self._files :] for row in rows] if self._files else rows

    def _with_texts(self, row: sa.Row[Any]) -> list[str | None]:
        texts = list(row[self._files : self._first_checked])
        for number, read in self._readers:
            texts[number] = read(texts[number])
        return texts

    def file(self, row: sa.Row[Any]) -> Sequence[Any]:
        """The values of the file."""
        return row[: self._files]


@lru_cache(maxsize=64)
def _page_statement(
    conditions: ConditionCompiler,
    level: Level,
    attributes: tuple[Attribute, ...],
    *,
    with_file: bool,
) -> sa.Select[Any]:
    """The rows with the keys that are given as the parameter ``_KEYS``.

    Most requests ask for what others asked for: to make the statement takes longer than to find one entity with it.
    """
    file = representative.columns(level) if with_file else ()
    key = tables.ENTITIES[level].c.id
    columns = [*file, *(_column(one, level) for one in attributes), key]
    source = _JOINED[level]
    return (
        sa.select(*_numbered(columns))
        .select_from(representative.joined(level, source) if with_file else source)
        .where(conditions.any_of_later(key, _KEYS))
    )


def _joined_level(query: Query) -> Level:
    """How far down a search joins: to its level, or to the last one whose values Python has to look at."""
    return max([query.level, *(c.attribute.level for c in _rechecked(query))])


def _highest_level(query: Query) -> Level:
    """How far up a search joins: to the highest key. SQLite likes to begin with a parent that nobody asks for."""
    keys = [*(c.attribute for c in query.conditions), *(c.date for c in query.combined)]
    return min([query.level, *(tables.level_of_column(key, query.level) for key in keys)])


def _has_child(
    level: Level, conditions: Sequence[tuple[Attribute, sa.ColumnElement[Any]]]
) -> sa.ColumnElement[bool]:
    """Whether one entity below matches all conditions, with those between (PS3.4 C.4.1.3.2.1)."""
    parent = tables.ENTITIES[level]
    lowest = max(key.level for key, _ in conditions)
    first, *others = [tables.ENTITIES[one] for one in Level if level < one <= lowest]
    children: sa.FromClause = first
    for table in others:
        children = children.join(table)
    link = first.c[f"{parent.name}_pk"]
    matching = [condition for _, condition in conditions]
    if any(key.key_type is KeyType.UNIQUE for key, _ in conditions):
        # Few entities: SQLite starts from them, where EXISTS would have it look below each parent.
        return parent.c.id.in_(sa.select(link).select_from(children).where(*matching))
    return (
        sa.select(sa.literal(1))
        .select_from(children)
        .where(link == parent.c.id, *matching)
        .correlate(*(tables.ENTITIES[one] for one in Level if one <= level))
        .exists()
    )


def _returned(query: Query) -> list[Attribute]:
    levels = (*query.level.above, query.level)
    keys = [BY_KEYWORD[level.unique_key] for level in levels]
    return [a for a in dict.fromkeys((*query.returns, *keys)) if a.level <= query.level]


def _column(attribute: Attribute, level: Level = Level.PATIENT) -> sa.ColumnElement[Any]:
    if attribute.origin is Origin.COMPUTED:
        return computed.expression(attribute)
    return tables.column_of(attribute, level)


def _numbered(columns: Sequence[sa.ColumnElement[Any]]) -> list[sa.Label[Any]]:
    # Positions instead of names: one column may be wanted twice, to return it and to check it again.
    return [column.label(f"c{number}") for number, column in enumerate(columns)]


def _streamed(connection: sa.Connection, statement: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    # A server-side cursor in PostgreSQL, to be closed before its connection is given back; SQLite steps
    # through its rows anyway. The time limit is for each batch of rows: what the peer does with them in
    # between is not the database's time.
    with limited(connection):
        rows = connection.execute(statement, execution_options={"yield_per": _ROWS_IN_MEMORY})
    with rows:
        while True:
            with limited(connection):
                batch = rows.fetchmany(_ROWS_IN_MEMORY)
            if not batch:
                return
            yield from batch
            del batch  # before there are two


def _rechecked(query: Query) -> list[Condition]:
    return [condition for condition in query.conditions if needs_recheck(condition)]


def _is_match(conditions: Sequence[Condition], texts: Sequence[str | None]) -> bool:
    return all(condition.holds_for(text) for condition, text in zip(conditions, texts, strict=True))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _sorted_values(value: str | None) -> str | None:
    # The databases join them in any order; a response should not change from one query to the next.
    return None if not value else "\\".join(sorted(set(value.split("\\"))))


def _stored_instance(row: Any) -> StoredInstance:
    # Unpacked, not by name: a retrieve does this for every instance.
    key, sop_class, sop_instance, series, study, syntax, location, offset, size, digest, at = row
    return StoredInstance(
        key=key,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        series_instance_uid=series,
        study_instance_uid=study,
        transfer_syntax_uid=syntax,
        location=location,
        data_set_offset=offset,
        data_set_size=size,
        digest=digest,
        received_at=at,
    )


#: In the order that ``_stored_instance`` unpacks.
_SELECT_INSTANCES = sa.select(
    tables.instance.c.id,
    tables.instance.c.sop_class_uid,
    tables.instance.c.sop_instance_uid,
    tables.series.c.series_instance_uid,
    tables.study.c.study_instance_uid,
    tables.instance.c.transfer_syntax_uid,
    tables.instance.c.location,
    tables.instance.c.data_set_offset,
    tables.instance.c.data_set_size,
    tables.instance.c.digest,
    tables.instance.c.received_at,
).select_from(tables.instance.join(tables.series).join(tables.study))
