"""The sample of the conformance tests: what is generated, stored, and found again (PS3.4 B.2, C.4.1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs.conformance.judgement import Verdict
from pacs.conformance.scp import preparation
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.generation import generate, new_instance
from pacs.conformance.scp.preparation import find_sample, store_sample
from pacs.conformance.scp.runner import Bench, Offer, offer_of, run_checks, selected
from pacs.conformance.scp.sample import Sample
from pacs.conformance.wire.message import (
    CommandField,
    Message,
    decode_data_set,
    encode_data_set,
)
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level
from tests.conformance.faulty_peer import FaultyPeer, with_command
from tests.peers import RunningArchive, closed_port


def peer_of(service: RunningArchive | FaultyPeer, title: str = "PACS") -> PeerUnderTest:
    return PeerUnderTest("127.0.0.1", service.port, title, "TESTER", 10.0)


def test_generated_instances_decode_to_what_they_are() -> None:
    for one in generate().instances:
        encoded = encode_data_set(one.attributes, one.transfer_syntax)
        decoded = decode_data_set(encoded, one.transfer_syntax)
        assert str(decoded.PatientName) == str(one.attributes.PatientName)
        assert decoded.SOPInstanceUID == one.sop_instance_uid


def test_samples_of_two_runs_have_nothing_in_common() -> None:
    one, other = generate(), generate()

    for level in Level:
        assert not set(one.unique(level)) & set(other.unique(level))
        assert all(value and len(value) <= 64 for value in one.unique(level))


def test_new_instance_belongs_to_no_patient_of_the_sample() -> None:
    sample = generate()

    made = new_instance(sample.token, AccessionNumber="X", SeriesNumber=None).attributes

    assert made.PatientID not in sample.unique(Level.PATIENT)
    assert (made.AccessionNumber, "SeriesNumber" in made) == ("X", False)


def test_sample_is_stored_whole_and_found(archive_server: RunningArchive) -> None:
    peer = peer_of(archive_server)
    services = offer_of(peer).services
    generated = generate()

    stored = store_sample(peer, generated, services)
    found = find_sample(peer, services)

    assert stored.notes == ()
    assert stored.instances == generated.instances
    assert stored.token in stored.description
    assert set(found.unique(Level.IMAGE)) <= set(stored.unique(Level.IMAGE))
    assert 1 < len(found.unique(Level.STUDY)) <= 5
    assert not found.is_generated


def test_nothing_is_found_in_an_empty_archive(archive_server: RunningArchive) -> None:
    peer = peer_of(archive_server)

    assert find_sample(peer, offer_of(peer).services).instances == ()


def test_documentation_counts_the_sample_rightly() -> None:
    sample = generate()
    text = Path(__file__).parents[2].joinpath("docs/conformance-testing.md").read_text("utf-8")

    patients, studies, series, instances = (len(sample.unique(level)) for level in Level)
    classes = {one.sop_class_uid for one in sample.instances}
    character_sets = {str(one.attributes.SpecificCharacterSet) for one in sample.instances}

    assert (
        f"{patients} patients, {studies} studies, {series} series and {instances} instances of\n"
        f"{len(classes)} SOP Classes"
    ) in text
    assert f"names in {len(character_sets)} character sets" in text


def _spoiled_stores(message: Message, _syntax: str) -> list[Message]:
    is_store = message.command["CommandField"] == CommandField.C_STORE_RSP
    return [with_command(message, Status=0xA700) if is_store else message]


def test_refused_instances_are_noted_and_not_in_the_sample(archive_server: RunningArchive) -> None:
    services = offer_of(peer_of(archive_server)).services
    with FaultyPeer(archive_server.port, on_response=_spoiled_stores) as faulty:
        stored = store_sample(peer_of(faulty), generate(), services)

    assert stored.instances == ()
    assert all("not stored" in note and "0xa700" in note for note in stored.notes)
    assert "1.2.840.10008.5.1.4.1.1.2 in 1.2.840.10008.1.2.1," in stored.description


def test_hidden_instances_are_noted_and_fail_a_check(
    archive_server: RunningArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_INDEXING_SECONDS", 0)
    generated = generate()
    hidden = generated.instances[0].sop_instance_uid

    def hide(message: Message, _syntax: str) -> list[Message]:
        is_match = message.status == 0xFF00 and hidden.encode() in (message.data or b"")
        return [] if is_match else [message]

    with FaultyPeer(archive_server.port, on_response=hide) as faulty:
        peer = peer_of(faulty)
        offer = offer_of(peer)
        sample = store_sample(peer, generated, offer.services)
        report = run_checks(
            Bench(peer, offer, sample), selected(("storage.found",), (), read_only=False)
        )

    assert sample.notes == (f"stored, but not found: {hidden}",)
    assert hidden not in sample.unique(Level.IMAGE)
    assert report.results[0].verdict is Verdict.WARNING


def test_a_peer_that_is_gone_fails_one_check_only() -> None:
    peer = PeerUnderTest("127.0.0.1", closed_port(), "PACS", "TESTER", 2.0)
    services = frozenset({(InformationModel.STUDY_ROOT, Operation.FIND)})

    report = run_checks(
        Bench(peer, Offer(services, "", ""), Sample()),
        selected(("find.no-match", "find.cancel-too-late"), (), read_only=True),
    )

    verdicts = [one.verdict for one in report.results if "study-root" in one.name]
    assert verdicts == [Verdict.FAIL, Verdict.NOT_APPLICABLE]


def test_search_in_a_large_archive_is_cancelled(archive_server: RunningArchive) -> None:
    peer = peer_of(archive_server)
    services = offer_of(peer).services
    store_sample(peer, generate(), services)
    sent: list[int] = []

    def record(message: Message, _syntax: str) -> list[Message]:
        sent.append(int(str(message.command["CommandField"])))
        return [message]

    with FaultyPeer(archive_server.port, on_request=record) as faulty:
        found = find_sample(peer_of(faulty), services)

    assert sent[:2] == [CommandField.C_FIND_RQ, CommandField.C_CANCEL_RQ]
    assert len(found.unique(Level.STUDY)) == 5
