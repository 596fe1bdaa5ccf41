"""When the frames of a multi-frame instance were acquired (PS3.3 C.7.6.5, C.7.6.16.2.2; PS3.4 Y.3.2.1.3)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import accumulate

from pacs.dicom.encoding.layout import Layout
from pacs.dicom.text.timezones import TIMEZONE_OFFSET_FROM_UTC, zone_of_offset
from pacs.errors import FramesNotExtractable, NotTimeBased

FRAME_TIME, FRAME_TIME_VECTOR, FRAME_DELAY = 0x00181063, 0x00181065, 0x00181066
CINE_RATE = 0x00180040
_CONTENT_DATE, _CONTENT_TIME = 0x00080023, 0x00080033
_FRAME_CONTENT_SEQUENCE = 0x00209111
#: Most representative first: Frame Reference DateTime, Frame Acquisition DateTime.
_FRAME_DATE_TIMES = (0x00189151, 0x00189074)

# Seconds matter: a date or a minute alone does not tell frames apart.
_DATE_TIME = re.compile(r"([0-9]{12})([0-5][0-9]|60)(?:\.([0-9]{1,6}))?([+-][0-9]{4})?")

#: Where the content of each Item of the Per-Frame Functional Groups Sequence begins, and where it ends.
Groups = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Cine:
    """The times of frames by Frame Time or Frame Time Vector, in milliseconds after the first one."""

    milliseconds: list[float]
    is_vector: bool


def read_cine(layout: Layout, count: int) -> Cine | None:
    """The Cine module's times; None if the instance has none."""
    if layout.entry(FRAME_TIME_VECTOR) is not None:
        increments = [_number(text) for text in layout.value(FRAME_TIME_VECTOR).split(b"\\")]
        if len(increments) != count or not all(math.isfinite(one) for one in increments):
            raise FramesNotExtractable("Frame Time Vector does not have a value for each frame")
        return Cine(list(accumulate([0.0, *increments[1:]])), is_vector=True)
    frame_time = _number(layout.value(FRAME_TIME))
    if not math.isfinite(frame_time):
        return None
    return Cine([frame_time * number for number in range(count)], is_vector=False)


def frame_times(layout: Layout, cine: Cine | None, count: int, groups: Groups) -> list[float]:
    """The times of all frames in seconds after Content Time.

    Raises:
        NotTimeBased: the instance does not say.
    """
    if cine is not None:
        delay = frame_delay(layout)
        return [(delay + one) / 1000 for one in cine.milliseconds]
    if groups:
        return _by_functional_groups(layout, groups)
    rate = _number(layout.value(CINE_RATE))
    if not math.isfinite(rate) or rate <= 0:
        raise NotTimeBased("The SOP Instance does not say when its frames were acquired")
    return [number / rate for number in range(count)]


def frame_delay(layout: Layout) -> float:
    """Milliseconds from Content Time to the first frame; 0 if the instance does not say."""
    delay = _number(layout.value(FRAME_DELAY))
    return delay if math.isfinite(delay) else 0.0


def recorded_zone(layout: Layout) -> timezone | None:
    """Where the instance says it was recorded (PS3.3 C.12.1.1.8)."""
    return zone_of_offset(layout.value(TIMEZONE_OFFSET_FROM_UTC).decode("latin_1"))


def _by_functional_groups(layout: Layout, groups: Groups) -> list[float]:
    zone = recorded_zone(layout)
    start = _date_time(layout.value(_CONTENT_DATE) + layout.value(_CONTENT_TIME).strip(), zone)
    times = [_date_time(_of_frame(layout, *group), zone) for group in groups]
    known = [time for time in times if time is not None]
    if start is None or len(known) < len(times):
        raise NotTimeBased("Content Date and Time, or the time of a frame, is not known")
    if len({time.tzinfo is None for time in (start, *known)}) > 1:
        # One of them has no offset from UTC: they are local times of the same place.
        start, known = start.replace(tzinfo=None), [time.replace(tzinfo=None) for time in known]
    return [(time - start).total_seconds() for time in known]


def _of_frame(layout: Layout, begin: int, end: int) -> bytes:
    reader, encoding = layout.reader, layout.encoding
    for header in reader.find({_FRAME_CONTENT_SEQUENCE}, begin, end, encoding):
        for _, content, item_end in reader.items(header, encoding):
            found = {
                one.tag: reader.value(one)
                for one in reader.find(_FRAME_DATE_TIMES, content, item_end, encoding)
            }
            return next((found[tag] for tag in _FRAME_DATE_TIMES if found.get(tag)), b"")
    return b""


def _date_time(value: bytes, zone: timezone | None) -> datetime | None:
    # By hand: pydicom reports a leap second through warnings, which belong to the process.
    match = _DATE_TIME.fullmatch(value.decode("latin_1").strip(" \0"))
    if match is None:
        return None
    minute, seconds, fraction, offset = match.groups()
    elapsed = timedelta(seconds=int(seconds), microseconds=int((fraction or "").ljust(6, "0")))
    try:
        start = datetime.strptime(minute, "%Y%m%d%H%M")  # noqa: DTZ007 - the offset is added below
        return start.replace(tzinfo=zone_of_offset(offset) if offset else zone) + elapsed
    except (ValueError, OverflowError):
        return None


def _number(value: bytes) -> float:
    try:
        return float(value.decode("latin_1").strip(" \0"))
    except ValueError:
        return math.nan
