"""Time zones, and values moved from one to another (PS3.3 C.12.1.1.8)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta, timezone

import pytest

from pacs.dicom.text.timezones import moved, with_offset_of, zone_named, zone_of_offset

UTC = timezone.utc  # noqa: UP017 - a timezone, as the target has to be, not a tzinfo
PLUS_9 = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("+0100", 60),
        ("-0530", -330),
        ("+1400", 840),
        ("-1200", -720),
        ("+0000", 0),
        ("-0330 ", -210),
    ],
)
def test_offset_is_read(text: str, minutes: int) -> None:
    assert zone_of_offset(text) == timezone(timedelta(minutes=minutes))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0100",
        "+01:00",
        "+1401",
        "-1201",
        "+0060",
        "+100",
        "+01000",
        "Z",
        "+०१००",
        "Europe/Berlin",
    ],
)
def test_what_is_no_offset_is_none(text: str) -> None:
    assert zone_of_offset(text) is None


@pytest.mark.parametrize(
    ("source", "date", "time", "expected"),
    [
        ("+0000", "20240705", "2330", ("20240706", "0830")),
        ("+0000", "20241231", "153000.123456", ("20250101", "003000.123456")),
        ("+1400", "20240301", "0200", ("20240229", "2100")),
        # As precise as it was, unless the minutes are needed.
        ("+0000", "20240705", "10", ("20240705", "19")),
        ("+0530", "20240705", "10", ("20240705", "1330")),
        ("+0000", "20240705", "10:15:30", ("20240705", "191530")),
        ("+0000", "20161231", "235960", ("20170101", "085960")),
        ("+0900", "2024.07.05", "10:15", ("2024.07.05", "10:15")),
        # Without a date: within its day.
        ("+0000", "", "2330", ("", "0830")),
        ("Europe/Berlin", "", "2330", ("", "2330")),
        # No moment, or none in the calendar.
        ("+0000", "20240230", "1000", ("20240230", "1000")),
        ("+0000", "19500000", "1000", ("19500000", "1000")),
        ("+0000", "20240705", "noon", ("20240705", "noon")),
        ("+0000", "99991231", "2330", ("99991231", "2330")),
        # Summer and winter, and the local mean time before there were zones.
        ("Europe/Berlin", "20240705", "1000", ("20240705", "1700")),
        ("Europe/Berlin", "20240105", "1000", ("20240105", "1800")),
        ("Europe/Berlin", "18800105", "1000", ("18800105", "1807")),
    ],
)
def test_date_and_time_are_moved_together(
    source: str, date: str, time: str, expected: tuple[str, str]
) -> None:
    """PS3.3 C.12.1.1.8, note: the corrected time may cross a 24 hour boundary."""
    assert moved(date, time, zone_named(source), PLUS_9) == expected


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("+0100", "20240705103000", "20240705103000+0100"),
        ("-0330", "2024", "2024-0330"),
        ("Europe/Berlin", "202407051030", "202407051030+0200"),
        ("Europe/Berlin", "202401051030", "202401051030+0100"),
        ("+0100", "20240705103000-0500", "20240705103000-0500"),
        ("+0100", "yesterday", "yesterday"),
    ],
)
def test_date_time_says_where_it_was_recorded(source: str, text: str, expected: str) -> None:
    assert with_offset_of(text, zone_named(source)) == expected


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The system's zone is that of Berlin."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_local_zone_is_the_system_s_with_its_daylight_saving_time() -> None:
    assert moved("20240705", "1000", zone_named("local"), UTC) == ("20240705", "0800")
    assert moved("20240105", "1000", zone_named("local"), UTC) == ("20240105", "0900")
    assert moved("00010101", "0000", zone_named("local"), UTC)[0] == "00010101"


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "+2500", "a\0b"]
)
def test_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        zone_named(name)
