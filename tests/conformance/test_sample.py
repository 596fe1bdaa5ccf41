"""The sample of the conformance tests: what is generated, stored, and found again (PS3.4 B.2, C.4.1)."""

from __future__ import annotations

from pathlib import Path

from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.generation import generate, new_instance
from pacs.conformance.scp.preparation import find_sample, store_sample
from pacs.conformance.scp.runner import offer_of
from pacs.conformance.wire.message import decode_data_set, encode_data_set
from pacs.dicom.levels import Level
from tests.peers import RunningArchive


def peer_of(service: RunningArchive, title: str = "PACS") -> PeerUnderTest:
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
