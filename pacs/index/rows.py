"""Attribute values of one table as a tuple, and the same as the columns of its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pacs.dicom.levels import Level
from pacs.dicom.text.values import shadow_values
from pacs.index.tables import IDENTIFYING, kept_at

#: The values of one level in table order; None where the instance has none.
Values = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Shadow:
    position: int
    vr: str
    columns: tuple[str, ...]
    several: bool


class LevelColumns:
    """How the values of one level lie in its table."""

    def __init__(self, level: Level) -> None:
        """Derive the columns from the attribute table."""
        attributes = [a for a in kept_at(level) if a.keyword not in IDENTIFYING]
        self.keywords = tuple(attribute.keyword for attribute in attributes)
        self.columns = tuple(attribute.column for attribute in attributes)
        self.all_columns = tuple(name for a in attributes for name in (a.column, *a.shadow_columns))
        self._shadows = tuple(
            _Shadow(position, attribute.vr, attribute.shadow_columns, attribute.is_multi_valued)
            for position, attribute in enumerate(attributes)
            if attribute.shadow_columns
        )

    def values(self, header_values: Mapping[str, str]) -> Values:
        """The values of this level that an instance has."""
        get = header_values.get
        return tuple([get(keyword) or None for keyword in self.keywords])

    def row(self, values: Values) -> dict[str, str | None]:
        """The columns for these values, forms for matching included."""
        row: dict[str, str | None] = dict.fromkeys(self.all_columns)
        row.update(zip(self.columns, values, strict=True))
        for shadow in self._shadows:
            text = values[shadow.position]
            if text:
                forms = shadow_values(shadow.vr, text, several=shadow.several)
                row.update(zip(shadow.columns, forms, strict=True))
        return row


LEVEL_COLUMNS: dict[Level, LevelColumns] = {level: LevelColumns(level) for level in Level}


def merge(known: Values, latest: Values) -> Values:
    """The conflict rule for parents: the latest value wins, and an empty one never erases another."""
    return tuple([new or old for old, new in zip(known, latest, strict=True)])


def contradicted(level: Level, known: Values, latest: Values) -> list[str]:
    """The keywords whose known value the latest one replaces by another."""
    keywords = LEVEL_COLUMNS[level].keywords
    return [
        keyword
        for keyword, old, new in zip(keywords, known, latest, strict=True)
        if old and new and old != new
    ]
