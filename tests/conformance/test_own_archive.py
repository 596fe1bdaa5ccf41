"""Our own archive passes its own checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import (
    Bench,
    knows_destination,
    offer_of,
    run_checks,
    selected,
)
from pacs.conformance.scp.sample import Sample, SampleInstance
from tests.factories import make_instance
from tests.peers import deposit, register, wait_until
from tests.serving import Serve, engine_on_sqlite, engine_only


@pytest.fixture
def bench(serve: Serve) -> Iterator[Bench]:
    """Two patients in the archive, and a Move Destination that it knows."""
    service = serve()
    instances = [
        make_instance(
            PatientID=f"P{patient}",
            StudyInstanceUID=f"1.2.3.{patient}",
            SeriesInstanceUID=f"1.2.3.{patient}.{series}",
            SOPInstanceUID=f"1.2.3.{patient}.{series}.{number}",
        )
        for patient in (1, 2)
        for series in (1, 2)
        for number in (1, 2, 3)
    ]
    deposit(service.archive, *instances)
    sample = Sample(
        tuple(SampleInstance(one, str(one.file_meta.TransferSyntaxUID)) for one in instances), True
    )
    with Destination("CHECKER_DEST", host="127.0.0.1") as destination:
        register(service.archive, "CHECKER_DEST", destination.port)
        peer = PeerUnderTest("127.0.0.1", service.port, "PACS", "CHECKER", 10)
        yield Bench(peer, offer_of(peer), sample, destination)


def _told(result: CheckResult) -> str:
    return f"{result.name}: expected {result.expected}; received {result.received}"


@engine_only
@pytest.mark.parametrize("service", ["verification", "negotiation", "robustness", "move", "get"])
def test_no_check_fails_or_warns(bench: Bench, service: str) -> None:
    report = run_checks(bench, selected([f"{service}.*"], [], read_only=False))

    found = [_told(one) for one in report.results if one.verdict in (Verdict.FAIL, Verdict.WARNING)]
    assert not found, "\n".join(found)
    assert report.count(Verdict.PASS) > 0


@engine_only
def test_read_only_judges_by_what_it_found_and_stores_nothing(serve: Serve) -> None:
    """The patient has more studies, and the series more instances, than the tool looks at."""
    service = serve()
    many = [
        make_instance(
            PatientID="P1",
            StudyInstanceUID=f"1.2.3.{study}",
            SeriesInstanceUID=f"1.2.3.{study}.1",
            SOPInstanceUID=f"1.2.3.{study}.1.{number}",
        )
        for study in range(1, 9)
        for number in range(1, 9)
    ]
    deposit(service.archive, *many)
    with Destination("CHECKER_DEST", host="127.0.0.1") as destination:
        register(service.archive, "CHECKER_DEST", destination.port)
        peer = PeerUnderTest("127.0.0.1", service.port, "PACS", "CHECKER", 10)
        offer = offer_of(peer)
        sample = prepared(peer, offer.services, read_only=True)
        report = run_checks(
            Bench(peer, offer, sample, destination), selected([], [], read_only=True)
        )

    found = [_told(one) for one in report.results if one.verdict in (Verdict.FAIL, Verdict.WARNING)]
    assert not found, "\n".join(found)
    assert {"move.image", "get.failed-list", "find.unique-keys"} <= {
        one.name.partition("[")[0] for one in report.results if one.verdict is Verdict.PASS
    }
    assert service.archive.index.stats().instances == len(many)


@engine_on_sqlite
@pytest.mark.parametrize("patient_ids", [("", "P-1", ""), ("", "", "")], ids=["some", "all"])
def test_read_only_does_not_accuse_an_archive_of_patients_without_an_id(
    serve: Serve, patient_ids: tuple[str, ...]
) -> None:
    """Patient ID is of type 2, and an empty key is universal matching (PS3.4 C.2.2.2.3)."""
    service = serve()
    deposit(
        service.archive,
        *(
            make_instance(PatientID=patient_id, StudyInstanceUID=f"1.2.3.{n}")
            for n, patient_id in enumerate(patient_ids)
        ),
    )
    peer = PeerUnderTest("127.0.0.1", service.port, "PACS", "CHECKER", 10)
    offer = offer_of(peer)
    sample = prepared(peer, offer.services, read_only=True)

    report = run_checks(
        Bench(peer, offer, sample), selected(["find.*", "get.*"], [], read_only=True)
    )

    found = [_told(one) for one in report.results if one.verdict in (Verdict.FAIL, Verdict.WARNING)]
    assert not found, "\n".join(found)
    passed = {one.name for one in report.results if one.verdict is Verdict.PASS}
    assert "find.unique-keys[study-root]" in passed
    assert ("find.unique-keys[patient-root]" in passed) is any(patient_ids)


@engine_only
def test_a_destination_that_the_peer_does_not_know_is_no_fault_of_it(serve: Serve) -> None:
    service = serve()
    peer = PeerUnderTest("127.0.0.1", service.port, "PACS", "CHECKER", 10)
    offer = offer_of(peer)

    assert not knows_destination(peer, offer, "CHECKER_DEST")
    with Destination("CHECKER_DEST", host="127.0.0.1") as destination:
        bench = Bench(peer, offer, Sample(), destination, is_unregistered=True)
        report = run_checks(bench, selected(["move.*"], [], read_only=False))
        register(service.archive, "CHECKER_DEST", destination.port)

        assert {one.verdict for one in report.results} == {Verdict.NOT_APPLICABLE}
        wait_until(lambda: knows_destination(peer, offer, "CHECKER_DEST"), 10)
