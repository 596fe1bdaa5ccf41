"""Ranges of dates and times, and single ones that stand for a span of time (PS3.4 C.2.2.2.5, C.2.2.2.1.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacs.dicom.error_comment import refuse
from pacs.dicom.text.dates import canonical, canonical_upper, with_offset

#: The VRs for which ``-`` makes a range (PS3.4 C.2.2.2.5).
RANGE_VRS = frozenset({"DA", "TM", "DT"})


@dataclass(frozen=True, slots=True)
class Range:
    """Matches values from ``lower`` to ``upper`` inclusive; None is open (PS3.4 C.2.2.2.5).

    Both ends are canonical (``pacs.dicom.text.dates.canonical``), so text order is the order in time.
    """

    lower: str | None
    upper: str | None

    def contains(self, value: str) -> bool:
        """Whether a value in the form of the ends is between them."""
        return (self.lower is None or self.lower <= value) and (
            self.upper is None or value <= self.upper
        )


def parse_range(vr: str, tag: int, text: str, offset: str = "") -> Range:
    """The range that a key stands for; ``offset`` is that of a DT without one of its own.

    Raises:
        InvalidIdentifier: it is no range, nor one value.
    """
    found = _range_of(vr, text, offset if vr == "DT" else "")
    if found is None:
        left, _, right = (part.strip() for part in text.partition("-"))
        if vr == "TM" and canonical(vr, left) and canonical(vr, right):
            refuse(tag, "is a range across midnight")  # PS3.4 C.2.2.2.5.2
        refuse(tag, f"is no {vr}, nor an ascending range")
    return found


def _range_of(vr: str, text: str, offset: str) -> Range | None:
    # The hyphen of a range and of a negative offset of DT look alike. A hyphen makes a range
    # wherever that gives a valid one (PS3.4 C.2.2.2.1.3 note 3); what remains is one value.
    for hyphen in re.finditer("-", text):
        left, right = text[: hyphen.start()].strip(), text[hyphen.end() :].strip()
        lower, upper = _first(vr, left, offset), _last(vr, right, offset)
        is_readable = (lower or not left) and (upper or not right) and (left or right)
        if is_readable and (lower is None or upper is None or lower <= upper):
            return Range(lower, upper)
    lower = _first(vr, text, offset)
    return Range(lower, _last(vr, text, offset)) if lower is not None else None


def _first(vr: str, text: str, offset: str) -> str | None:
    return canonical(vr, with_offset(text, offset) if offset else text)


def _last(vr: str, text: str, offset: str) -> str | None:
    return canonical_upper(vr, with_offset(text, offset) if offset else text)
