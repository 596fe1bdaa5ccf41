"""Time zones, and values moved from one to another (Timezone Offset From UTC: PS3.3 C.12.1.1.8)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from pacs.dicom.text.dates import canonical, minutes_east, with_offset

#: The Attribute that says in which zone the dates and times beside it are.
TIMEZONE_OFFSET_FROM_UTC = 0x00080201
#: The name of the zone that the system's clock is set to.
LOCAL = "local"

_OFFSET = re.compile(r"[+-][0-9]{4}")
# For a time without a date, which only an offset that never changes can move.
_ANY_DAY = "20000102"


def zone_of_offset(text: str) -> timezone | None:
    """The zone of an offset such as ``+0100``; None if it is none (-1200 to +1400)."""
    text = text.strip(" \0")
    minutes = minutes_east(text) if _OFFSET.fullmatch(text) else None
    return None if minutes is None else timezone(timedelta(minutes=minutes))


def zone_named(name: str) -> tzinfo:
    """The zone of an offset, of an IANA name, or ``local`` for that of the system.

    Raises:
        ValueError: there is no such zone.
    """
    if name == LOCAL:
        return _SystemZone()
    offset = zone_of_offset(name)
    if offset is not None:
        return offset
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"no such time zone: {name}") from error


class _SystemZone(tzinfo):
    """What the C library says of each moment, so that daylight saving counts as it did then."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, _moment: datetime | None) -> None:
        return None

    def tzname(self, _moment: datetime | None) -> str:
        return LOCAL


def moved(date: str, time: str, source: tzinfo, target: timezone) -> tuple[str, str]:
    """A date and its time in ``source`` as they are in ``target``, with the components they had.

    A time without a date is moved within its day, if ``source`` has one offset for ever. What is no moment,
    and what would leave the calendar, stays as it is.
    """
    start = _start(date or _ANY_DAY, time)
    if start is None:
        return date, time
    try:
        from_utc = source.utcoffset(start if date else None)
        if from_utc is None:
            return date, time
        shift = target.utcoffset(None) - _whole_minutes(from_utc)
        new = start + shift
    except (ValueError, OverflowError, OSError):
        return date, time
    if not shift:
        return date, time
    written = time.strip(" \0").replace(":", "")
    clock = f"{new:%H%M}" if len(written) > 2 or new.minute else f"{new:%H}"
    return (f"{new.year:04}{new:%m%d}" if date else ""), clock + written[4:]


def with_offset_of(text: str, source: tzinfo) -> str:
    """A DT in ``source`` that says so; one that has an offset, or is not valid, as it is."""
    moment = canonical("DT", text)
    if moment is None:
        return text
    try:
        from_utc = source.utcoffset(_start(moment[:8], moment[8:]))
    except (ValueError, OverflowError, OSError):
        return text
    return text if from_utc is None else with_offset(text, _written(_whole_minutes(from_utc)))


def _start(date: str, time: str) -> datetime | None:
    # Without the seconds: offsets are whole minutes, so these stay as they are, also a leap second.
    day, clock = canonical("DA", date), canonical("TM", time)
    if day is None or clock is None:
        return None
    return datetime.strptime(day + clock[:4], "%Y%m%d%H%M")  # noqa: DTZ007 - the caller has the zone


def _whole_minutes(offset: timedelta) -> timedelta:
    # Local mean times, before zones were made, had seconds.
    return timedelta(minutes=round(offset.total_seconds() / 60))


def _written(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
