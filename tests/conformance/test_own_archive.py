"""Our own archive passes its own checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.runner import Bench, offer_of, run_checks, selected
from pacs.conformance.scp.sample import Sample, SampleInstance
from tests.factories import make_instance
from tests.peers import deposit, register
from tests.serving import Serve, engine_only


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
