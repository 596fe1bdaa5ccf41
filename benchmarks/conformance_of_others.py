"""Runs our checks against the archives that people use, and writes docs/conformance-of-others.md.

python -m benchmarks.conformance_of_others docs/conformance-of-others.md
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.archives import Dcmqrscp, Orthanc, Pacs, StockQrscp
from benchmarks.peers import Archive, free_port
from pacs.conformance.judgement import CheckResult, Report, Verdict
from pacs.conformance.scp.check import PeerUnderTest
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scp.preparation import prepared
from pacs.conformance.scp.runner import Bench, offer_of, run_checks, selected

_ARCHIVES = (Pacs, Orthanc, Dcmqrscp, StockQrscp)
_TITLE = "CONFORMANCE"
_SECONDS = 8.0
_SIGNS = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "**fail**",
    Verdict.WARNING: "warning",
    Verdict.NOT_APPLICABLE: "n/a",
}

_INTRODUCTION = (
    "Each archive is fresh, knows one Move Destination and is otherwise as its project configures it.",
    "A *fail* is a **shall** of the Standard that is not met; a *warning* is a *should*, or a *shall*",
    "that is met in a doubtful way. Most of it harms nobody on an ordinary day. If one of these is",
    "wrong, that is a bug of ours: please report it.",
)


def judged(archive: Archive) -> Report:
    """A fresh archive of that kind and what all checks say of it."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as directory,
        archive.run(Path(directory), {_TITLE: port}) as running,
        Destination(_TITLE, host="127.0.0.1", port=port) as destination,
    ):
        peer = PeerUnderTest("127.0.0.1", running.port, running.title, "CHECKER", _SECONDS)
        offer = offer_of(peer)
        sample = prepared(peer, offer.services, read_only=False)
        return run_checks(
            Bench(peer, offer, sample, destination), selected([], [], read_only=False)
        )


def document(archives: Sequence[Archive], reports: Sequence[Report]) -> str:
    """The page."""
    return "\n".join(_lines(archives, reports)) + "\n"


def _lines(archives: Sequence[Archive], reports: Sequence[Report]) -> Iterator[str]:
    yield "# What our checks say of other archives"
    yield ""
    yield f"Written by `benchmarks/conformance_of_others.py` on {datetime.now(UTC):%Y-%m-%d}, {platform.system()}."
    yield from _INTRODUCTION
    yield ""
    yield "| archive | version and settings | pass | fail | warning | not applicable |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for archive, report in zip(archives, reports, strict=True):
        counts = " | ".join(str(report.count(verdict)) for verdict in Verdict)
        yield f"| {archive.name} | {archive.settings} ({report.subject['implementation']}) | {counts} |"
    yield ""
    yield "`n/a`: the service or information model is not offered, or the check had nothing to work on."
    yield ""
    yield from _table(archives, reports)
    for archive, report in zip(archives, reports, strict=True):
        yield from _findings(archive, report)


def _table(archives: Sequence[Archive], reports: Sequence[Report]) -> Iterator[str]:
    yield "| check | clause | asks | " + " | ".join(archive.name for archive in archives) + " |"
    yield "| --- | --- | --- |" + " --- |" * len(archives)
    for results in zip(*(report.results for report in reports), strict=True):
        first = results[0]
        verdicts = " | ".join(_SIGNS[result.verdict] for result in results)
        yield f"| {first.name} | {first.clause} | {first.requirement.value} | {verdicts} |"


def _findings(archive: Archive, report: Report) -> Iterator[str]:
    found = [one for one in report.results if one.verdict in (Verdict.FAIL, Verdict.WARNING)]
    yield ""
    yield f"## {archive.name}"
    yield ""
    if not found:
        yield "Nothing to report."
    for result in found:
        yield f"- **{result.verdict.value}** `{result.name}` ({result.clause}): the SCP {result.title}. {_told(result)}"


def _told(result: CheckResult) -> str:
    text = f"Sent: {result.sent}. Expected: {result.expected}. Received: {result.received}."
    return " ".join(text.split()).replace("..", ".").replace("|", "/")


def main() -> None:
    """Judge each archive, one after the other."""
    archives = [make() for make in _ARCHIVES]
    reports = []
    for archive in archives:
        reports.append(judged(archive))
        print(f"{archive.name}: {reports[-1].summary}", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text(document(archives, reports), "utf-8")


if __name__ == "__main__":
    main()
