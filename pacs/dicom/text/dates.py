"""Dates and times (VR DA, TM, DT; PS3.5 6.2) in a form whose text order is the order in time.

A value may leave out its smaller components. It then stands for a span of time: ``canonical`` is
the first moment of the span, ``canonical_upper`` the last one.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta

_EIGHT_DIGITS = re.compile(r"[0-9]{8}")
_DA = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})")
# Colons are the form of the standards before DICOM; more than six digits of fraction are cut.
_TIME = r"([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:\.([0-9]{1,12}))?)?)?"
_TM = re.compile(_TIME)
_DT = re.compile(rf"([0-9]{{4}})(?:([0-9]{{2}})(?:([0-9]{{2}})(?:{_TIME})?)?)?([+-][0-9]{{4}})?")

_Bounds = tuple[str, str]


def canonical(vr: str, text: str) -> str | None:
    """The first moment a value stands for; None if it is not a valid value of the VR.

    DA gives ``YYYYMMDD``, TM ``HHMMSS.FFFFFF``, DT ``YYYYMMDDHHMMSS.FFFFFF``. A DT with an offset
    is converted to UTC; one without is taken as it is, because nothing says where it was recorded.
    """
    bounds = _bounds(vr, text)
    return bounds[0] if bounds else None


def canonical_upper(vr: str, text: str) -> str | None:
    """The last moment a value stands for: "10" as TM ends at 10:59:59.999999."""
    bounds = _bounds(vr, text)
    return bounds[1] if bounds else None


def has_form_of_date(text: str) -> bool:
    """Whether an index text has a place in the order of dates; it need not be in the calendar."""
    return _EIGHT_DIGITS.fullmatch(text) is not None


def with_offset(text: str, offset: str) -> str:
    """A DT with an offset added; one that has its own, and what is no DT, as it is."""
    found = _DT.fullmatch(text.strip(" \0"))
    return text if found is None or found.groups()[-1] else text.strip(" \0") + offset


def _bounds(vr: str, text: str) -> _Bounds | None:
    text = text.strip(" \0")
    if vr == "DA":
        return _date_bounds(text)
    if vr == "TM":
        found = _TM.fullmatch(text)
        return _time_bounds(*found.groups()) if found else None
    if vr == "DT":
        found = _DT.fullmatch(text)
        return _date_time_bounds(*found.groups()) if found else None
    return None


def _date_bounds(text: str) -> _Bounds | None:
    found = _DA.fullmatch(text)
    if not found:
        return None
    year, _, month, day = found.groups()
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return None
    return (year + month + day,) * 2


def _time_bounds(
    hour: str | None, minute: str | None, second: str | None, fraction: str | None
) -> _Bounds | None:
    # 60 is a leap second.
    if int(hour or 0) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return None
    fraction = (fraction or "")[:6]
    lower = f"{hour or '00'}{minute or '00'}{second or '00'}.{fraction:0<6}"
    upper = f"{hour or '23'}{minute or '59'}{second or '59'}.{fraction:9<6}"
    return lower, upper


def _date_time_bounds(
    year: str, month: str | None, day: str | None, *time_and_offset: str | None
) -> _Bounds | None:
    *time, offset = time_and_offset
    times = _time_bounds(*time)
    east = 0 if offset is None else minutes_east(offset)
    if times is None or east is None:
        return None
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        last_day = int(day) if day else monthrange(int(year), int(month or 12))[1]
        last = date(int(year), int(month or 12), last_day)
        return _to_utc(first, times[0], east), _to_utc(last, times[1], east)
    except (ValueError, OverflowError):  # not in the calendar, or shifted out of it
        return None


def minutes_east(offset: str) -> int | None:
    """What an offset of the form &ZZXX says; None beyond -1200 and +1400 (PS3.5 6.2)."""
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    if int(offset[3:]) > 59 or minutes > (12 * 60 if offset[0] == "-" else 14 * 60):
        return None
    return -minutes if offset[0] == "-" else minutes


def _to_utc(day: date, time: str, east: int) -> str:
    # Offsets are whole minutes: the seconds, also a leap second, stay as they are.
    moment = datetime(day.year, day.month, day.day, int(time[:2]), int(time[2:4]))  # noqa: DTZ001 - the zone is the offset
    moment -= timedelta(minutes=east)
    return f"{moment:%m%d%H%M}".join((f"{moment.year:04}", time[4:]))
