"""The checks of C-FIND and C-STORE: our own archive passes all of them (PS3.4 B, C.4.1)."""

from __future__ import annotations

from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import Bench, offer_of, run_checks, selected
from tests.factories import make_instance
from tests.peers import RunningArchive, deposit

_PATTERNS = ("find.*", "storage.*")


def judged(service: RunningArchive, *, read_only: bool) -> list[CheckResult]:
    peer = PeerUnderTest("127.0.0.1", service.port, "PACS", "TESTER", 10.0)
    offer = offer_of(peer)
    sample = prepared(peer, offer.services, read_only=read_only)
    checks = selected(_PATTERNS, (), read_only=read_only)
    return run_checks(Bench(peer, offer, sample), checks).results


def _of(results: list[CheckResult], *verdicts: Verdict) -> dict[str, str]:
    return {
        result.name: f"{result.sent} | {result.expected} | {result.received}"
        for result in results
        if result.verdict in verdicts
    }


def test_our_archive_passes_every_check(archive_server: RunningArchive) -> None:
    results = judged(archive_server, read_only=False)

    assert _of(results, Verdict.FAIL, Verdict.WARNING) == {}
    assert len(_of(results, Verdict.PASS)) > 150
    not_applicable = {name.split("[")[0] for name in _of(results, Verdict.NOT_APPLICABLE)}
    assert not_applicable == {"find.instance-availability"}, "it is not asked for, so not returned"


def test_our_archive_passes_read_only_checks_with_its_own_data(
    archive_server: RunningArchive,
) -> None:
    deposit(archive_server.archive, make_instance(), make_instance(PatientID="P-2"))

    results = judged(archive_server, read_only=True)

    assert _of(results, Verdict.FAIL, Verdict.WARNING) == {}
    assert len(_of(results, Verdict.PASS)) > 50
    assert archive_server.archive.index.stats().instances == 2, "nothing was stored"
