"""Keys outside the attribute table that have a value: they are matched in the stored header (PS3.4 C.2.2.1.3).

They are optional keys, supported for matching as those of the table are: by the same types of matching (PS3.4
C.2.2.2), on the same form of the value. Not matched are private Attributes, those that the data dictionary does not
know or has several VRs for, bulk data, and sequences with private Attributes in the request's Item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from pacs.dicom.encoding.plain_values import (
    MATCHED_VRS,
    MAXIMUM_DEPTH,
    UNREADABLE,
    Element,
    character_set_terms,
    dictionary_facts,
    item_codecs,
    items_of,
)
from pacs.dicom.error_comment import about, refuse
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.query.header_keys import level_of, may_be_key_of
from pacs.dicom.query.matching import Match, fuzzy, is_universal, parse_match
from pacs.dicom.query.query_options import MatchingRules
from pacs.dicom.text.character_sets import codecs_of
from pacs.errors import InvalidIdentifier


def header_matches(
    identifier: Dataset,
    tags: Sequence[int],
    model: InformationModel,
    level: Level,
    rules: MatchingRules,
) -> dict[int, Match]:
    """What each key of ``tags`` asks for, of those that can be matched at ``level``; Universal included.

    Raises:
        InvalidIdentifier: a key has a value without a meaning, or is one of a level above.
    """
    codecs = codecs_of(character_set_terms(identifier))
    found: dict[int, Match] = {}
    for tag in tags:
        element = identifier.get_item(tag)
        key_level = max(level_of(tag), model.levels[0])
        if key_level > level or not _can_be_matched(tag, element, codecs):
            continue
        match = _match_of(tag, element, codecs, rules)
        is_above = key_level < level and not may_be_key_of(tag, level)
        if is_above and not rules.relational and not is_universal(match):
            refuse(tag, f"is a key above level {level.name}")
        found[tag] = match
    return found


def _can_be_matched(tag: int, element: Element, codecs: Sequence[str]) -> bool:
    facts = dictionary_facts(tag)
    if BaseTag(tag).is_private or facts is None or facts[0] not in MATCHED_VRS:
        return False
    if " or " in dictionary_VR(tag):  # US or SS: what the bytes mean, another Attribute says
        return False
    return facts[0] != "SQ" or not any(_private_tags(element, codecs, MAXIMUM_DEPTH))


def _private_tags(element: Element, codecs: Sequence[str], depth: int) -> Iterator[int]:
    """The private tags in the Items of a request; what cannot be read has none, and is refused later."""
    for item in (items_of(element, codecs) or []) if depth else []:
        for tag in sorted(item.keys()):
            if tag.is_private:
                yield int(tag)
            elif (dictionary_facts(int(tag)) or ("",))[0] == "SQ":
                yield from _private_tags(item.get_item(tag), item_codecs(item, codecs), depth - 1)


def _match_of(tag: int, element: Element, codecs: Sequence[str], rules: MatchingRules) -> Match:
    vr = dictionary_VR(tag)
    try:
        match = parse_match(vr, element, codecs, rules)
    except UNREADABLE as error:
        raise InvalidIdentifier(about(tag, "cannot be read"), offending=(tag,)) from error
    return fuzzy(vr, match) if rules.fuzzy_names else match
