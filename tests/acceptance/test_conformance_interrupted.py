"""Ctrl-C or SIGTERM during ``pacs conformance scp``: what was checked is reported, and the SCP is left in peace."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pacs.conformance.scu.rules import Rule
from pacs.conformance.scu.server import ProgrammableSCP
from tests.acceptance.processes import DEADLINE_SECONDS, Processes
from tests.peers import wait_until


@pytest.fixture
def scp() -> Iterator[ProgrammableSCP]:
    with ProgrammableSCP() as running:
        yield running


def _wait_for_requests(scp: ProgrammableSCP, count: int) -> None:
    wait_until(lambda: sum(len(session.requests) for session in scp.sessions) >= count)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_report_has_what_was_checked_before_it_was_ended(
    processes: Processes, scp: ProgrammableSCP, tmp_path: Path, how: signal.Signals
) -> None:
    scp.rules.add(Rule(service="C-ECHO", request=2, silence=True))
    junit, page = tmp_path / "report.xml", tmp_path / "report.html"
    process, _ = processes.spawn(
        *("conformance", "scp", f"ANY@127.0.0.1:{scp.port}", "--json"),
        *("--junit", str(junit), "--html", str(page)),
        *("-k", "verification.echo", "-k", "negotiation.maximum-length-kept"),
        *("-k", "negotiation.contexts-answered", "--dimse-timeout-seconds", "60"),
    )
    _wait_for_requests(scp, 2)

    process.send_signal(how)
    printed, _ = process.communicate(timeout=DEADLINE_SECONDS)

    report = json.loads(printed)
    assert process.returncode == 130
    assert report["is_complete"] is False
    assert 0 < len(report["results"]) < 3
    assert {one["verdict"] for one in report["results"]} == {"pass"}
    suite = ET.parse(junit).find("testsuite")
    assert suite is not None
    assert suite.get("errors") == "1"
    assert "interrupted" in page.read_text("utf-8")
    wait_until(lambda: scp.is_idle)


def test_ctrl_c_while_the_sample_is_stored_says_whose_patients_they_are(
    processes: Processes, scp: ProgrammableSCP
) -> None:
    scp.rules.add(Rule(service="C-STORE", request=2, silence=True))
    process, log = processes.spawn(
        *("conformance", "scp", f"ANY@127.0.0.1:{scp.port}", "--dimse-timeout-seconds", "60")
    )
    _wait_for_requests(scp, 2)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 130
    told = re.search(r"begins with (K\w+)-", log.read_text("utf-8"))
    assert told is not None
    assert told[1].encode() in (scp.sessions[-1].requests[0].data or b"")
