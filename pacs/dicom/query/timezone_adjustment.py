"""Timezone query adjustment: a query in a time zone of its own (PS3.4 C.2.2.2, C.2.2.2.1.3).

To such a query each entity looks as if it had been recorded in the query's zone: a date and its time are moved
there together, before they are matched and returned. Where an entity was recorded is in no index, so the index
finds a superset (``superset``) and each candidate is looked at with what its stored header says (``adjusted``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta, timezone, tzinfo

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from pacs.dicom.attributes import Attribute
from pacs.dicom.query.combined_datetime import DATE_TIME_PAIRS, CombinedRange
from pacs.dicom.query.header_keys import HeaderKey
from pacs.dicom.query.header_values import holds
from pacs.dicom.query.identifier import Condition, Query
from pacs.dicom.query.matching import UNIVERSAL, Match, SingleValue
from pacs.dicom.query.ranges import Range
from pacs.dicom.query.response import text_element
from pacs.dicom.text.character_sets import DEFAULT_CODECS
from pacs.dicom.text.timezones import (
    TIMEZONE_OFFSET_FROM_UTC,
    moved,
    with_offset_of,
    zone_of_offset,
)

# Whose birthday it is does not depend on who asks: it identifies the patient.
_PAIRS = tuple(pair for pair in DATE_TIME_PAIRS if pair[0].keyword != "PatientBirthDate")
_PARTNERS = dict(_PAIRS) | {time: date for date, time in _PAIRS}
# Offsets are from -1200 to +1400: two places are up to 26 hours apart.
_MAXIMUM_DAYS = 2
_TIME_VRS = frozenset({"DA", "TM", "DT"})
_EVERY = Range(None, None)

Texts = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class TimezoneAdjustment:
    """What a query in its own time zone makes of each entity."""

    query: Query
    zone: timezone
    #: Where an instance was recorded that does not say it.
    default: tzinfo
    conditions: tuple[Condition, ...]
    combined: tuple[CombinedRange, ...]
    header_conditions: tuple[HeaderKey, ...]

    @classmethod
    def of(cls, query: Query, default: tzinfo) -> TimezoneAdjustment | None:
        """The adjustment that a query needs; None if it asks for no time in a zone."""
        if not query.timezone_offset:
            return None
        zone = zone_of_offset(query.timezone_offset)
        conditions = tuple(c for c in query.conditions if _is_adjusted(c.attribute, query))
        combined = tuple(c for c in query.combined if _is_adjusted(c.date, query))
        in_header = tuple(key for key in query.header_conditions if key.vr in _TIME_VRS)
        asked = any(_is_adjusted(one, query) for one in query.returns) or any(
            key.vr in _TIME_VRS for key in query.header_keys
        )
        if zone is None or not (conditions or combined or asked):
            return None
        return cls(query, zone, default, conditions, combined, in_header)

    @property
    def restricts(self) -> bool:
        """Whether the header of a candidate decides if it matches."""
        return bool(self.conditions or self.combined or self.header_conditions)

    @property
    def superset(self) -> Query:
        """What to ask of the index: everything that may match, with all it takes to tell."""
        query = self.query
        kept = [condition for condition in query.conditions if condition not in self.conditions]
        wider = [replace(one, match=_widened(one)) for one in self.conditions]
        for one in self.combined:
            wider += [Condition(one.date, _days_around(one.ranges[0])), Condition(one.time, _EVERY)]
        attributes = [*query.returns, *(condition.attribute for condition in wider)]
        partners = [_PARTNERS[one] for one in attributes if one in _PARTNERS]
        keys = [
            replace(key, match=UNIVERSAL) if key in self.header_conditions else key
            for key in query.header_keys
        ]
        read = [HeaderKey(tag, vr) for tag, vr in _read_too([key.tag for key in keys])]
        return replace(
            query,
            conditions=(*kept, *wider),
            combined=tuple(one for one in query.combined if one not in self.combined),
            returns=tuple(dict.fromkeys((*attributes, *partners))),
            header_keys=(*keys, *read),
        )

    def adjusted(
        self, record: Texts, header: Dataset | None
    ) -> tuple[Texts, Dataset | None] | None:
        """A candidate as it is in the query's zone; None if it does not match there."""
        source = _zone_of(header) or self.default
        texts = dict(record)
        for day, time in _PAIRS:
            pair = texts.get(day.keyword) or "", texts.get(time.keyword) or ""
            if pair[1]:
                days, times = moved(*pair, source, self.zone)
                texts |= {day.keyword: days or None, time.keyword: times}
        for attribute in self._moments:
            text = texts.get(attribute.keyword)
            texts[attribute.keyword] = with_offset_of(text, source) if text else None
        if not self._holds_for(texts):
            return None
        if header is None:
            return texts, None
        returned = self._header(header, source)
        return (texts, returned) if self._holds_in(returned) else None

    @property
    def _moments(self) -> tuple[Attribute, ...]:
        """The Attributes of VR DT that are returned or matched."""
        attributes = (*self.query.returns, *(condition.attribute for condition in self.conditions))
        return tuple({one: None for one in attributes if one.vr == "DT"})

    def _holds_for(self, texts: Texts) -> bool:
        return all(one.holds_for(texts.get(one.attribute.keyword)) for one in self.conditions) and (
            all(
                one.matches(texts.get(one.date.keyword), texts.get(one.time.keyword))
                for one in self.combined
            )
        )

    def _holds_in(self, header: Dataset) -> bool:
        # What is not there at all was too long to be read: it rules nothing out.
        return all(
            holds(key, header, DEFAULT_CODECS, or_unknown=self.query.unknown_matches)
            for key in self.header_conditions
            if key.tag in header
        )

    def _header(self, header: Dataset, source: tzinfo) -> Dataset:
        returned = Dataset()
        for key in self.query.header_keys:
            if key.tag in header:
                element = header[key.tag]
                returned[key.tag] = _moved_element(element, header, source, self.zone)
        return returned


def _is_adjusted(attribute: Attribute, query: Query) -> bool:
    # A lower level has many entities, each with a zone of its own; the header read is that of one.
    return (attribute in _PARTNERS or attribute.vr == "DT") and attribute.level <= query.level


def _widened(condition: Condition) -> Match:
    match = condition.match
    if condition.attribute.vr != "DA":
        return _EVERY
    if isinstance(match, SingleValue):
        return _days_around(Range(match.value, match.value))
    return _days_around(match) if isinstance(match, Range) else _EVERY


def _days_around(match: Range) -> Range:
    return Range(_day(match.lower, -_MAXIMUM_DAYS), _day(match.upper, _MAXIMUM_DAYS))


def _day(text: str | None, days: int) -> str | None:
    try:
        day = date.fromisoformat(text or "") + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{day.year:04}{day:%m%d}"


def _read_too(asked: Iterable[int]) -> Iterator[tuple[int, str]]:
    """What else to read of a header: its zone, and the other half of each date or time asked for."""
    yield TIMEZONE_OFFSET_FROM_UTC, "SH"
    for tag in asked:
        partner = _partner(tag)
        if partner is not None and partner not in asked:
            yield partner, dictionary_VR(partner)


def _partner(tag: int) -> int | None:
    """The time of a date and the date of a time: their keywords tell."""
    keyword = keyword_for_tag(tag)
    for one, other, vr in (("Date", "Time", "TM"), ("Time", "Date", "DA")):
        partner = tag_for_keyword(keyword.replace(one, other)) if one in keyword else None
        if partner is not None and partner != tag and dictionary_VR(partner) == vr:
            return int(partner)
    return None


def _zone_of(header: Dataset | None) -> timezone | None:
    if header is None or TIMEZONE_OFFSET_FROM_UTC not in header:
        return None
    values = _values(header[TIMEZONE_OFFSET_FROM_UTC])
    return zone_of_offset(values[0]) if len(values) == 1 else None


def _moved_element(
    element: DataElement, header: Dataset, source: tzinfo, target: timezone
) -> DataElement:
    if BaseTag(element.tag).is_private:  # what its values mean, only its creator knows
        return element
    values = _values(element)
    if element.VR == "DT":
        texts = [with_offset_of(value, source) for value in values]
    elif element.VR in _TIME_VRS:
        partner = _partner(int(element.tag))
        others = _values(header[partner]) if partner is not None and partner in header else []
        if element.VR == "DA" and len(others) != len(values):
            return element
        if len(others) != len(values):
            others = [""] * len(values)
        is_date = element.VR == "DA"
        pairs = zip(values, others, strict=True) if is_date else zip(others, values, strict=True)
        texts = [moved(*pair, source, target)[not is_date] for pair in pairs]
    else:
        return element
    return text_element(int(element.tag), element.VR, "\\".join(texts))


def _values(element: DataElement) -> list[str]:
    value = element.value
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, MultiValue) else [str(value)]
