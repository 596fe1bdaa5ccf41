"""SOP Class Extended Negotiation of Query/Retrieve, and what it changes (PS3.4 C.5, PS3.7 D.3.3.5)."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pynetdicom import evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from pacs.cli.query import find_command
from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.query_options import QueryOptions
from pacs.dimse import query_scu
from pacs.dimse.ae import Options
from pacs.dimse.peer import Peer
from pacs.errors import DestinationUnreachable
from tests.dimse.retrieving import Retriever
from tests.factories import make_instance
from tests.peers import (
    PATIENT_ROOT_FIND,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    Response,
    RunningArchive,
    association,
    deposit,
    identifier,
    listen,
    responses,
    stock_ae,
    stop_listening,
)
from tests.serving import Serve, engine_on_sqlite, on_sqlite

SUCCESS, PENDING, PENDING_NOT_SUPPORTED, NOT_MATCHING = 0x0000, 0xFF00, 0xFF01, 0xA900
STUDY_A, STUDY_B = "1.2.276.1.1", "1.2.276.1.2"
COMPOSITE_INSTANCE_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"
WITHOUT_BULK_DATA_GET = "1.2.840.10008.5.1.4.1.2.5.3"
OPTIONS = Options(ae_title="TESTSCU", acse_timeout_seconds=5, dimse_timeout_seconds=5)
STUDY_ROOT = InformationModel.STUDY_ROOT


def item(uid: str, field: bytes) -> SOPClassExtendedNegotiation:
    """A SOP Class Extended Negotiation item."""
    negotiation = SOPClassExtendedNegotiation()
    negotiation.sop_class_uid = uid
    negotiation.service_class_application_information = field
    return negotiation


def answers(service: RunningArchive, uid: str, *items: Any) -> dict[str, bytes]:
    """What the archive answers to these items."""
    with association(service, uid, items=items) as assoc:
        return {str(key): field for key, field in assoc.acceptor.sop_class_extended.items()}


def find(service: RunningArchive, query: Dataset, field: bytes = b"") -> list[Response]:
    """A Study Root C-FIND after negotiating ``field``."""
    items = [item(STUDY_ROOT_FIND, field)] if field else []
    with association(service, STUDY_ROOT_FIND, items=items) as assoc:
        return responses(assoc.send_c_find(query, STUDY_ROOT_FIND))


def found(answered: list[Response], keyword: str = "StudyInstanceUID") -> list[str]:
    """The values of one key in the matches, sorted."""
    assert answered[-1].status == SUCCESS, answered[-1]
    return sorted(str(one.identifier[keyword].value) for one in answered if one.identifier)


@pytest.fixture
def library(service: RunningArchive) -> RunningArchive:
    """Two patients: a CT of two images with a report, and an MR."""
    jane = {
        "PatientID": "P-1",
        "PatientName": "Doe^Jane",
        "StudyInstanceUID": STUDY_A,
        "StudyDate": "20240101",
    }
    john = {"PatientID": "P-2", "PatientName": "Roe^John", "StudyInstanceUID": STUDY_B}
    of_ct = {"SeriesInstanceUID": f"{STUDY_A}.1", "Rows": 512, "ImageType": ["ORIGINAL", "AXIAL"]}
    of_mr = {"SeriesInstanceUID": f"{STUDY_B}.1", "Rows": 256, "ImageType": ["DERIVED", "AXIAL"]}
    deposit(
        service.archive,
        make_instance(**jane, **of_ct, SOPInstanceUID=f"{STUDY_A}.1.1"),
        make_instance(**jane, **of_ct, SOPInstanceUID=f"{STUDY_A}.1.2", InstanceNumber=2),
        make_instance(
            **jane,
            Modality="SR",
            SeriesInstanceUID=f"{STUDY_A}.2",
            SOPInstanceUID=f"{STUDY_A}.2.1",
            Rows=256,
            ImageType=["DERIVED", "AXIAL"],
        ),
        make_instance(**john, **of_mr, Modality="MR", SOPInstanceUID=f"{STUDY_B}.1.1"),
    )
    return service


# Negotiation


@pytest.mark.parametrize(
    ("uid", "proposed", "answered"),
    [
        (STUDY_ROOT_FIND, b"\x01", b"\x01"),
        (STUDY_ROOT_FIND, b"\x00", b"\x00"),
        (PATIENT_ROOT_FIND, b"\x01\x00\x00\x00\x01", b"\x01\x00\x00\x00\x00"),
        (STUDY_ROOT_FIND, b"\x01\x00\x00\x00\x01\x01\x01", b"\x01\x00\x00\x00\x00\x01\x01"),
        (STUDY_ROOT_FIND, b"\x01" + bytes(300), b"\x01" + bytes(6)),
        (STUDY_ROOT_FIND, b"\x00\x01", b"\x00\x01"),
        (STUDY_ROOT_FIND, b"\x01\x01\x01\x01\x01", b"\x01\x01\x01\x01\x00"),
        (STUDY_ROOT_FIND, b"\xff", b"\x00"),
        (STUDY_ROOT_MOVE, b"\x01", b"\x01"),
        (STUDY_ROOT_MOVE, b"\x01\x01", b"\x01\x00"),
        (STUDY_ROOT_GET, b"\x01\x01\x01", b"\x01\x00"),
        (STUDY_ROOT_GET, b"\x02", b"\x00"),
        # Annex Y.5.1: no relational retrieval there.
        (COMPOSITE_INSTANCE_ROOT_MOVE, b"\x01\x01", b"\x00\x00"),
        (WITHOUT_BULK_DATA_GET, b"\x01", b"\x00"),
    ],
)
@on_sqlite
def test_proposal_is_answered_byte_by_byte(
    service: RunningArchive, uid: str, proposed: bytes, answered: bytes
) -> None:
    """PS3.4 C.5.1.1, C.5.2.1, C.5.3.1: no more bytes than asked, 0 for what is turned down."""
    assert answers(service, uid, item(uid, proposed)) == {uid: answered}


@on_sqlite
def test_without_a_proposal_nothing_is_answered(service: RunningArchive) -> None:
    assert answers(service, STUDY_ROOT_FIND) == {}


@on_sqlite
def test_proposal_without_presentation_context_or_for_another_service_is_not_answered(
    service: RunningArchive,
) -> None:
    proposed = [item(STUDY_ROOT_MOVE, b"\x01"), item(CTImageStorage, b"\x02\x00\x02\x00\x00\x00")]

    assert answers(service, STUDY_ROOT_FIND, *proposed) == {}


@on_sqlite
def test_setting_turns_the_proposal_down(serve: Serve) -> None:
    service = serve(extended_negotiation=())

    assert answers(service, STUDY_ROOT_FIND, item(STUDY_ROOT_FIND, b"\x01")) == {
        STUDY_ROOT_FIND: b"\x00"
    }


@on_sqlite
def test_association_that_comes_again_is_answered_alike_and_shares_nothing(
    library: RunningArchive,
) -> None:
    """The engine remembers A-ASSOCIATE-RQs; what is agreed belongs to one association."""
    query = identifier("SERIES", Modality="MR")

    statuses = [
        find(library, query, field)[-1].status for field in (b"\x01", b"", b"\x01", b"\x00")
    ]

    assert statuses == [SUCCESS, NOT_MATCHING, SUCCESS, NOT_MATCHING]


@pytest.mark.parametrize("uid_length", [0, 3, 60, 65_535])
@engine_on_sqlite
def test_item_whose_uid_length_lies_does_no_harm(library: RunningArchive, uid_length: int) -> None:
    """PS3.7 Table D.3-11: that association may fail; the archive goes on."""
    sent: list[bytes] = []
    bound = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    items = [item(STUDY_ROOT_FIND, b"\x01")]
    with association(library, STUDY_ROOT_FIND, items=items, bound=bound):
        good = struct.pack(">H", len(STUDY_ROOT_FIND)) + STUDY_ROOT_FIND.encode()
    assert sent[0].count(good + b"\x01") == 1

    with socket.create_connection(("127.0.0.1", library.port), timeout=10) as raw:
        bad = struct.pack(">H", uid_length) + good[2:]
        raw.sendall(sent[0].replace(good + b"\x01", bad + b"\x01"))
        assert raw.recv(1)[0] in (0x02, 0x07)  # A-ASSOCIATE-AC or A-ABORT

    assert found(find(library, identifier("SERIES", Modality="MR"), b"\x01")) == [STUDY_B]


# Relational queries


def test_relational_query_needs_no_keys_above(library: RunningArchive) -> None:
    """PS3.4 C.4.1.3.2.1."""
    by_series = find(library, identifier("SERIES", SeriesInstanceUID="", Modality="MR"), b"\x01")
    by_image = find(library, identifier("IMAGE", SOPInstanceUID="", Rows=512), b"\x01")

    assert found(by_series) == [STUDY_B]
    assert found(by_image, "SOPInstanceUID") == [f"{STUDY_A}.1.1", f"{STUDY_A}.1.2"]
    assert {one.status for one in by_image[:-1]} == {PENDING}


def test_relational_query_takes_and_returns_keys_above(library: RunningArchive) -> None:
    """PS3.4 C.4.1.3.2.2 c: with the Attributes of the higher levels."""
    answered = find(
        library, identifier("SERIES", PatientName="doe*", StudyDate="20240101"), b"\x01"
    )

    assert found(answered, "SeriesInstanceUID") == [f"{STUDY_A}.1", f"{STUDY_A}.2"]
    assert found(answered, "PatientName") == ["Doe^Jane", "Doe^Jane"]


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        ({"Modality": "MR"}, [STUDY_B]),
        ({"Modality": "?R"}, [STUDY_A, STUDY_B]),
        ({"Modality": "CT", "Rows": 512}, [STUDY_A]),
        # The report has 256 rows, but it is not the CT: one chain of entities has to match.
        ({"Modality": "CT", "Rows": 256}, []),
        ({"SOPInstanceUID": [f"{STUDY_A}.1.2", f"{STUDY_B}.1.1"]}, [STUDY_A, STUDY_B]),
        # Of several values, which SQL alone cannot match.
        ({"ImageType": "AXIAL"}, [STUDY_A, STUDY_B]),
        ({"ImageType": "ORIGINAL", "Modality": "CT"}, [STUDY_A]),
        ({"ImageType": "ORIGINAL", "Modality": "SR"}, []),
        ({"PatientName": "DOE*", "Modality": "MR"}, []),
    ],
    ids=str,
)
def test_relational_query_matches_keys_below_each_entity_once(
    library: RunningArchive, keys: dict[str, Any], studies: list[str]
) -> None:
    """PS3.4 C.4.1.3.2.1: all keys, regardless of the level; they cannot be returned."""
    answered = find(library, identifier("STUDY", **keys), b"\x01")

    assert found(answered) == studies
    assert {one.status for one in answered[:-1]} <= {PENDING_NOT_SUPPORTED}
    assert not any("Modality" in one.identifier for one in answered if one.identifier)


@pytest.mark.parametrize(
    ("query", "offending"),
    [
        (identifier("SERIES", Modality="MR"), 0x0020000D),
        (identifier("STUDY", Modality="MR"), 0x00080060),
        (identifier("SERIES", StudyInstanceUID=STUDY_A, PatientName="Doe*"), 0x00100010),
    ],
)
@on_sqlite
def test_without_negotiation_a_relational_query_is_refused(
    library: RunningArchive, query: Dataset, offending: int
) -> None:
    """PS3.4 C.4.1.2.2: only what was agreed upon."""
    for field in (b"", b"\x00"):
        [answered] = find(library, query, field)

        assert answered.status == NOT_MATCHING
        assert answered.offending == (offending,)


@on_sqlite
def test_agreement_on_one_sop_class_is_none_on_another(library: RunningArchive) -> None:
    items = [item(PATIENT_ROOT_FIND, b"\x01")]
    with association(library, STUDY_ROOT_FIND, PATIENT_ROOT_FIND, items=items) as assoc:
        query = identifier("SERIES", Modality="MR")
        [refused] = responses(assoc.send_c_find(query, STUDY_ROOT_FIND))
        answered = responses(assoc.send_c_find(query, PATIENT_ROOT_FIND))

    assert refused.status == NOT_MATCHING
    assert found(answered) == [STUDY_B]


# Combined date and time matching


@pytest.fixture
def calendar(service: RunningArchive) -> RunningArchive:
    """Studies by the moment they are named for."""
    moments = [
        ("0704", "2300"),
        ("0705", "0930"),
        ("0705", "1100"),
        ("0706", "0300"),
        ("0706", "2200"),
        ("0707", "1830"),
        ("0707", "2000"),
        ("0706", ""),
        # No dates; one is before all dates in the order of texts, one behind them.
        (".", "1200"),
        ("UNKNOWN", "1200"),
    ]
    deposit(
        service.archive,
        *(
            make_instance(
                PatientID=f"P-{number}",
                StudyInstanceUID=f"1.2.{number}",
                SeriesInstanceUID=f"1.2.{number}.1",
                SOPInstanceUID=f"1.2.{number}.1.1",
                StudyID=date + time,
                StudyDate=f"2024{date}" if date.isdigit() else date,
                StudyTime=time,
            )
            for number, (date, time) in enumerate(moments, start=1)
        ),
    )
    return service


@pytest.mark.parametrize(
    ("dates", "times", "apart", "combined"),
    [
        (
            "20240705-20240707",
            "1000-1800",
            ["07051100"],
            ["07051100", "07060300", "07062200"],
        ),
        ("20240706-", "1900-", ["07062200", "07072000"], ["07062200", "07071830", "07072000"]),
        ("-20240706", "-0400", ["07060300"], ["07042300", "07050930", "07051100", "07060300"]),
        # Not ranges of one form: apart in either case.
        ("20240705-20240706", "1100", ["07051100"], ["07051100"]),
        ("20240706-", "-1000", ["07060300"], ["07060300"]),
        ("20240706", "0100-0400", ["07060300"], ["07060300"]),
    ],
)
def test_ranges_on_date_and_time_are_one_range_when_negotiated(
    calendar: RunningArchive, dates: str, times: str, apart: list[str], combined: list[str]
) -> None:
    """PS3.4 C.2.2.2.5.4."""
    query = identifier("STUDY", StudyID="", StudyDate=dates, StudyTime=times)

    assert found(find(calendar, query), "StudyID") == apart
    assert found(find(calendar, query, b"\x00\x00"), "StudyID") == apart
    assert found(find(calendar, query, b"\x00\x01"), "StudyID") == combined


@on_sqlite
def test_combined_range_may_cross_midnight_and_must_not_end_before_it_begins(
    calendar: RunningArchive,
) -> None:
    night = identifier("STUDY", StudyID="", StudyDate="20240705-20240706", StudyTime="2200-0600")
    reverse = identifier("STUDY", StudyDate="20240706-20240706", StudyTime="2200-0600")

    assert found(find(calendar, night, b"\x00\x01"), "StudyID") == ["07060300"]
    [refused] = find(calendar, reverse, b"\x00\x01")
    assert (refused.status, refused.offending) == (NOT_MATCHING, (0x00080020,))
    assert "and its time end before they begin" in refused.comment


# Fuzzy semantic matching of person names


def test_names_match_by_sound_in_any_order_when_negotiated(library: RunningArchive) -> None:
    """PS3.4 C.2.2.2.1.1; the same key matches literally without the agreement."""
    query = identifier("STUDY", PatientName="Jayne^Doh", ReferringPhysicianName="")

    assert found(find(library, query)) == []
    assert found(find(library, query, b"\x00\x00\x00")) == []
    assert found(find(library, query, b"\x00\x00\x01")) == [STUDY_A]


@on_sqlite
def test_fuzzy_names_and_relational_queries_go_together(library: RunningArchive) -> None:
    query = identifier("SERIES", PatientName="Jon^Row", Modality="MR")

    assert found(find(library, query, b"\x01\x01\x01\x00")) == [STUDY_B]


# Relational retrieval


@pytest.mark.parametrize(
    ("query", "uids"),
    [
        (identifier("SERIES", SeriesInstanceUID=f"{STUDY_A}.2"), [f"{STUDY_A}.2.1"]),
        (
            identifier("IMAGE", SOPInstanceUID=[f"{STUDY_A}.1.2", f"{STUDY_B}.1.1"]),
            [f"{STUDY_A}.1.2", f"{STUDY_B}.1.1"],
        ),
        # What is given above still narrows.
        (identifier("SERIES", SeriesInstanceUID=f"{STUDY_A}.2", StudyInstanceUID=STUDY_B), []),
    ],
    ids=["series", "instances of two studies", "of another study"],
)
def test_relational_retrieve_needs_no_keys_above(
    library: RunningArchive, retriever: Retriever, query: Dataset, uids: list[str]
) -> None:
    """PS3.4 C.4.2.3.2.1, C.4.3.3.2.1."""
    retriever.prepare(library)
    items = [item(retriever.study_root, b"\x01")]

    outcome = retriever.retrieve(library, query, items=items)

    assert outcome.final.status == SUCCESS
    assert sorted(outcome.uids) == uids


@on_sqlite
def test_without_negotiation_a_relational_retrieve_is_refused(
    library: RunningArchive, retriever: Retriever
) -> None:
    """PS3.4 C.4.2.2.2: A900 and the key that is missing."""
    retriever.prepare(library)

    final = retriever.retrieve(library, identifier("SERIES", SeriesInstanceUID="1.2")).final

    assert (final.status, final.offending) == (NOT_MATCHING, (0x0020000D,))


@on_sqlite
def test_query_retrieve_view_is_not_supported(
    library: RunningArchive, retriever: Retriever
) -> None:
    """PS3.4 C.4.1.1.3.1, C.4.2.1.4.1: it needs Enhanced Multi-Frame Image Conversion, answered with 0."""
    retriever.prepare(library)
    view = {"QueryRetrieveView": "ENHANCED", "StudyInstanceUID": STUDY_A}

    answered = find(library, identifier("STUDY", **view), b"\x01\x00\x00\x00\x01")
    refused = retriever.retrieve(
        library, identifier("STUDY", **view), items=[item(retriever.study_root, b"\x01\x01")]
    ).final

    assert [one.status for one in answered] == [PENDING_NOT_SUPPORTED, SUCCESS]
    assert (refused.status, refused.offending) == (NOT_MATCHING, (0x00080053,))


# As a requestor


def _peer(service: RunningArchive) -> Peer:
    return Peer("PACS", "127.0.0.1", service.port)


@on_sqlite
def test_our_requestor_proposes_and_is_answered(library: RunningArchive) -> None:
    query = query_scu.identifier("SERIES", {"Modality": "MR", "SeriesInstanceUID": ""})

    matches = query_scu.find(
        OPTIONS, _peer(library), STUDY_ROOT, query, QueryOptions(relational=True)
    )

    assert [one.SeriesInstanceUID for one in matches] == [f"{STUDY_B}.1"]


def test_our_requestor_says_that_a_peer_does_no_relational_queries() -> None:
    """A stock AE without a handler answers nothing, which turns it down (PS3.4 C.5.1.1)."""
    ae = stock_ae("PEER")
    ae.add_supported_context(STUDY_ROOT_FIND)
    server = listen(ae, [], "PEER")
    peer = Peer("PEER", "127.0.0.1", int(server.server_address[1]))
    try:
        with pytest.raises(DestinationUnreachable, match="does not support relational"):
            list(
                query_scu.find(OPTIONS, peer, STUDY_ROOT, Dataset(), QueryOptions(relational=True))
            )
    finally:
        stop_listening(ae, server)


@on_sqlite
def test_command_line_proposes_relational_queries(library: RunningArchive) -> None:
    arguments = [str(_peer(library)), "-L", "SERIES", "Modality=MR", "SeriesInstanceUID"]

    refused = CliRunner().invoke(find_command, arguments)
    answered = CliRunner().invoke(find_command, [*arguments, "--relational", "--json"])

    assert (refused.exit_code, answered.exit_code) == (1, 0)
    assert f"{STUDY_B}.1" in answered.stdout
