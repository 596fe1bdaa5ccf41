"""A request Identifier becomes a Query, or is refused with the rule it breaks."""

from __future__ import annotations

from dataclasses import dataclass

from pacs.dicom.attributes import Attribute
from pacs.dicom.information_model import InformationModel
from pacs.dicom.levels import Level
from pacs.dicom.matching import Match


@dataclass(frozen=True, slots=True)
class Condition:
    """One key Attribute that restricts the matches; never universal."""

    attribute: Attribute
    match: Match


@dataclass(frozen=True, slots=True)
class Query:
    """What a valid Identifier asks for, independent of how it was encoded."""

    model: InformationModel
    level: Level
    conditions: tuple[Condition, ...]
    #: Attributes to return, in the order asked for; empty for C-MOVE and C-GET.
    returns: tuple[Attribute, ...] = ()
    #: Tags of optional keys asked for that this archive does not support: they make the responses 0xFF01.
    unsupported: tuple[int, ...] = ()
    #: The Specific Character Set values of the request; empty for the default repertoire.
    character_sets: tuple[str, ...] = ()
