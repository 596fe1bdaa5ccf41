"""Match values and the reference of attribute matching (PS3.4 C.2.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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
class Range:
    """Matches values from ``lower`` to ``upper`` inclusive; None is open (PS3.4 C.2.2.2.5).

    Both ends are canonical (``pacs.dicom.values.canonical``), so text order is the order in time.
    """

    lower: str | None
    upper: str | None


@dataclass(frozen=True, slots=True)
class SequenceMatch:
    """Matches a sequence in which one Item matches all keys (PS3.4 C.2.2.2.6)."""

    keys: tuple[tuple[int, str, Match], ...]
    """(tag, VR, match) for each key Attribute of the request's single Item."""


Match: TypeAlias = Universal | SingleValue | UidList | WildCard | Range | SequenceMatch
