"""Timezone query adjustment: a query in a time zone of its own (PS3.4 C.2.2.2, C.2.2.2.1.3, C.5.1.1)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.presentation import build_context

from pacs.cli.query import find_command
from tests.factories import make_instance
from tests.peers import (
    STUDY_ROOT_FIND,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    listen,
    responses,
    settled_file,
    stock_ae,
    stop_listening,
)
from tests.serving import Serve, engine_on_sqlite, on_sqlite

SUCCESS, CANCEL, PENDING, PENDING_NOT_SUPPORTED, NOT_MATCHING = 0, 0xFE00, 0xFF00, 0xFF01, 0xA900
OUT_OF_RESOURCES = 0xA700
TIMEZONE = 0x00080201
BOTH = b"\x00\x01\x00\x01"  # combined date and time matching as well
ALL = b"\x01\x01\x01\x01"


def item(field: bytes) -> SOPClassExtendedNegotiation:
    """A SOP Class Extended Negotiation item for Study Root FIND."""
    negotiation = SOPClassExtendedNegotiation()
    negotiation.sop_class_uid = STUDY_ROOT_FIND
    negotiation.service_class_application_information = field
    return negotiation


def find(
    service: RunningArchive, query: Dataset, field: bytes = b"\x00\x00\x00\x01"
) -> list[Response]:
    """A C-FIND after negotiating ``field``."""
    with association(service, STUDY_ROOT_FIND, items=[item(field)] if field else []) as assoc:
        accepted = assoc.acceptor.sop_class_extended.get(STUDY_ROOT_FIND, b"")
        assert accepted == field
        return responses(assoc.send_c_find(query, STUDY_ROOT_FIND))


def found(answered: list[Response], keyword: str = "StudyID") -> list[str]:
    """The values of one key in the matches, sorted."""
    assert answered[-1].status == SUCCESS, answered[-1]
    return sorted(str(one.identifier[keyword].value) for one in answered if one.identifier)


def asked(offset: str | None = "+0000", level: str = "STUDY", **keys: Any) -> Dataset:
    """A request in a time zone."""
    query = identifier(level, **({"StudyID": ""} if level == "STUDY" else {}) | keys)
    if offset is not None:
        query.add_new(TIMEZONE, "SH", offset)
    return query


def study(name: str, date: str, time: str, zone: str | None, **keywords: Any) -> Dataset:
    """A study of one instance, recorded in ``zone``."""
    uid = "1.2." + ".".join(str(ord(letter)) for letter in name)
    return make_instance(
        **{
            "PatientID": name,
            "StudyID": name,
            "StudyInstanceUID": uid,
            "SeriesInstanceUID": f"{uid}.1",
            "SOPInstanceUID": f"{uid}.1.1",
            "StudyDate": date,
            "StudyTime": time,
            "TimezoneOffsetFromUTC": zone,
        }
        | keywords
    )


@pytest.fixture
def world(serve: Serve) -> RunningArchive:
    """Studies named for where they were recorded; the archive is in Berlin."""
    service = serve(timezone="Europe/Berlin")
    deposit(
        service.archive,
        study("tokyo", "20240705", "0300", "+0900"),  # July 4, 18:00 UTC
        study("utc", "20240705", "0300", "+0000"),
        study("ny", "20240704", "2230", "-0400"),  # July 5, 02:30 UTC
        study("summer", "20240705", "0130", None),  # July 4, 23:30 UTC
        study("winter", "20240105", "0030", None),  # January 4, 23:30 UTC
        study("dateonly", "20240705", "", "+0900"),
        study("hostile", "20240705", "0130", "+9999"),  # as "summer"
        study("utc0", "20240705", "1200", "-0000"),
    )
    return service


@pytest.mark.parametrize(
    ("offset", "keys", "names"),
    [
        ("+0000", {"StudyDate": "20240705"}, ["dateonly", "ny", "utc", "utc0"]),
        ("+0000", {"StudyDate": "20240704"}, ["hostile", "summer", "tokyo"]),
        ("+0900", {"StudyDate": "20240705", "StudyTime": "0300"}, ["tokyo"]),
        ("-0400", {"StudyDate": "20240704", "StudyTime": "2200-"}, ["ny", "utc"]),
        # A moment in Berlin, by daylight saving time and without it.
        ("+0000", {"StudyTime": "2330"}, ["hostile", "summer", "winter"]),
        ("+0200", {"StudyDate": "20240705", "StudyTime": "0130"}, ["hostile", "summer"]),
        ("+0100", {"StudyDate": "20240105", "StudyTime": "0030"}, ["winter"]),
        # The two ends of the world are 26 hours apart.
        ("+1400", {"StudyDate": "20240706"}, ["utc0"]),
        ("-1200", {"StudyDate": "-20240703"}, ["winter"]),
        ("+0000", {"StudyDate": "20240705-20240706", "StudyTime": "-0230"}, ["ny"]),
    ],
    ids=str,
)
def test_keys_are_in_the_time_zone_of_the_request(
    world: RunningArchive, offset: str, keys: dict[str, str], names: list[str]
) -> None:
    """PS3.4 C.2.2.2.1.3: a time and its date are adjusted; a date without a time is not."""
    assert found(find(world, asked(offset, **keys))) == names


@pytest.mark.parametrize(
    ("dates", "times", "names"),
    [
        ("20240704-20240705", "1800-0230", ["hostile", "ny", "summer", "tokyo"]),
        ("20240705-", "0300-", ["utc", "utc0"]),
        ("-20240704", "-1800", ["tokyo", "winter"]),
    ],
)
def test_combined_range_is_in_the_time_zone_of_the_request(
    world: RunningArchive, dates: str, times: str, names: list[str]
) -> None:
    """PS3.4 C.2.2.2.5.4, note: the offset may effect a change in date."""
    query = asked(StudyDate=dates, StudyTime=times)

    assert found(find(world, query, BOTH)) == names


def test_responses_are_in_the_time_zone_of_the_request_and_say_so(world: RunningArchive) -> None:
    """PS3.4 C.2.2.2: it says how values of the Response Identifiers are interpreted."""
    answered = find(world, asked("+0900", StudyDate="", StudyTime="", PatientBirthDate=""))

    returned = {
        one.identifier.StudyID: (one.identifier.StudyDate, one.identifier.StudyTime)
        for one in answered
        if one.identifier is not None
    }
    assert returned == {
        "tokyo": ("20240705", "0300"),
        "utc": ("20240705", "1200"),
        "ny": ("20240705", "1130"),
        "summer": ("20240705", "0830"),
        "winter": ("20240105", "0830"),
        "dateonly": ("20240705", ""),
        "hostile": ("20240705", "0830"),
        "utc0": ("20240705", "2100"),
    }
    identifiers = [one.identifier for one in answered if one.identifier is not None]
    assert {one.TimezoneOffsetFromUTC for one in identifiers} == {"+0900"}
    assert {one.PatientBirthDate for one in identifiers} == {"19700101"}
    assert {one.status for one in answered[:-1]} == {PENDING}


def test_half_of_a_pair_is_moved_as_well_and_the_other_is_not_returned(
    world: RunningArchive,
) -> None:
    [dated, _] = find(world, asked("+0000", StudyDate="", PatientID="tokyo"), ALL)
    [timed, _] = find(world, asked("+0000", StudyTime="", PatientID="tokyo"), ALL)

    assert dated.identifier is not None
    assert timed.identifier is not None
    assert (dated.identifier.StudyDate, "StudyTime" in dated.identifier) == ("20240704", False)
    assert (timed.identifier.StudyTime, "StudyDate" in timed.identifier) == ("1800", False)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (asked("+0900", StudyDate="20240705", StudyTime=""), b""),
        (asked("+0900", StudyDate="20240705", StudyTime=""), b"\x01\x01\x01\x00"),
        (asked(None, StudyDate="20240705", StudyTime=""), ALL),
        (asked("", StudyDate="20240705", StudyTime=""), ALL),
        (asked("+9999", StudyDate="20240705", StudyTime=""), b""),
    ],
    ids=["not negotiated", "turned down", "without", "empty", "hostile, not negotiated"],
)
def test_without_agreement_or_offset_all_is_as_recorded(
    world: RunningArchive, query: Dataset, field: bytes
) -> None:
    """PS3.4 C.2.2.2.1.3: the Attribute is present, and it was negotiated."""
    answered = find(world, query, field)

    assert found(answered) == ["dateonly", "hostile", "summer", "tokyo", "utc", "utc0"]
    assert "0300" in found(answered, "StudyTime")
    assert not any(TIMEZONE in one.identifier for one in answered if one.identifier)


@pytest.mark.parametrize(
    "offset",
    [
        "+1500",
        "-1201",
        "+0060",
        "0100",
        "+01:00",
        "-0000",
        "Z",
        "+0100\\+0200",
        "*",
        "+" + "0" * 9000,
    ],
)
@on_sqlite
def test_offset_that_is_none_is_refused(world: RunningArchive, offset: str) -> None:
    """PS3.3 C.12.1.1.8, PS3.4 C.4.1.1.4: A900 names the element."""
    with association(world, STUDY_ROOT_FIND, items=[item(ALL)]) as assoc:
        query = identifier("STUDY", StudyDate="20240705")
        query.add_new(TIMEZONE, "UT", offset)
        [refused] = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))

    assert (refused.status, refused.offending) == (NOT_MATCHING, (TIMEZONE,))
    assert refused.comment.startswith("TimezoneOffsetFromUTC (0008,0201)")


@pytest.fixture
def moments(service: RunningArchive) -> RunningArchive:
    """Instances of one series, and what only their headers have."""
    recorded = [
        ("1", "20240705103000", "+0900"),
        ("2", "20240705103000+0100", "+0900"),
        ("3", "20240705013000", "+0000"),
    ]
    deposit(
        service.archive,
        *(
            study(
                "s",
                "20240705",
                "1030",
                zone,
                SOPInstanceUID=f"1.2.115.1.{number}",
                InstanceNumber=number,
                AcquisitionDateTime=moment,
                DateOfSecondaryCapture="20240705",
                TimeOfSecondaryCapture="0130",
                ExposureTime="5",
                CalibrationDateTime=moment,
            )
            for number, moment, zone in recorded
        ),
    )
    return service


IMAGES = {
    "level": "IMAGE",
    "StudyInstanceUID": "1.2.115",
    "SeriesInstanceUID": "1.2.115.1",
    "InstanceNumber": "",
}


@pytest.mark.parametrize(
    ("offset", "key", "numbers"),
    [
        ("+0900", "20240705103000", ["1", "3"]),
        ("+0000", "20240705013000", ["1", "3"]),
        ("-0330", "20240704220000", ["1", "3"]),
        ("-0330", "20240704215959-20240704220001", ["1", "3"]),
        ("-0330", "20240704220001-", ["2"]),
        ("-0330", "-20240704220001", ["1", "3"]),
        # The key's own offset wins.
        ("+0900", "20240705103000+0100", ["2"]),
    ],
)
def test_date_times_without_an_offset_get_that_of_their_place(
    moments: RunningArchive, offset: str, key: str, numbers: list[str]
) -> None:
    """PS3.4 C.2.2.2, C.2.2.2.1.3: values of VR DT that do not specify an offset."""
    answered = find(moments, asked(offset, **IMAGES, AcquisitionDateTime=key))

    assert found(answered, "InstanceNumber") == numbers
    returned = found(
        find(moments, asked(offset, **IMAGES, AcquisitionDateTime="")), "AcquisitionDateTime"
    )
    assert returned == ["20240705013000+0000", "20240705103000+0100", "20240705103000+0900"]


def test_times_that_only_the_header_has_are_moved_too(moments: RunningArchive) -> None:
    """All times of the Response Identifier are in the zone that it names (PS3.4 C.2.2.2)."""
    query = asked("+0000", **IMAGES, DateOfSecondaryCapture="", ExposureTime="")

    answered = find(moments, query)

    assert found(answered, "DateOfSecondaryCapture") == ["20240704", "20240704", "20240705"]
    assert {one.status for one in answered[:-1]} == {PENDING}
    identifiers = [one.identifier for one in answered if one.identifier is not None]
    assert {str(one.ExposureTime) for one in identifiers} == {"5"}
    assert not any("TimeOfSecondaryCapture" in one for one in identifiers)


@pytest.mark.parametrize(
    ("offset", "keys", "numbers"),
    [
        ("+0000", {"DateOfSecondaryCapture": "20240704"}, ["1", "2"]),
        ("+0900", {"DateOfSecondaryCapture": "20240705"}, ["1", "2", "3"]),
        ("+0000", {"TimeOfSecondaryCapture": "1600-1700"}, ["1", "2"]),
        ("-0330", {"TimeOfSecondaryCapture": "2200"}, ["3"]),
        ("+0000", {"DateOfSecondaryCapture": "20240704-", "ExposureTime": "5"}, ["1", "2", "3"]),
        ("+0000", {"DateOfSecondaryCapture": "20240704", "ExposureTime": "6"}, []),
        ("+0000", {"AcquisitionDate": "20240704", "DateOfSecondaryCapture": "20240704"}, []),
        ("+0000", {"CalibrationDateTime": "20240705013000"}, ["1", "3"]),
        ("-0330", {"CalibrationDateTime": "20240704220001-"}, ["2"]),
    ],
    ids=str,
)
def test_times_that_only_the_header_has_are_matched_in_the_zone_of_the_request(
    moments: RunningArchive, offset: str, keys: dict[str, str], numbers: list[str]
) -> None:
    """PS3.4 C.2.2.1.3: an optional key is processed as those of the index are."""
    answered = find(moments, asked(offset, **IMAGES, **keys))

    assert found(answered, "InstanceNumber") == numbers
    assert {one.status for one in answered[:-1]} <= {PENDING}


@on_sqlite
def test_what_has_no_time_is_unknown_in_each_zone(serve: Serve) -> None:
    """PS3.4 C.2.2.1.2."""
    service = serve(match_unknown=True)
    deposit(
        service.archive,
        study("1", "20240705", "0300", "+0900", TimeOfSecondaryCapture="1200", InstanceNumber="1"),
    )
    uids = {"StudyInstanceUID": "1.2.49", "SeriesInstanceUID": "1.2.49.1"}

    def numbers(**keys: str) -> list[str]:
        query = asked("+0000", **(IMAGES | uids), **keys)
        return found(find(service, query), "InstanceNumber")

    assert numbers(DateOfSecondaryCapture="20240704") == ["1"]
    assert numbers(AcquisitionDate="20240704") == ["1"]
    assert numbers(TimeOfSecondaryCapture="0300") == ["1"]
    assert numbers(TimeOfSecondaryCapture="1200") == []


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, (2, SUCCESS)), (3, (2, SUCCESS)), (2, (1, OUT_OF_RESOURCES))]
)
def test_limit_of_headers_counts_those_of_a_time_zone(
    serve: Serve, limit: int, expected: tuple[int, int]
) -> None:
    """PS3.4 C.4.1.1.4, A700: the matches among so many candidates have been sent."""
    service = serve(find_header_limit=limit)
    deposit(
        service.archive,
        study("a", "20240705", "0300", "+0900"),
        study("b", "20240705", "0300", "+0000"),
        study("c", "20240705", "0301", "+0900"),
    )

    *matched, final = find(service, asked("+0000", StudyDate="20240704"))
    *returned, last = find(service, asked("+0000", StudyDate=""))

    assert (len(matched), final.status) == expected
    assert (len(returned), last.status) == (3, SUCCESS)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (asked("+0000", StudyDate="20240705", StudyTime=""), BOTH[:3] + b"\x00"),
        (asked(None, StudyDate="20240705", StudyTime=""), ALL),
        (asked("+0000", StudyDescription=""), ALL),
    ],
    ids=["not negotiated", "no offset", "no times"],
)
def test_without_times_in_a_zone_no_file_is_read(
    world: RunningArchive, monkeypatch: pytest.MonkeyPatch, query: Dataset, field: bytes
) -> None:
    def fail(_self: Any, location: str) -> None:
        raise AssertionError(location)

    monkeypatch.setattr(type(world.archive.storage), "open", fail)

    assert {one.status for one in find(world, query, field)[:-1]} == {PENDING}


@on_sqlite
def test_two_days_lie_between_the_two_ends_of_the_world(service: RunningArchive) -> None:
    deposit(service.archive, study("kiritimati", "20240706", "0030", "+1400"))

    assert found(find(service, asked("-1200", StudyDate="20240704"))) == ["kiritimati"]


@on_sqlite
def test_birth_date_and_time_are_as_recorded(service: RunningArchive) -> None:
    """They identify the patient, whoever asks."""
    born = {"PatientBirthDate": "19700101", "PatientBirthTime": "0300"}
    deposit(service.archive, study("s", "20240705", "0300", "+0900", **born))

    [answered, _] = find(service, asked("+0000", StudyTime="", **born), ALL)

    assert answered.identifier is not None
    assert answered.identifier.StudyTime == "1800"
    assert answered.identifier.PatientBirthDate == "19700101"
    assert answered.identifier.PatientBirthTime == "0300"


@on_sqlite
def test_items_and_private_values_are_as_recorded(service: RunningArchive) -> None:
    moment = "20240705103000"
    stored = study("s", "20240705", "0300", "+0900")
    stored.ProcedureCodeSequence = [Dataset()]
    stored.ProcedureCodeSequence[0].ContextGroupVersion = moment
    stored.private_block(0x0029, "ACME", create=True).add_new(0x01, "DT", moment)
    deposit(service.archive, stored)
    query = asked("+0900", "IMAGE", StudyInstanceUID="1.2.115", StudyTime="")
    query.ProcedureCodeSequence = [Dataset()]
    query.ProcedureCodeSequence[0].ContextGroupVersion = moment
    query.private_block(0x0029, "ACME", create=True).add_new(0x01, "DT", None)

    [answered, _] = find(service, query, ALL)

    assert answered.identifier is not None
    assert answered.identifier.ProcedureCodeSequence[0].ContextGroupVersion == moment
    assert answered.identifier[0x00291001].value == moment


@on_sqlite
def test_date_too_long_to_be_read_is_not_matched(service: RunningArchive) -> None:
    """As without an adjustment: nobody knows whether it matches (PS3.4 C.2.2.1.3)."""
    stored = study("s", "20240705", "0300", "+0900", DateOfSecondaryCapture="1" * 70_000)
    deposit(service.archive, stored, transfer_syntax_uid=ImplicitVRLittleEndian)
    uids = {"StudyInstanceUID": "1.2.115", "SeriesInstanceUID": "1.2.115.1"}

    [answered, _] = find(
        service, asked("+0000", **(IMAGES | uids), DateOfSecondaryCapture="20240705")
    )

    assert answered.status == PENDING_NOT_SUPPORTED


def test_instance_received_last_says_where_an_entity_was_recorded(service: RunningArchive) -> None:
    deposit(
        service.archive,
        study("s", "20240705", "0300", "+0000"),
        study("s", "20240705", "0300", "+0900", SOPInstanceUID="1.2.115.1.2"),
    )

    assert found(find(service, asked("+0000", StudyDate="", StudyTime="")), "StudyTime") == ["1800"]


@on_sqlite
def test_entity_whose_file_cannot_be_read_counts_as_in_the_archive_s_zone(serve: Serve) -> None:
    service = serve(timezone="+0200")
    deposit(service.archive, study("s", "20240705", "0130", "+0900"))
    settled_file(service.archive, "1.2.115.1.1").unlink()

    [answered, _] = find(service, asked("+0000", StudyDate="20240704", StudyTime="2330"))

    assert answered.status == PENDING_NOT_SUPPORTED


@on_sqlite
def test_relational_keys_below_the_level_are_matched_as_recorded(service: RunningArchive) -> None:
    deposit(
        service.archive,
        study(
            "s",
            "20240705",
            "0300",
            "+0900",
            SeriesDate="20240705",
            SeriesTime="0300",
            AcquisitionDateTime="202407050300",
        ),
    )

    answered = find(service, asked("+0000", StudyDate="20240704", SeriesDate="20240705"), ALL)
    by_moment = asked("-0500", AcquisitionDateTime="202407050300")
    above = asked("+0000", "SERIES", StudyDate="20240704", StudyTime="", Modality="CT")

    assert found(answered) == ["s"]
    assert found(find(service, by_moment, ALL)) == ["s"]
    assert found(find(service, above, ALL), "StudyTime") == ["1800"]


@engine_on_sqlite
def test_cancel_ends_a_search_in_which_nothing_matches(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PS3.4 C.4.1.1.4: between two matches there may be many candidates."""
    service = serve()
    deposit(
        service.archive,
        *(study(f"s{number:03}", "20240705", "0300", "+0000") for number in range(40)),
    )
    storage = type(service.archive.storage)
    opened = storage.open
    is_cancelled = threading.Event()
    read: list[str] = []

    def open_after_the_cancel(self: Any, location: str) -> Any:
        read.append(location)
        assert is_cancelled.wait(5)
        return opened(self, location)

    monkeypatch.setattr(storage, "open", open_after_the_cancel)
    with association(service, STUDY_ROOT_FIND, items=[item(ALL)]) as assoc:
        query = asked("+0000", StudyDate="20240704")
        answers = assoc.send_c_find(query, STUDY_ROOT_FIND, msg_id=7)
        assoc.send_c_cancel(7, query_model=STUDY_ROOT_FIND)
        is_cancelled.set()
        [final] = responses(answers)

    assert final.status == CANCEL
    assert len(read) <= 2


# Our client


def test_command_line_asks_in_a_time_zone(world: RunningArchive) -> None:
    arguments = [f"PACS@127.0.0.1:{world.port}", "StudyDate=20240704", "StudyTime", "--json"]

    plain = CliRunner().invoke(find_command, arguments)
    zoned = CliRunner().invoke(find_command, [*arguments, "--timezone", "-0400"])

    assert (plain.exit_code, zoned.exit_code) == (0, 0)
    assert [one["00080030"]["Value"] for one in json.loads(plain.stdout)] == [["2230"]]
    times = sorted(one["00080030"]["Value"][0] for one in json.loads(zoned.stdout))
    assert times == ["1400", "1930", "1930", "2230", "2300"]


@pytest.mark.parametrize(("answer", "sent"), [(b"\x00\x00\x00\x01", "+0900"), (b"\x00" * 4, None)])
def test_command_line_sends_a_zone_only_to_a_peer_that_adjusts(
    answer: bytes, sent: str | None
) -> None:
    """PS3.4 C.5.1.1: without the agreement others might take it for a key."""
    zones: list[str | None] = []

    def on_find(event: Any) -> Iterator[tuple[int, None]]:
        zones.append(event.identifier.get("TimezoneOffsetFromUTC"))
        yield SUCCESS, None

    ae = stock_ae("PEER")
    ae.supported_contexts = [build_context(STUDY_ROOT_FIND)]
    bound = [
        (evt.EVT_C_FIND, on_find),
        (evt.EVT_SOP_EXTENDED, lambda event: dict.fromkeys(event.app_info, answer)),
    ]
    server = listen(ae, bound, "PEER")
    try:
        arguments = [f"PEER@127.0.0.1:{server.server_address[1]}", "--timezone", "+0900"]
        answered = CliRunner().invoke(find_command, arguments)
    finally:
        stop_listening(ae, server)

    assert (answered.exit_code, zones) == (0, [sent])


@on_sqlite
def test_command_line_refuses_what_is_no_offset(world: RunningArchive) -> None:
    for offset in ("Berlin", ""):
        arguments = [f"PACS@127.0.0.1:{world.port}", "StudyDate", "--timezone", offset]
        refused = CliRunner().invoke(find_command, arguments)

        assert refused.exit_code != 0
        assert "0008,0201" in str(refused.exception) + refused.output
