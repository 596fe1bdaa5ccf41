"""A request Identifier becomes a Query, or is refused with the rule it breaks.

Where peers and the Standard differ (all of it is in the conformance statement):

* A C-FIND without the unique key of its level is taken as if that were universal.
* A key of a higher level than the query's, asked for without a value, is returned from the parent.
  With a value it is refused unless relational queries are negotiated (PS3.4 C.4.1.2.1).
* A key of a lower level, asked for without a value, is an unsupported key; with one it is refused.
  In a relational query it is matched (PS3.4 C.4.1.3.2.1: all keys, regardless of the level): an
  entity matches if something below it does. It is not returned, which makes the responses 0xFF01.
* Patient ID may narrow a Study Root retrieve (PS3.4 C.4.2.1.4.1 lists it among the unique keys).
* Attributes without a value, private ones and those that only responses have are ignored in a
  retrieve, because peers copy them from C-FIND responses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacs.dicom.attributes import BY_KEYWORD, BY_TAG, Attribute, KeyType
from pacs.dicom.encoding.plain_values import (
    SPECIFIC_CHARACTER_SET,
    UNREADABLE,
    Element,
    character_set_terms,
    is_empty,
    texts_of,
)
from pacs.dicom.error_comment import about, refuse
from pacs.dicom.frames.frame_selection import FrameSelection
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.combined_datetime import CombinedRange, combined_ranges
from pacs.dicom.query.header_keys import HeaderKey, header_keys
from pacs.dicom.query.header_matching import header_matches
from pacs.dicom.query.matching import (
    STANDARD_RULES,
    EmptyValue,
    Match,
    SequenceMatch,
    SingleValue,
    UidList,
    fuzzy,
    is_universal,
    matches,
    parse_match,
)
from pacs.dicom.query.query_options import BASELINE, MatchingRules, QueryOptions
from pacs.dicom.query.request_context import check_character_set, request_offset
from pacs.dicom.text.character_sets import codecs_of
from pacs.dicom.text.timezones import TIMEZONE_OFFSET_FROM_UTC
from pacs.errors import InvalidIdentifier

QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056

#: The level below IMAGE that only Composite Instance Root Retrieve has; no entity is of it (PS3.4 Y.6.1.1).
FRAME_LEVEL = "FRAME"
_WITH_FRAMES = frozenset({InformationModel.COMPOSITE_INSTANCE_ROOT})

# They say how to read the Identifier; they are neither matched nor returned as keys. The timezone
# has no effect without the negotiated timezone query adjustment: times compare as recorded.
_NOT_KEYS = frozenset({SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL, TIMEZONE_OFFSET_FROM_UTC})
# Response-only Attributes that this archive supports (PS3.4 C.4.1.1.3.2).
_RETRIEVAL_KEYS = {
    RETRIEVE_AE_TITLE: "RetrieveAETitle",
    INSTANCE_AVAILABILITY: "InstanceAvailability",
}
# Those and the ones it does not: Storage Media File-Set ID and UID.
_RESPONSE_ONLY = frozenset({*_RETRIEVAL_KEYS, 0x00880130, 0x00880140})


@dataclass(frozen=True, slots=True)
class Condition:
    """One key Attribute that restricts the matches; never universal."""

    attribute: Attribute
    match: Match
    #: Whether what has no value matches too: it is unknown (PS3.4 C.2.2.1.2).
    or_unknown: bool = False

    def holds_for(self, text: str | None) -> bool:
        """Whether an entity with this index text matches; the reference of the index."""
        if self.or_unknown and not text:
            return True
        several = self.attribute.is_multi_valued
        return matches(self.attribute.vr, self.match, text, several=several)


@dataclass(frozen=True, slots=True)
class Query:
    """What a valid Identifier asks for, independent of how it was encoded."""

    model: InformationModel
    level: Level
    conditions: tuple[Condition, ...]
    #: Attributes to return, in the order asked for, then the unique keys of the level and those
    #: above; empty for C-MOVE and C-GET.
    returns: tuple[Attribute, ...] = ()
    #: Tags of optional keys asked for that this archive does not support for existence or for
    #: matching: they make the responses 0xFF01.
    unsupported: tuple[int, ...] = ()
    #: The Specific Character Set values of the request; empty for the default repertoire.
    character_sets: tuple[str, ...] = ()
    #: Keywords of the response-only Attributes asked for: RetrieveAETitle, InstanceAvailability.
    retrieval_keys: tuple[str, ...] = ()
    #: For each sequence asked for by Item keys: which Items to return, and what of them.
    sequence_keys: tuple[tuple[Attribute, SequenceMatch], ...] = ()
    #: Ranges on a date and its time together; there is no condition on either alone.
    combined: tuple[CombinedRange, ...] = ()
    #: What to match in the stored header, and to return from it.
    header_keys: tuple[HeaderKey, ...] = ()
    #: Whether a key matches what the header has no value of (PS3.4 C.2.2.1.2).
    unknown_matches: bool = False
    #: A retrieve at level FRAME: what of the one instance is wanted.
    frames: FrameSelection | None = None
    #: The time zone that keys and responses are in (``pacs.dicom.query.timezone_adjustment``); empty: as recorded.
    timezone_offset: str = ""

    @property
    def header_conditions(self) -> tuple[HeaderKey, ...]:
        """What of the stored header restricts the matches."""
        return tuple(key for key in self.header_keys if key.is_condition)

    @property
    def level_name(self) -> str:
        """The Query/Retrieve Level as the request had it."""
        return self.level.name if self.frames is None else FRAME_LEVEL


def parse_find(
    identifier: Dataset,
    model: InformationModel,
    options: QueryOptions = BASELINE,
    *,
    match_unknown: bool = False,
) -> Query:
    """Read the Identifier of a C-FIND request (PS3.4 C.4.1.1.3.1, C.4.1.2.1).

    ``options`` are what was negotiated (PS3.4 C.4.1.2.2), ``match_unknown`` is the setting.

    Raises:
        InvalidIdentifier: it breaks a rule of the information model.
    """
    level = _level_of(identifier, model)
    check_character_set(identifier)
    rules = MatchingRules(
        empty_values=options.empty_values,
        multiple_values=options.multiple_values,
        unknown_matches=match_unknown,
        fuzzy_names=options.fuzzy,
        relational=options.relational,
        default_offset=request_offset(identifier) if options.timezone else "",
    )
    combined = _combined(identifier) if options.combined_datetime else ()
    ranges = _ranges(combined)
    keys = {
        attribute: match
        for attribute, match in _keys_of_table(identifier, level, options, rules, ranges)
        if _is_key_of_find(attribute, match, model, level, relational=options.relational)
    }
    if not options.relational:
        _require_parents(keys, model, level)
    others = _other_keys(identifier)
    header = header_matches(identifier, others, model, level, rules)
    from_header, not_in_header = header_keys(identifier, others, model, level, header)
    return Query(
        model=model,
        level=level,
        conditions=_conditions({key: keys[key] for key in keys if key not in ranges}, rules),
        combined=combined,
        returns=_returns(keys, model, level),
        unsupported=tuple(sorted({*_not_returned(identifier, model, level), *not_in_header})),
        character_sets=character_set_terms(identifier),
        retrieval_keys=tuple(word for tag, word in _RETRIEVAL_KEYS.items() if tag in identifier),
        sequence_keys=tuple(
            (key, match) for key, match in keys.items() if isinstance(match, SequenceMatch)
        ),
        header_keys=from_header,
        unknown_matches=match_unknown,
        timezone_offset=rules.default_offset,
    )


def parse_retrieve(
    identifier: Dataset, model: InformationModel, options: QueryOptions = BASELINE
) -> Query:
    """Read the Identifier of a C-MOVE or C-GET request (PS3.4 C.4.2.1.4.1, C.4.2.2.1).

    ``options`` are what was negotiated (PS3.4 C.4.2.2.2).

    Raises:
        InvalidIdentifier: it breaks a rule of the information model.
    """
    level = _level_of(identifier, model)
    check_character_set(identifier)
    keys: dict[Attribute, Match] = {}
    for tag, element in _elements(identifier):
        attribute = BY_TAG.get(tag)
        if BaseTag(tag).is_private or tag in _RESPONSE_ONLY or is_empty(element):
            continue
        if attribute is None or not _is_key_of_retrieve(attribute, model, level):
            refuse(tag, f"is no unique key at level {level.name}")
        match = _match_of(attribute, element, identifier)
        if not isinstance(match, SingleValue | UidList):
            refuse(tag, "needs a value without wild cards")
        keys[attribute] = match
    if BY_KEYWORD[level.unique_key] not in keys:
        _refuse_missing(level, level)
    if not options.relational:
        _require_parents(keys, model, level)
    return Query(
        model=model,
        level=level,
        conditions=_conditions(keys),
        character_sets=character_set_terms(identifier),
    )


def _level_of(identifier: Dataset, model: InformationModel) -> Level:
    offending = (QUERY_RETRIEVE_LEVEL,)
    if QUERY_RETRIEVE_LEVEL not in identifier:
        raise InvalidIdentifier(about(QUERY_RETRIEVE_LEVEL, "is missing"), offending=offending)
    values = texts_of(identifier.get_item(QUERY_RETRIEVE_LEVEL))
    allowed = {level.name: level for level in model.levels}
    if len(values) != 1 or values[0] not in allowed:
        names = [*allowed, FRAME_LEVEL] if model in _WITH_FRAMES else [*allowed]
        problem = f"is not {' or '.join(names)}"
        raise InvalidIdentifier(about(QUERY_RETRIEVE_LEVEL, problem), offending=offending)
    return allowed[values[0]]


def _elements(identifier: Dataset) -> Iterator[tuple[int, Element]]:
    for tag in sorted(identifier.keys()):
        # Group lengths were retired, but still occur; they are no keys.
        if tag.element != 0 and tag not in _NOT_KEYS:
            yield int(tag), identifier.get_item(tag)


def _match_of(
    attribute: Attribute,
    element: Element,
    identifier: Dataset,
    rules: MatchingRules = STANDARD_RULES,
) -> Match:
    try:
        return parse_match(attribute.vr, element, codecs_of(character_set_terms(identifier)), rules)
    except UNREADABLE as error:
        message = about(attribute.tag, "cannot be read")
        raise InvalidIdentifier(message, offending=(attribute.tag,)) from error


def _combined(identifier: Dataset) -> tuple[CombinedRange, ...]:
    texts = {
        tag: texts_of(element)
        for tag, element in _elements(identifier)
        if tag in BY_TAG and BY_TAG[tag].vr in {"DA", "TM"}
    }
    return combined_ranges({tag: values[0] for tag, values in texts.items() if len(values) == 1})


def _ranges(combined: Iterable[CombinedRange]) -> dict[Attribute, Match]:
    """What stands for the two keys of each combined range, instead of what either says alone."""
    return {
        key: match
        for one in combined
        for key, match in zip((one.date, one.time), one.ranges, strict=True)
    }


def _keys_of_table(
    identifier: Dataset,
    level: Level,
    options: QueryOptions,
    rules: MatchingRules,
    ranges: Mapping[Attribute, Match],
) -> Iterator[tuple[Attribute, Match]]:
    """The keys that the index has, each with what it asks for."""
    for tag, element in _elements(identifier):
        if attribute := BY_TAG.get(tag):
            # Below the level nothing is moved to the time zone of the request.
            of_key = rules if attribute.level <= level else replace(rules, default_offset="")
            match = ranges.get(attribute) or _match_of(attribute, element, identifier, of_key)
            yield attribute, fuzzy(attribute.vr, match) if options.fuzzy else match


def _other_keys(identifier: Dataset) -> list[int]:
    """The keys that only a stored header may answer."""
    return [
        tag for tag, _ in _elements(identifier) if tag not in BY_TAG and tag not in _RESPONSE_ONLY
    ]


def _not_returned(identifier: Dataset, model: InformationModel, level: Level) -> Iterator[int]:
    """The keys that responses leave out, of the index's and of those that only responses have."""
    for tag, element in _elements(identifier):
        if attribute := BY_TAG.get(tag):
            if model.key_level(attribute) > level:  # whether it was matched or not
                yield tag
        elif tag in _RESPONSE_ONLY and not (tag in _RETRIEVAL_KEYS and is_empty(element)):
            yield tag


def _is_key_of_find(
    attribute: Attribute, match: Match, model: InformationModel, level: Level, *, relational: bool
) -> bool:
    """Whether a key has a meaning; one of a lower level without a value has none."""
    key_level = model.key_level(attribute)
    if is_universal(match):
        return key_level <= level
    if relational:
        return True
    if key_level > level:
        refuse(attribute.tag, f"is a key below level {level.name}")
    is_unique_key = attribute.keyword == key_level.unique_key
    if key_level < level and not is_unique_key:
        refuse(attribute.tag, f"is a key above level {level.name}")
    return True


def _is_key_of_retrieve(attribute: Attribute, model: InformationModel, level: Level) -> bool:
    is_unique_key = attribute.key_type is KeyType.UNIQUE
    return is_unique_key and model.key_level(attribute) <= level


def _require_parents(
    keys: Mapping[Attribute, Match], model: InformationModel, level: Level
) -> None:
    for parent in model.levels_above(level):
        if not isinstance(keys.get(BY_KEYWORD[parent.unique_key]), SingleValue):
            _refuse_missing(parent, level)


def _refuse_missing(key_level: Level, level: Level) -> NoReturn:
    refuse(BY_KEYWORD[key_level.unique_key].tag, f"needs one value at level {level.name}")


def _conditions(
    keys: Mapping[Attribute, Match], rules: MatchingRules = STANDARD_RULES
) -> tuple[Condition, ...]:
    return tuple(
        Condition(attribute, match, or_unknown=_or_unknown(attribute, match, rules))
        for attribute, match in keys.items()
        if not is_universal(match)
    )


def _or_unknown(attribute: Attribute, match: Match, rules: MatchingRules) -> bool:
    # Optional keys are processed as required ones are (PS3.4 C.2.2.1.3). A unique key has a value
    # in every entity (PS3.4 C.2.2.1.1), and what is computed is known.
    may_be_unknown = attribute.is_stored and attribute.key_type is not KeyType.UNIQUE
    return rules.unknown_matches and may_be_unknown and not isinstance(match, EmptyValue)


def _returns(
    keys: Mapping[Attribute, Match], model: InformationModel, level: Level
) -> tuple[Attribute, ...]:
    unique = [BY_KEYWORD[one.unique_key] for one in (level, *model.levels_above(level))]
    returned = [attribute for attribute in keys if model.key_level(attribute) <= level]
    return tuple(dict.fromkeys([*returned, *unique]))
