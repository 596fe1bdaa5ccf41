"""What the command line sends, against a running archive (PS3.4 C.4 as SCU)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from pacs.dicom.information_model import InformationModel
from pacs.dicom.query.query_options import QueryOptions
from pacs.dimse.ae import Options
from pacs.dimse.cancellation import Cancellation
from pacs.dimse.peer import Peer
from pacs.dimse.query_scu import echo, find, identifier, move
from pacs.errors import DestinationUnreachable, InvalidIdentifier, InvalidSetting, PeerAborted
from tests.dimse.retrieving import STUDY, store_study
from tests.factories import make_instance
from tests.peers import (
    Destination,
    RunningArchive,
    closed_port,
    deposit,
    fill_index,
    register,
    wait_until,
)
from tests.serving import engine_on_sqlite
from tests.wire.scripted import ScriptedAcceptor, accept
from tests.wire.wire import IMPLICIT, Wire

OPTIONS = Options(ae_title="TESTSCU", acse_timeout_seconds=5, dimse_timeout_seconds=5)
STUDY_ROOT = InformationModel.STUDY_ROOT


def _peer(service: RunningArchive, title: str = "PACS") -> Peer:
    return Peer(title, "127.0.0.1", service.port)


@engine_on_sqlite
def test_echo_of_a_running_archive_says_nothing(service: RunningArchive) -> None:
    echo(OPTIONS, _peer(service))


@engine_on_sqlite
def test_echo_with_a_wrong_title_says_why(service: RunningArchive) -> None:
    with pytest.raises(DestinationUnreachable, match="rejected the association: Called AE title"):
        echo(OPTIONS, _peer(service, "OTHER"))


def test_echo_of_a_closed_port_says_so_and_leaves_no_socket_open() -> None:
    with pytest.raises(DestinationUnreachable, match=r"PACS@127\.0\.0\.1:\d+: Connection refused"):
        echo(OPTIONS, Peer("PACS", "127.0.0.1", closed_port()))


@engine_on_sqlite
def test_find_yields_each_match(service: RunningArchive) -> None:
    fill_index(service.archive, 5)

    found = list(find(OPTIONS, _peer(service), STUDY_ROOT, identifier("STUDY", {"PatientID": ""})))

    assert sorted(one.PatientID for one in found) == [f"Q-{number}" for number in range(5)]


@engine_on_sqlite
@pytest.mark.parametrize(
    ("options", "keys", "expected"),
    [
        (QueryOptions(), {"PatientName": "jayne doh\\Nobody"}, []),
        (QueryOptions(fuzzy=True), {"PatientName": "jayne doh\\Nobody"}, ["1"]),
        (QueryOptions(), {"AccessionNumber": '""'}, []),
        (QueryOptions(empty_values=True), {"AccessionNumber": '""'}, ["1"]),
        (QueryOptions(), {"OtherPatientIDs": "X1\\X9"}, ["1", "2"]),
        (QueryOptions(multiple_values=True), {"OtherPatientIDs": "X1\\X9"}, ["2"]),
    ],
)
def test_find_proposes_what_it_is_asked_to(
    service: RunningArchive, options: QueryOptions, keys: dict[str, str], expected: list[str]
) -> None:
    """PS3.4 C.5.1.1: fuzzy names in a list too (C.2.2.2.1.1), empty (C.2.2.2.7), multiple values (C.2.2.2.8)."""
    values = {"PatientName": "Doe^Jane", "AccessionNumber": "", "OtherPatientIDs": "X1"}
    deposit(service.archive, make_instance(StudyID="1", PatientID="P-1", **values))
    values = {"PatientName": "Roe^Ann", "AccessionNumber": "A-2", "OtherPatientIDs": "X9\\X1"}
    deposit(service.archive, make_instance(StudyID="2", PatientID="P-2", **values))

    found = find(
        OPTIONS,
        _peer(service),
        STUDY_ROOT,
        identifier("STUDY", {"StudyID": "", **keys}),
        options,
    )

    assert sorted(one.StudyID for one in found) == expected


@engine_on_sqlite
@pytest.mark.parametrize("value", ["", "1"])
def test_find_says_that_the_peer_does_not_support_a_key(
    service: RunningArchive, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    # PS3.4 Table C.4-1: with 0xFF01 a column without a value says nothing about the instances.
    fill_index(service.archive, 2)
    query = identifier("STUDY", {"PatientID": "", "SliceThickness": value})

    found = list(find(OPTIONS, _peer(service), STUDY_ROOT, query))

    assert len(found) == 2
    said = [line for line in caplog.messages if "does not support some of the keys" in line]
    assert len(said) == 1


@engine_on_sqlite
def test_find_of_supported_keys_says_nothing(
    service: RunningArchive, caplog: pytest.LogCaptureFixture
) -> None:
    fill_index(service.archive, 2)

    list(find(OPTIONS, _peer(service), STUDY_ROOT, identifier("STUDY", {"PatientID": ""})))

    assert not [line for line in caplog.messages if "does not support" in line]


@engine_on_sqlite
def test_find_that_is_refused_raises_the_comment(service: RunningArchive) -> None:
    with pytest.raises(PeerAborted, match="answered 0xA900: StudyInstanceUID"):
        list(find(OPTIONS, _peer(service), STUDY_ROOT, identifier("SERIES", {})))


@engine_on_sqlite
def test_find_that_is_left_early_ends_the_association(service: RunningArchive) -> None:
    fill_index(service.archive, 50)
    matches = find(OPTIONS, _peer(service), STUDY_ROOT, identifier("STUDY", {}))

    next(matches)
    matches.close()  # type: ignore[attr-defined]

    echo(OPTIONS, _peer(service))


@engine_on_sqlite
def test_move_yields_progress_and_the_final_counts(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)
    destination.answers = {uids[1]: 0xA700}
    query = identifier("STUDY", {"StudyInstanceUID": STUDY})

    progress = list(move(OPTIONS, _peer(service), STUDY_ROOT, query, "DEST"))

    *pending, final = progress
    assert {one.status for one in pending} == {0xFF00}
    assert (final.status, final.completed, final.failed) == (0xB000, 2, 1)
    assert final.failed_uids == (uids[1],)


@engine_on_sqlite
def test_move_that_is_cancelled_ends_with_the_peers_final_response(
    service: RunningArchive, start_destination: Callable[..., Destination]
) -> None:
    # PS3.7 9.3.4.3: the cancelled operation is answered with FE00.
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 100)
    may_answer = threading.Event()
    destination.answer = lambda _: 0x0000 if may_answer.wait(10) else 0xA700
    query = identifier("STUDY", {"StudyInstanceUID": STUDY})
    cancellation = Cancellation()

    responses = move(OPTIONS, _peer(service), STUDY_ROOT, query, "DEST", cancellation=cancellation)
    next(responses)
    sent = [cancellation.send(), cancellation.send()]
    may_answer.set()
    *_, final = responses

    assert sent == [True, False]
    assert final.status == 0xFE00
    assert final.completed < 100
    assert (final.remaining or 0) + final.completed == 100
    wait_until(lambda: destination.released == 1)


def test_move_that_is_cancelled_does_not_wait_for_ever() -> None:
    def hold(wire: Wire, _number: int) -> None:
        accept(wire, IMPLICIT)
        while wire.receive()[0]:
            pass

    cancellation = Cancellation(patience_seconds=0.2)
    options = Options(ae_title="TESTSCU", dimse_timeout_seconds=60)
    query = identifier("STUDY", {"StudyInstanceUID": STUDY})
    asking = threading.Thread(target=lambda: wait_until(cancellation.send))

    with ScriptedAcceptor(hold) as peer:
        asking.start()
        silent = Peer("X", "127.0.0.1", peer.port)
        with pytest.raises(PeerAborted, match="no final response"):
            list(move(options, silent, STUDY_ROOT, query, "D", cancellation=cancellation))
        asking.join(5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PACS@10.0.0.7:104", Peer("PACS", "10.0.0.7", 104)),
        ("A B@pacs.example:11112", Peer("A B", "pacs.example", 11_112)),
        ("PACS@[::1]:104", Peer("PACS", "::1", 104)),
    ],
)
def test_peer_is_read(text: str, expected: Peer) -> None:
    assert Peer.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PACS",
        "PACS@host",
        "PACS@host:0",
        "PACS@host:65536",
        "@host:104",
        "X" * 17 + "@h:1",
        "A\\B@h:1",
        " @h:1",
    ],
)
def test_peer_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="TITLE@HOST:PORT"):
        Peer.parse(text)


def test_identifier_takes_keywords_and_tags_and_unicode() -> None:
    made = identifier("STUDY", {"PatientName": "Müller*", "0020,000D": "1.2\\1.3", "00080050": ""})

    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.StudyInstanceUID == ["1.2", "1.3"]
    assert "AccessionNumber" in made


def test_identifier_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(InvalidIdentifier, match="PatientNam"):
        identifier("STUDY", {"PatientNam": "x"})


def test_identifier_takes_private_tags_beside_their_private_creator() -> None:
    # PS3.5 7.8.1: the creator is LO; the VR of its elements is known to the vendor.
    made = identifier("IMAGE", {"0029,0010": "ACME", "(0029,10fe)": ""})

    assert (made[0x00290010].VR, made[0x00290010].value) == ("LO", "ACME")
    assert made[0x002910FE].VR == "UN"
    assert made[0x002910FE].is_empty


def test_identifier_with_a_value_of_a_private_key_is_refused() -> None:
    with pytest.raises(InvalidIdentifier, match="0029,1001 is private"):
        identifier("IMAGE", {"0029,0010": "ACME", "00291001": "x"})
