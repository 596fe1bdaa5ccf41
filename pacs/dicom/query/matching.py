"""Match values and the reference of attribute matching (PS3.4 C.2.2.2).

A key Attribute is parsed once into a Match. ``matches`` evaluates it on an index text and is the
reference: whatever the index does in SQL must give the same answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import TypeAlias, assert_never

from pydicom.dataset import Dataset

from pacs.dicom.attributes import BY_TAG, KeyType
from pacs.dicom.encoding.plain_values import (
    MATCHED_VRS,
    MAXIMUM_DEPTH,
    SPECIFIC_CHARACTER_SET,
    TEXT_VRS,
    Element,
    is_empty,
    is_one_text,
    item_codecs,
    items_of,
    may_have_several,
    normalised,
    text_of_json,
    texts_of,
    vr_of,
)
from pacs.dicom.error_comment import refuse
from pacs.dicom.query.query_options import MatchingRules
from pacs.dicom.query.ranges import RANGE_VRS, Range, parse_range
from pacs.dicom.text.character_sets import DEFAULT_CODECS
from pacs.dicom.text.dates import has_form_of_date
from pacs.dicom.text.fuzzy_names import code_patterns
from pacs.dicom.text.names import name_groups
from pacs.dicom.text.values import capped, shadow_values, split_values
from pacs.dicom.uids import is_uid


@dataclass(frozen=True, slots=True)
class Universal:
    """Matches every entity, also one without a value (PS3.4 C.2.2.2.3)."""


@dataclass(frozen=True, slots=True)
class SingleValue:
    """Matches an equal value (PS3.4 C.2.2.2.1)."""

    value: str


@dataclass(frozen=True, slots=True)
class UidList:
    """Matches any of several UIDs (PS3.4 C.2.2.2.2)."""

    uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WildCard:
    """Matches a pattern of ``*`` and ``?``; every other character is literal (PS3.4 C.2.2.2.4)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class SequenceMatch:
    """Matches a sequence in which one Item matches all keys (PS3.4 C.2.2.2.6)."""

    keys: tuple[tuple[int, str, Match], ...]
    """(tag, VR, match) for each key Attribute of the request's single Item."""


@dataclass(frozen=True, slots=True)
class FuzzyName:
    """Matches a name that ``plain`` matches, or that has its words by sound (PS3.4 C.2.2.2.1.1)."""

    plain: SingleValue | WildCard
    patterns: tuple[str, ...]
    """Patterns for the codes of a name (``pacs.dicom.text.fuzzy_names``); all have to match."""


@dataclass(frozen=True, slots=True)
class EmptyValue:
    """Matches only what has no value (PS3.4 C.2.2.2.7)."""


@dataclass(frozen=True, slots=True)
class ValueList:
    """Matches if the Attribute has any, or every, one of several values (PS3.4 C.2.2.2.8)."""

    values: tuple[str, ...]
    every: bool
    #: Whether each of them is a name to be matched by its sound as well.
    fuzzy: bool = False

    def each(self) -> tuple[Match, ...]:
        """A Match for each of the values."""
        values = [SingleValue(value) for value in self.values]
        return tuple(_fuzzy_name(value) if self.fuzzy else value for value in values)


Match: TypeAlias = (
    Universal
    | SingleValue
    | UidList
    | WildCard
    | Range
    | SequenceMatch
    | FuzzyName
    | EmptyValue
    | ValueList
)

UNIVERSAL = Universal()
STANDARD_RULES = MatchingRules()

#: The VRs for which ``*`` and ``?`` are wild cards (PS3.4 C.2.2.2.4).
WILD_CARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
#: The VRs for which a key may list several values (PS3.4 C.2.2.2.8), besides UI.
LIST_VRS = frozenset({"AE", "AS", "CS", "LO", "PN", "SH", "UC"})
#: The key that asks for no value: two quotation marks (PS3.4 C.2.2.2.7).
EMPTY_VALUE_KEY = '""'

# Longer than any value of the index that a pattern could be meant for; bounds the work of matching.
_MAXIMUM_PATTERN = 1_024
# Where the codes are among the shadow values of a name: after its three component groups.
_CODES = 3
# Each listed name is a condition of its own, and SQLite nests at most 1,000 of them.
_MAXIMUM_LISTED = 256
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_match(
    attribute_vr: str,
    element: Element,
    codecs: Sequence[str] = DEFAULT_CODECS,
    rules: MatchingRules = STANDARD_RULES,
) -> Match:
    """Turn one key Attribute of a request into a Match.

    ``codecs`` decodes an element that pydicom has not decoded yet. A TM or DT always gives a Range:
    such values are compared by meaning, and one with components left out stands for a span of time
    (PS3.4 C.2.2.2.1.3). A sequence gives a SequenceMatch even if all its keys are universal,
    because they say what to return; ``is_universal`` tells.

    Raises:
        InvalidIdentifier: the Standard gives such a value no meaning.
    """
    match = _parse(attribute_vr, element, codecs, _Limits(rules, MAXIMUM_DEPTH))
    # The index keeps long values cut, so a long key is cut alike.
    several = may_have_several(int(element.tag))
    if isinstance(match, SingleValue):
        return SingleValue(_cut(attribute_vr, match.value, several))
    if isinstance(match, ValueList):
        values = tuple(_cut(attribute_vr, value, several) for value in match.values)
        return ValueList(values, match.every)
    return match


def _cut(vr: str, value: str, several: bool) -> str:
    return capped(vr, value, may_be_several=several) or value


@dataclass(frozen=True, slots=True)
class _Limits:
    """What holds for a key and the keys in its Items."""

    rules: MatchingRules
    depth: int

    def of_items(self) -> _Limits:
        # What Items have is not moved to the time zone of the request.
        return _Limits(replace(self.rules, default_offset=""), self.depth - 1)


def _parse(vr: str, element: Element, codecs: Sequence[str], limits: _Limits) -> Match:
    if vr == "SQ":
        return _parse_sequence(element, codecs, limits)
    texts = texts_of(element, codecs)
    if not texts and not is_empty(element):
        refuse(element.tag, "has a value that cannot be matched")
    values = [text for text in texts if text]
    if not values:
        return UNIVERSAL
    if limits.rules.empty_values and vr in TEXT_VRS and values == [EMPTY_VALUE_KEY]:
        return EmptyValue()
    if vr == "UI":
        return _parse_uids(element, values)
    if len(values) > 1:
        return _parse_list(vr, element, values, limits.rules)
    match = _parse_value(vr, element, values[0], limits.rules)
    several = may_have_several(int(element.tag))
    if isinstance(match, SingleValue) and is_one_text(vr, several=several):
        return _one_text(vr, element, match)
    return match


def _one_text(vr: str, element: Element, whole: SingleValue) -> Match:
    """A text of VM 1: as it is, and as the list it may be meant for, unless it says who or what an entity is.

    A patient's ID with a backslash is asked for like any other, and must not bring those of whom it has a part.
    """
    attribute = BY_TAG.get(int(element.tag))
    is_unique = attribute is not None and attribute.key_type is KeyType.UNIQUE
    parts = [normalised(vr, part) for part in whole.value.split("\\")]
    if vr not in LIST_VRS or is_unique or len(parts) == 1:
        return whole
    values = list(dict.fromkeys((whole.value, *filter(None, parts))))
    if len(values) > _MAXIMUM_LISTED + 1:
        refuse(element.tag, f"has more than {_MAXIMUM_LISTED} values")
    return ValueList(tuple(values), every=False)


def _parse_value(
    vr: str, element: Element, value: str, rules: MatchingRules = STANDARD_RULES
) -> Match:
    if vr in RANGE_VRS:
        found = parse_range(vr, int(element.tag), value, rules.default_offset)
        if vr == "DA" and found.lower is not None and found.lower == found.upper:
            return SingleValue(found.lower)
        return found
    if vr in WILD_CARD_VRS:
        return _parse_text(vr, element, value)
    return _parse_number(vr, element, value)


def _parse_list(vr: str, element: Element, values: list[str], rules: MatchingRules) -> Match:
    if vr not in LIST_VRS:
        refuse(element.tag, f"has several values; VR {vr} has one")
    values = list(dict.fromkeys(values))
    if len(values) > _MAXIMUM_LISTED:
        refuse(element.tag, f"has more than {_MAXIMUM_LISTED} values")
    for value in values:
        if not isinstance(_parse_value(vr, element, value), SingleValue):
            refuse(element.tag, "has a wild card in a list")
    # Not negotiated, a list is undefined (note 4): it is taken as a list of UID is, since that is
    # what SCUs that send one mean. Nor does the clause say what "every" means where VM is 1.
    every = rules.multiple_values and may_have_several(int(element.tag))
    return ValueList(tuple(values), every=every)


def _parse_uids(element: Element, values: list[str]) -> Match:
    for value in values:
        # A UID with such a character can be stored, but nobody asks for one: it is meant as a wild card.
        if not is_uid(value) or "*" in value or "?" in value:
            refuse(element.tag, "is not a UID; it has no wild card")
    uids = tuple(dict.fromkeys(values))
    return SingleValue(uids[0]) if len(uids) == 1 else UidList(uids)


def _parse_text(vr: str, element: Element, value: str) -> Match:
    groups = name_groups(value) if vr == "PN" else (value,)
    if not any(group.strip("*") for group in groups):
        return UNIVERSAL
    if "*" not in value and "?" not in value:
        return SingleValue(value)
    if len(value) > _MAXIMUM_PATTERN:
        refuse(element.tag, "has too long a pattern")
    return WildCard(value)


def _parse_number(vr: str, element: Element, value: str) -> Match:
    if "*" in value or "?" in value:
        refuse(element.tag, f"has a wild card; VR {vr} has none")
    form = {"AS": None, "DS": _DECIMAL, "FL": _DECIMAL, "FD": _DECIMAL}.get(vr, _NUMBER)
    if form is not None and not form.fullmatch(value):
        refuse(element.tag, f"is not a valid value of VR {vr}")
    return SingleValue(value)


def _parse_sequence(element: Element, codecs: Sequence[str], limits: _Limits) -> Match:
    items = items_of(element, codecs)
    if items is None or not limits.depth:
        refuse(element.tag, "is not a readable sequence")
    if len(items) > 1:
        refuse(element.tag, "has several Items; one is due")
    keys = [key for item in items for key in _parse_item(item, item_codecs(item, codecs), limits)]
    return SequenceMatch(tuple(keys)) if keys else UNIVERSAL


def _parse_item(
    item: Dataset, codecs: Sequence[str], limits: _Limits
) -> Iterator[tuple[int, str, Match]]:
    for tag in sorted(item.keys()):
        if tag.element == 0 or tag == SPECIFIC_CHARACTER_SET:
            continue
        element = item.get_item(tag)
        vr = vr_of(element)
        if tag.is_private or vr not in MATCHED_VRS:  # neither kept nor returned in Items
            if not is_empty(element):
                refuse(tag, "has a value that cannot be matched")
            continue
        yield int(tag), vr, _parse(vr, element, codecs, limits.of_items())


def fuzzy(vr: str, match: Match) -> Match:
    """A match as it is when fuzzy semantic matching of person names was negotiated."""
    if vr != "PN":
        return match
    if isinstance(match, ValueList):
        return replace(match, fuzzy=True)
    return _fuzzy_name(match) if isinstance(match, SingleValue | WildCard) else match


def _fuzzy_name(match: SingleValue | WildCard) -> Match:
    patterns = code_patterns(match.value if isinstance(match, SingleValue) else match.pattern)
    return FuzzyName(match, patterns) if patterns else match


def is_universal(match: Match) -> bool:
    """Whether a Match restricts nothing."""
    if isinstance(match, SequenceMatch):
        return all(is_universal(key) for _, _, key in match.keys)
    return isinstance(match, Universal)


def matches(vr: str, match: Match, text: str | None, *, several: bool = True) -> bool:
    """Whether an Attribute with this index text matches; THE reference (PS3.4 C.2.2.2).

    One matching value of several is enough (PS3.4 C.2.2.3), where the Attribute's VM lets it have ``several``. An
    Attribute without a value matches nothing but a universal key.
    """
    if is_universal(match):
        return True
    if not text or isinstance(match, EmptyValue):
        return not text and isinstance(match, EmptyValue)
    if isinstance(match, ValueList):
        found = (matches(vr, value, text, several=several) for value in match.each())
        return all(found) if match.every else any(found)
    if isinstance(match, SequenceMatch):
        return any(item_matches(match, item) for item in json_items_of_text(text))
    if vr == "PN":
        return _name_matches(match, text, several=several)
    return _one_value_matches(vr, match, split_values(vr, text, several=several))


def _one_value_matches(vr: str, match: Match, values: Sequence[str]) -> bool:
    """Whether one of the values matches."""
    if vr in {"TM", "DT"} and isinstance(match, Range):
        moments = [shadow_values(vr, value)[0] for value in values]
        return any(moment is not None and match.contains(moment) for moment in moments)
    if vr == "DS" and isinstance(match, SingleValue):
        number = _number(match.value)
        return any(_number(value) == number for value in values)
    return any(_value_matches(match, value) for value in values)


def _number(text: str) -> Decimal | str:
    # 1.50 and 1.5 are one number; IS is compared so by its form in the index.
    try:
        return Decimal(text) if _DECIMAL.fullmatch(text) else text
    except ArithmeticError:  # an exponent beyond all bounds
        return text


def json_items_of_text(text: str) -> list[object]:
    """The Items of a sequence's index text."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return items if isinstance(items, list) else []


def item_matches(match: SequenceMatch, item: object) -> bool:
    """Whether one Item, as DICOM JSON, matches all keys (PS3.4 C.2.2.2.6)."""
    return isinstance(item, dict) and all(
        _key_matches(tag, vr, key, item.get(f"{tag:08X}")) for tag, vr, key in match.keys
    )


def _key_matches(tag: int, vr: str, match: Match, attribute: object) -> bool:
    if isinstance(match, SequenceMatch):
        nested = attribute.get("Value") if isinstance(attribute, dict) else None
        is_match = isinstance(nested, list) and any(item_matches(match, item) for item in nested)
        return is_match or is_universal(match)
    return matches(vr, match, text_of_json(attribute), several=may_have_several(tag))


def _value_matches(match: Match, value: str) -> bool:
    match match:
        case Universal():
            return True
        case SingleValue():
            return value == match.value
        case UidList():
            return value in match.uids
        case WildCard():
            return glob_matches(match.pattern, value)
        case Range():
            # Only DA comes here. Its text is compared as it is, so that a stored date which is not
            # in the calendar (19500000 is common as a birth date) still has a place in the order.
            return has_form_of_date(value) and match.contains(value)
        # What needs to see all values or groups has been done before.
        case SequenceMatch() | FuzzyName() | EmptyValue() | ValueList():
            return False
        case _:
            assert_never(match)


def _name_matches(match: Match, text: str, *, several: bool) -> bool:
    shadows = shadow_values("PN", text, several=several)
    columns = [(column or "").split("\\") if several else [column or ""] for column in shadows]
    if isinstance(match, FuzzyName):
        sounds = match.patterns
        if any(all(glob_matches(one, codes) for one in sounds) for codes in columns[_CODES]):
            return True
        match = match.plain
    if not isinstance(match, SingleValue | WildCard):
        values = split_values("PN", text, several=several)
        return any(_value_matches(match, value) for value in values)
    count = max(len(column) for column in columns[:_CODES])
    padded = [column + [""] * (count - len(column)) for column in columns[:_CODES]]
    wanted = name_groups(match.value if isinstance(match, SingleValue) else match.pattern)
    patterns = [group_patterns(match, group) for group in wanted]
    matches_groups = _groups_match if any(wanted[1:]) else _any_group_matches
    return any(matches_groups(patterns, groups) for groups in zip(*padded, strict=True))


def group_patterns(match: SingleValue | WildCard, group: str) -> tuple[SingleValue | WildCard, ...]:
    """What a component group of a name has to match, one of them, for the same group of a key; none if anything does.

    A group ends where its last component that has a value does, and matches a wild card as if the empty ones behind
    were there: ``OB^*`` finds ``OB``. A SingleValue without a text stands for no group.
    """
    if not group.strip("*"):
        return ()
    if isinstance(match, SingleValue):
        return (SingleValue(group),)
    last = len(group.rstrip("*^"))
    # Where carets of the key may stand for those that the name does not have.
    ends = [i for i in range(last, len(group)) if group[i] == "^" and group[i - 1 : i] != "^"]
    if not ends:
        return (WildCard(group),)
    shortest = group[: ends[0]]
    # One asterisk at the end finds all that longer keys find.
    starred = next((group[:i] for i in ends if group[:i].endswith("*")), group)
    if not starred.strip("*"):
        return ()
    one = WildCard(shortest) if "*" in shortest or "?" in shortest else SingleValue(shortest)
    return tuple(dict.fromkeys((one, WildCard(starred))))


def _groups_match(
    wanted: Sequence[Sequence[SingleValue | WildCard]], groups: Sequence[str]
) -> bool:
    return all(_is_any_of(patterns, group) for patterns, group in zip(wanted, groups, strict=True))


def _any_group_matches(
    wanted: Sequence[Sequence[SingleValue | WildCard]], groups: Sequence[str]
) -> bool:
    # The key has one component group. Any of the name may match it; of a name of nothing but delimiters, none.
    return any(_is_any_of(wanted[0], group) for group in (list(filter(None, groups)) or [""]))


def _is_any_of(patterns: Sequence[SingleValue | WildCard], group: str) -> bool:
    return not patterns or any(_value_matches(pattern, group) for pattern in patterns)


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a text matches a pattern of ``*`` and ``?``.

    What is between two ``*`` is looked for once, behind what was found before it: no other place would do better.
    """
    pieces = _pieces(pattern)
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return len(text) == first.length and first.is_at(text, 0)
    position, end = first.length, len(text) - last.length
    if position > end or not (first.is_at(text, 0) and last.is_at(text, end)):
        return False
    for piece in pieces[1:-1]:
        found = piece.find(text, position, end)
        if found < 0:
            return False
        position = found + piece.length
    return True


@dataclass(frozen=True, slots=True)
class _Piece:
    """Part of a pattern without ``*``."""

    literal: str
    #: For one with ``?``. It repeats nothing, so that no text takes it long.
    expression: re.Pattern[str] | None

    @property
    def length(self) -> int:
        return len(self.literal)

    def is_at(self, text: str, position: int) -> bool:
        if self.expression is None:
            return text.startswith(self.literal, position)
        return self.expression.match(text, position) is not None

    def find(self, text: str, position: int, end: int) -> int:
        if self.expression is None:
            return text.find(self.literal, position, end)
        found = self.expression.search(text, position, end)
        return -1 if found is None else found.start()


@lru_cache(maxsize=64)
def _pieces(pattern: str) -> tuple[_Piece, ...]:
    return tuple(_piece(one) for one in pattern.split("*"))


def _piece(text: str) -> _Piece:
    if "?" not in text:
        return _Piece(text, None)
    return _Piece(text, re.compile(".".join(map(re.escape, text.split("?"))), re.DOTALL))
