"""The ready-made scenarios that are not of a C-MOVE's status: what SCUs of DCMTK see of each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from pacs.conformance.judgement import Verdict
from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.scenario import load, ready_made
from pacs.conformance.scu.server import ProgrammableSCP
from tests.peers import wait_until

_SECONDS = 30
_STUDY = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=2.25.1001")
_IMAGES = (
    *("-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", "StudyInstanceUID=2.25.1001"),
    *("-k", "SeriesInstanceUID=2.25.1001.1", "-k", "SOPInstanceUID", "-k", "PatientName"),
)
#: Scenario, SCU with its options, and what it says, in order.
_SEEN = {
    "association-rejected": ("echoscu", (), ("Calling AE Title Not Recognized",)),
    "association-congested": ("echoscu", (), ("Rejected Transient", "Local Limit Exceeded")),
    "association-no-contexts": ("echoscu", (), ("No Acceptable Presentation Contexts",)),
    "association-small-pdus": ("storescu", (), ("0x0000: Success", "0x0000: Success")),
    "release-ignored": ("echoscu", ("-ta", "1"), ("Release Failed",)),
    "store-out-of-resources": ("storescu", (), ("0x0000: Success", "0xa700: Refused")),
    "find-bad-character-set": ("findscu", _IMAGES, ("ISO 2022 IR 149", "0x0000: Success")),
    "find-duplicates": (
        "findscu",
        _IMAGES,
        [f"[2.25.1001.1.{number}" for number in (1, 1, 2, 2, 3, 3)]
        + ["0x0000"],  # findscu ends there
    ),
    "find-endless": (
        "findscu",
        (*_IMAGES, "--cancel", "5"),
        ["0xff00: Pending"] * 5 + ["0xfe00: Cancel"],
    ),
    "find-garbage": ("findscu", _IMAGES, ("read() Failed", "Find SCU Failed")),
    "find-out-of-order": (
        "findscu",
        _IMAGES,
        [f"[2.25.1001.1.{number}" for number in (2, 1, 3)] + ["0x0000: Success"],
    ),
    "find-out-of-resources": ("findscu", _IMAGES, ("0xa700: Refused",)),
    "move-silence": ("movescu", (*_STUDY, "-aem", "ANY", "-td", "1"), ("timeout",)),
    "move-slow": ("movescu", (*_STUDY, "-aem", "ANY"), ("0xa801",)),
}
#: These SCUs do not release what they cannot use.
_ENDS_OTHERWISE = {"association-no-contexts", "find-garbage", "move-silence"}


def test_each_scenario_is_tested() -> None:
    """Those of a C-MOVE's status are in test_scenarios.py."""
    apart = {name for name in ready_made() if not name.startswith("move-")}
    assert apart | {"move-silence", "move-slow"} == _SEEN.keys()


@pytest.mark.parametrize("name", _SEEN)
def test_an_scu_sees_what_the_scenario_says(name: str, tmp_path: Path) -> None:
    tool, options, seen = _SEEN[name]
    with ProgrammableSCP(load(name)) as scp:
        printed = _printed(tool, options, scp, tmp_path)
        wait_until(lambda: scp.is_idle)
        report = judge(scp.sessions)
        longest = scp.sessions[0].association.longest_p_data
    printed = printed[_end_of_requests(printed) :]
    place = 0
    for text in seen:
        place = printed.find(text, place) + len(text)
        assert place >= len(text), f"no {text!r}, or not in this order"
    bad = {one.name for one in report.results if one.verdict in (Verdict.FAIL, Verdict.WARNING)}
    assert bad == ({"association.released"} if name in _ENDS_OTHERWISE else set())
    assert name != "association-small-pdus" or 0 < longest <= 256


def _printed(tool: str, options: tuple[str, ...], scp: ProgrammableSCP, folder: Path) -> str:
    names = ("CT_small.dcm", "MR_small.dcm") if tool == "storescu" else ()
    files = [str(get_testdata_file(name)) for name in names]
    done = subprocess.run(
        [f"/usr/bin/{tool}", "-d", *options, "127.0.0.1", str(scp.port), *files],
        capture_output=True,
        timeout=_SECONDS,
        check=False,
        cwd=folder,
        env={"TCP_NODELAY": "1"},
    )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _end_of_requests(printed: str) -> int:
    """What a tool prints of its own Identifier is not what it sees."""
    asked = re.search(r"Received .*(Response|RSP)|DIMSE Warning|Failed", printed)
    return asked.start() if asked and "Identifier" in printed else 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("echo", "{peer}"), ""),
        (("find", "{peer}", "PatientID"), "P1"),
        (("find", "--relational", "-L", "image", "{peer}", "SOPInstanceUID"), "2.25.1001.1.3"),
        (("find", "-M", "patient", "-L", "patient", "{peer}", "PatientID=P*"), "P1"),
        (("move", "--to", "NOBODY", "{peer}", "StudyInstanceUID=2.25.1001"), "A801"),
    ],
    ids=["echo", "find", "find-relational", "find-patients", "move"],
)
def test_nothing_is_held_against_our_own_scu(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with ProgrammableSCP(load("move-success")) as scp:
        peer = f"ANY@127.0.0.1:{scp.port}"
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *(one.format(peer=peer) for one in arguments)],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=tmp_path,
            text=True,
        )
        wait_until(lambda: scp.sessions and scp.is_idle)
        results = judge(scp.sessions).results
    assert says in done.stdout + done.stderr
    bad = [one for one in results if one.verdict in (Verdict.FAIL, Verdict.WARNING)]
    assert not bad
