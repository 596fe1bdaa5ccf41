"""Combined date and time matching: a date and its time as one moment (PS3.4 C.2.2.2.5.4).

Without it a Study Date of ``20240705-20240707`` with a Study Time of ``1000-1800`` means three afternoons; with it, the
time from the morning of the first day to the evening of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pacs.dicom.attributes import BY_KEYWORD, Attribute
from pacs.dicom.error_comment import refuse
from pacs.dicom.query.ranges import Range
from pacs.dicom.text.dates import canonical, canonical_upper, has_form_of_date

#: The Attributes of VR DA and TM that tell one moment together.
DATE_TIME_PAIRS: tuple[tuple[Attribute, Attribute], ...] = tuple(
    (BY_KEYWORD[f"{name}Date"], BY_KEYWORD[f"{name}Time"])
    for name in (
        "PatientBirth",
        "Study",
        "Series",
        "PerformedProcedureStepStart",
        "Acquisition",
        "Content",
        "InstanceCreation",
    )
)


@dataclass(frozen=True, slots=True)
class CombinedRange:
    """Matches moments from ``lower`` to ``upper`` inclusive; None is open.

    A moment is (date as it is in the index, canonical time), so the order of the pairs is the order in time.
    """

    date: Attribute
    time: Attribute
    lower: tuple[str, str] | None
    upper: tuple[str, str] | None

    def matches(self, date: str | None, time: str | None) -> bool:
        """The reference: whether these index texts match; both Attributes need a value."""
        moment_of_day = canonical("TM", time) if time else None
        if not date or not has_form_of_date(date) or moment_of_day is None:
            return False
        moment = date, moment_of_day
        return (self.lower is None or self.lower <= moment) and (
            self.upper is None or moment <= self.upper
        )

    @property
    def ranges(self) -> tuple[Range, Range]:
        """What is said of the date and what of the time, neither of which holds alone."""
        lower, upper = self.lower or (None, None), self.upper or (None, None)
        return Range(lower[0], upper[0]), Range(lower[1], upper[1])


def combined_ranges(texts: Mapping[int, str]) -> tuple[CombinedRange, ...]:
    """The pairs among some key values, by tag, that are ranges of one form: from-to, from, or to.

    A pair of another form, or with a value that is no date or time, is left to be matched apart.

    Raises:
        InvalidIdentifier: the combined range ends before it begins.
    """
    found = []
    for date, time in DATE_TIME_PAIRS:
        dates, times = _ends(texts.get(date.tag, "")), _ends(texts.get(time.tag, ""))
        lower, upper = _joined(dates[0], times[0], 0), _joined(dates[1], times[1], 1)
        if lower is _APART or upper is _APART or (lower is None and upper is None):
            continue
        if lower is not None and upper is not None and lower > upper:
            refuse(date.tag, "and its time end before they begin")
        found.append(CombinedRange(date, time, lower, upper))
    return tuple(found)


#: Stands for two values that do not combine.
_APART = ("", "")


def _ends(text: str) -> tuple[str, str]:
    """What is before and after the hyphen of a range; nothing for what is no range."""
    left, hyphen, right = text.partition("-")
    return (left.strip(), right.strip()) if hyphen else ("", "")


def _joined(date: str, time: str, end: int) -> tuple[str, str] | None:
    if not date and not time:
        return None
    bound = (canonical, canonical_upper)[end]
    days, moments = bound("DA", date), bound("TM", time)
    return _APART if days is None or moments is None else (days, moments)
