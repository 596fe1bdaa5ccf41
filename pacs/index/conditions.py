"""A condition of a Query as SQL.

The truth is ``pacs.dicom.query.matching.matches``. Where SQL can say exactly the same, it does. Where it cannot
(several values in one text, sequences), it selects a superset and ``needs_recheck`` says so; the caller then asks the
reference about each row. A test generates pairs of keys and values and compares the two.

An Attribute of VM 1 has one value in the index (``pacs.dicom.text.values.index_value``), so only Attributes of a
higher VM hold several.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, assert_never

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pacs.dicom.attributes import Attribute
from pacs.dicom.levels import Level
from pacs.dicom.query.combined_datetime import CombinedRange
from pacs.dicom.query.identifier import Condition
from pacs.dicom.query.matching import (
    EmptyValue,
    FuzzyName,
    Match,
    SequenceMatch,
    SingleValue,
    UidList,
    Universal,
    ValueList,
    WildCard,
    group_patterns,
)
from pacs.dicom.query.ranges import Range
from pacs.dicom.text.names import name_groups
from pacs.index import computed
from pacs.index.engine import Backend
from pacs.index.tables import column_of

Expression = sa.ColumnElement[Any]

_COUNT_DIGITS = 18
#: What stands for the lack of a component group (``group_patterns``).
_NO_GROUP = SingleValue("")
#: In Items, a value of these VRs equals the key or does not match: nothing is folded, nor compared as a number.
_VERBATIM_VRS = frozenset({"AE", "AS", "CS", "LO", "SH", "UC", "UI"})
#: More of them would make the statement long, and hardly fewer rows match.
_MAXIMUM_TEXTS = 8


def needs_recheck(condition: Condition) -> bool:
    """Whether the SQL selects a superset of what matches."""
    attribute = condition.attribute
    if isinstance(condition.match, SequenceMatch):
        return True
    # DS is compared as a number, in any of the ways to write it.
    return attribute.is_stored and (attribute.is_multi_valued or attribute.vr == "DS")


class ConditionCompiler:
    """Compiles conditions for one backend."""

    def __init__(self, backend: Backend, level: Level = Level.PATIENT) -> None:
        """Compile for ``backend``, for entities of ``level``."""
        self._backend = backend
        self._level = level

    def at(self, level: Level) -> ConditionCompiler:
        """The compiler for entities of ``level``."""
        return ConditionCompiler(self._backend, level)

    def compile(self, condition: Condition) -> Expression:
        """The SQL expression that is true for each row that matches, and for few others."""
        attribute, match = condition.attribute, condition.match
        if not attribute.is_stored:
            return self._computed(attribute, match)
        found = self._stored(attribute, match)
        if condition.or_unknown:
            return sa.or_(found, column_of(attribute, self._level).is_(None))
        return found

    def _stored(self, attribute: Attribute, match: Match) -> Expression:
        column = column_of(attribute, self._level)
        if isinstance(match, EmptyValue):
            return column.is_(None)
        if isinstance(match, SequenceMatch) or attribute.vr == "DS":
            return self._with_texts(column, match)
        if isinstance(match, ValueList) and (attribute.vr == "PN" or attribute.is_multi_valued):
            each = [self._stored(attribute, value) for value in match.each()]
            return sa.and_(*each) if match.every else sa.or_(*each)
        if attribute.vr == "PN" and isinstance(match, (SingleValue, WildCard)):
            return self._name(attribute, match)
        if isinstance(match, FuzzyName):
            return self._fuzzy_name(attribute, match)
        if isinstance(match, Range) and attribute.vr == "DA" and not attribute.is_multi_valued:
            return sa.and_(self._one_value(column, match), self._is_date(column))
        if isinstance(match, Range) and attribute.shadow_columns:
            column = column_of(attribute, self._level, attribute.shadow_columns[0])
        if attribute.is_multi_valued:
            return self._any_of_several(column, match)
        return self._one_value(column, match)

    def compile_combined(self, combined: CombinedRange) -> Expression:
        """A range on a date and its time as one moment (``CombinedRange.matches``)."""
        date = column_of(combined.date, self._level)
        time = column_of(combined.time, self._level, combined.time.shadow_columns[0])
        conditions: list[Expression] = [self._is_date(date), time.is_not(None)]
        # The date alone as well: an index serves that.
        if combined.lower is not None:
            first, from_time = combined.lower
            conditions += [date >= first, sa.or_(date > first, time >= from_time)]
        if combined.upper is not None:
            last, to_time = combined.upper
            conditions += [date <= last, sa.or_(date < last, time <= to_time)]
        return sa.and_(*conditions)

    def any_of(self, column: Expression, values: Sequence[str] | Sequence[int]) -> Expression:
        """Whether the column has one of the values.

        They travel as one parameter: a UID list may be longer than the number of parameters a statement can
        have (32,766 in SQLite, 65,535 in PostgreSQL), and the text of the statement stays the same.
        """
        return _any_of(column, sa.literal(self.values(values), self._type_of_values(column)))

    def any_of_later(self, column: Expression, name: str) -> Expression:
        """As ``any_of``, with ``values`` to be given as the parameter ``name`` when the statement is executed."""
        return _any_of(column, sa.bindparam(name, type_=self._type_of_values(column)))

    def values(self, values: Sequence[str] | Sequence[int]) -> object:
        """Many values as one parameter."""
        return list(values) if self._backend == "postgresql" else json.dumps(list(values))

    def _type_of_values(self, column: Expression) -> sa.types.TypeEngine[Any]:
        return ARRAY(column.type) if self._backend == "postgresql" else sa.Text()

    def number(self, column: Expression) -> Expression:
        """The integer that a text stands for, 0 if it is none."""
        if self._backend == "sqlite":
            return sa.func.coalesce(sa.cast(column, sa.Integer), 0)
        is_number = column.regexp_match(f"^-?[0-9]{{1,{_COUNT_DIGITS}}}$")
        return sa.case((is_number, sa.cast(column, sa.BigInteger)), else_=0)

    def _computed(self, attribute: Attribute, match: Match) -> Expression:
        if isinstance(match, ValueList) and match.every:
            return sa.and_(*(self._computed(attribute, SingleValue(one)) for one in match.values))
        if isinstance(match, EmptyValue):
            has_value = computed.collected_condition(attribute, lambda value: value.is_not(None))
            return sa.not_(has_value) if has_value is not None else sa.false()
        collected = computed.collected_condition(
            attribute, lambda value: self._one_value(value, match)
        )
        if collected is not None:
            return collected
        value = computed.expression(attribute)
        if attribute.keyword not in computed.COUNTS:
            return self._one_value(value, match)
        if isinstance(match, SingleValue) and _is_count(match.value):
            return value == int(match.value)
        return sa.false()

    def _is_date(self, column: Expression) -> Expression:
        if self._backend == "sqlite":
            return column.op("GLOB", is_comparison=True)("[0-9]" * 8)
        return column.regexp_match("^[0-9]{8}$")

    def _one_value(self, column: Expression, match: Match) -> Expression:
        match match:
            case Universal():
                return sa.true()
            case SingleValue(value):
                return column == value if _can_be_stored(value) else sa.false()
            case UidList(values) | ValueList(values, every=False):
                return self.any_of(column, [value for value in values if _can_be_stored(value)])
            case ValueList(values):
                return sa.and_(*(self._one_value(column, SingleValue(one)) for one in values))
            case WildCard(pattern):
                return self._pattern(column, pattern)
            case Range(lower, upper):
                return sa.and_(
                    column.is_not(None),
                    column >= lower if lower is not None else sa.true(),
                    column <= upper if upper is not None else sa.true(),
                )
            case EmptyValue():
                return column.is_(None)
            case SequenceMatch() | FuzzyName():
                return sa.false()
            case _:
                assert_never(match)

    def _with_texts(self, column: Expression, match: Match) -> Expression:
        """A superset: there is a value, and the text of Items has what one of them has to have."""
        # 100,000 studies in SQLite: 20 ms, where Python takes 460 ms to look into their Items.
        find = sa.func.instr if self._backend == "sqlite" else sa.func.strpos
        texts = list(islice(_texts_in_items(match), _MAXIMUM_TEXTS))
        if not all(map(_can_be_stored, texts)):
            return sa.false()
        return sa.and_(column.is_not(None), *(find(column, text) > 0 for text in texts))

    def _any_of_several(self, column: Expression, match: Match) -> Expression:
        """A superset: the text contains what one of its values has to be."""
        match match:
            case SingleValue(value) | WildCard(value):
                # Also for a single value: what it has of wild cards only widens the superset.
                return self._pattern(column, f"*{value}*")
            case _:
                return column.is_not(None)

    def _name(self, attribute: Attribute, match: SingleValue | WildCard) -> Expression:
        """A person name, by its folded component groups (PS3.5 6.2.1; matching._name_matches)."""
        shadows = attribute.shadow_columns[:-1]
        columns = [column_of(attribute, self._level, name) for name in shadows]
        key = match.value if isinstance(match, SingleValue) else match.pattern
        groups = name_groups(key)
        wanted = [group_patterns(match, group) for group in groups]

        def compare(column: Expression, part: SingleValue | WildCard) -> Expression:
            if attribute.is_multi_valued:
                return self._any_of_several(column, part)
            return column.is_(None) if part == _NO_GROUP else self._one_value(column, part)

        # "=*" and "*^*" ask for nothing but a name: anyone who has one.
        has_name = column_of(attribute, self._level).is_not(None)
        if not any(groups[1:]):
            if not wanted[0] or (attribute.is_multi_valued and _NO_GROUP in wanted[0]):
                return has_name
            found = [
                compare(column, part)
                for column in columns
                for part in wanted[0]
                if part != _NO_GROUP
            ]
            if _NO_GROUP in wanted[0]:
                found.append(sa.and_(has_name, *(column.is_(None) for column in columns)))
            return sa.or_(*found)
        compared = [
            sa.or_(*(compare(column, part) for part in parts))
            for column, parts in zip(columns, wanted, strict=True)
            if parts and not (attribute.is_multi_valued and _NO_GROUP in parts)
        ]
        return sa.and_(has_name, *compared)

    def _fuzzy_name(self, attribute: Attribute, match: FuzzyName) -> Expression:
        codes = column_of(attribute, self._level, attribute.shadow_columns[-1])
        sounds = [self._pattern(codes, pattern) for pattern in match.patterns]
        return sa.or_(self._name(attribute, match.plain), sa.and_(*sounds))

    def _pattern(self, column: Expression, pattern: str) -> Expression:
        """A wild card: the range of its literal prefix, which an index serves, and the whole pattern."""
        if not _can_be_stored(pattern):
            return sa.false()
        prefix = pattern[: next((i for i, c in enumerate(pattern) if c in "*?"), len(pattern))]
        successor = _successor(prefix)
        conditions = [self._like(column, pattern)]
        if prefix:
            conditions.append(column >= prefix)
        if successor is not None:
            conditions.append(column < successor)
        return sa.and_(*conditions)

    def _like(self, column: Expression, pattern: str) -> Expression:
        if self._backend == "sqlite":
            # LIKE ignores the case of ASCII letters in SQLite. GLOB does not, and has the wild cards of
            # DICOM; only its character classes have to be kept off.
            return column.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
        return column.like(pattern.translate(_TO_LIKE), escape="\\")


def _texts_in_items(match: Match) -> Iterator[str]:
    """What the JSON of an Item contains if it matches (``pacs.dicom.text.values.index_value``)."""
    for _, vr, key in match.keys if isinstance(match, SequenceMatch) else ():
        yield from _texts_in_items(key)
        if isinstance(key, SingleValue) and vr in _VERBATIM_VRS:
            yield json.dumps(key.value, ensure_ascii=False)


_TO_LIKE = str.maketrans({"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": "\\\\"})


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _COUNT_DIGITS


def _can_be_stored(text: str) -> bool:
    """Whether a text can be in the index at all; the drivers refuse the others with an error."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _successor(prefix: str) -> str | None:
    """The first text after all texts that begin so; None if there is none, or the prefix is empty.

    By code point, which is the order of UTF-8 bytes and so of both backends' comparison.
    """
    while prefix:
        code = ord(prefix[-1]) + 1
        if code == 0xD800:  # surrogates are not characters
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return None


def _any_of(column: Expression, values: Expression) -> Expression:
    if isinstance(values.type, ARRAY):
        return column == sa.any_(values)
    each = sa.func.json_each(values).table_valued("value")
    return column.in_(sa.select(each.c.value))
