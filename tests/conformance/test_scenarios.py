"""The ready-made scenarios with real SCUs: what they see, and what is said of them."""

from __future__ import annotations

import json
import re
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE
from pynetdicom.presentation import build_role

from pacs.cli import app
from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scp.destination import Destination
from pacs.conformance.scu.control import Control
from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.rules import Rule
from pacs.conformance.scu.scenario import load, parse, ready_made
from pacs.conformance.scu.server import ProgrammableSCP
from pacs.errors import InvalidSetting
from tests.peers import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION, wait_until

_STUDY = "2.25.1001"
_SECONDS = 20
#: The last status that movescu sees with each scenario (PS3.4 Table C.4-2, C.5.3; PS3.7 Annex C).
_MOVES = {
    "move-success": "0000",
    "move-some-failed": "b000",
    "move-no-failed-list": "b000",
    "move-all-failed": "a702",
    "move-out-of-resources-matches": "a701",
    "move-out-of-resources": "a702",
    "move-destination-unknown": "a801",
    "move-identifier-does-not-match": "a900",
    "move-unable-to-process": "c000",
    "move-cancelled": "fe00",
    "move-sop-class-not-supported": "0122",
    "move-not-authorised": "0124",
    "move-duplicate-invocation": "0210",
    "move-unrecognized-operation": "0211",
    "move-mistyped-argument": "0212",
    "move-frames-not-found": "aa00",
    "move-unable-to-create-instance": "aa01",
    "move-unable-to-extract-frames": "aa02",
    "move-not-time-based": "aa03",
    "move-invalid-request": "aa04",
    "move-wrong-counters": "0000",
}
#: Those that never end well, slow ones, and those of other services: tested below or by their rules.
_OTHERS = {"move-aborts", "move-silence", "move-slow"}


def _query(tool: str, scp: ProgrammableSCP, *arguments: str) -> str:
    """What a tool of DCMTK prints when it asks for the study of the scenarios."""
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={_STUDY}")
    with TemporaryDirectory() as folder:  # getscu writes where it runs
        done = subprocess.run(
            [f"/usr/bin/{tool}", "-d", "-S", *arguments, *keys, "127.0.0.1", str(scp.port)],
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            cwd=folder,
            env={"TCP_NODELAY": "1"},
        )
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def _statuses(output: str) -> list[str]:
    return re.findall(r"DIMSE Status +: 0x([0-9a-f]{4})", output)


@pytest.fixture(scope="module")
def destination() -> Iterator[Destination]:
    with Destination("SCENARIO_DEST", host="127.0.0.1") as running:
        yield running


def _scp(name: str, destination: Destination) -> ProgrammableSCP:
    return ProgrammableSCP(
        load(name), destinations={"SCENARIO_DEST": ("127.0.0.1", destination.port)}
    )


def test_each_scenario_of_a_move_is_tested() -> None:
    assert {name for name in ready_made() if name.startswith("move-")} == _MOVES.keys() | _OTHERS


@pytest.mark.parametrize(("name", "status"), _MOVES.items())
def test_movescu_sees_the_status_of_the_scenario(
    name: str, status: str, destination: Destination
) -> None:
    """PS3.4 C.4.2.1.5, C.5.3 and PS3.7 Annex C."""
    with _scp(name, destination) as scp:
        seen = _statuses(_query("movescu", scp, "-aem", "SCENARIO_DEST"))
    assert seen[-1] == status
    assert all(one == "ff00" for one in seen[:-1])


def test_an_abort_in_the_middle_reaches_movescu(destination: Destination) -> None:
    """PS3.8 7.3."""
    with _scp("move-aborts", destination) as scp:
        output = _query("movescu", scp, "-aem", "SCENARIO_DEST")
    assert "abort" in output.lower()
    assert not _statuses(output)


def _bad(scp: ProgrammableSCP) -> dict[str, CheckResult]:
    wait_until(lambda: scp.is_idle)
    return {one.name: one for one in judge(scp.sessions).results if one.verdict is not Verdict.PASS}


def test_nothing_is_held_against_movescu(destination: Destination) -> None:
    with _scp("move-success", destination) as scp:
        _query("movescu", scp, "-aem", "SCENARIO_DEST")
        bad = _bad(scp)
    assert {one.verdict for one in bad.values()} <= {Verdict.NOT_APPLICABLE}


@pytest.mark.parametrize("tool", ["findscu", "getscu"])
def test_nothing_is_held_against_findscu_and_getscu(tool: str, destination: Destination) -> None:
    with _scp("move-success", destination) as scp:
        assert _statuses(_query(tool, scp))[-1] == "0000"
        bad = _bad(scp)
    assert {one.verdict for one in bad.values()} <= {Verdict.NOT_APPLICABLE}


def test_findscu_gets_each_response_twice(destination: Destination) -> None:
    with _scp("find-duplicates", destination) as scp:
        seen = _statuses(_query("findscu", scp))
    assert seen[:2] == ["ff00", "ff00"]


def _find_of(scp: ProgrammableSCP, identifier: Dataset) -> None:
    ae = AE("PYNETDICOM")
    ae.add_requested_context(STUDY_ROOT_FIND)
    association = ae.associate("127.0.0.1", scp.port)
    assert association.is_established
    list(association.send_c_find(identifier, STUDY_ROOT_FIND))
    association.release()


def test_an_identifier_below_a_missing_unique_key_is_held_against_the_scu() -> None:
    """PS3.4 C.4.1.2.1: the unique keys of the levels above."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "SERIES"
    identifier.SeriesInstanceUID = ""
    with ProgrammableSCP() as scp:
        _find_of(scp, identifier)
        found = _bad(scp)["identifier.valid"]
    assert found.verdict is Verdict.FAIL
    assert "StudyInstanceUID" in found.received
    assert found.traces


@pytest.mark.parametrize(("is_scp", "verdict"), [(False, Verdict.FAIL), (True, None)])
def test_a_c_get_without_the_scp_role_is_held_against_the_scu(
    is_scp: bool, verdict: Verdict | None
) -> None:
    """PS3.4 C.5.3; a class that is only there to be stored does not count."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = "2.25.404"
    ae = AE("PYNETDICOM")
    for uid in (STUDY_ROOT_GET, CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid)
    roles: list[Any] = [build_role(CTImageStorage, scp_role=True)] if is_scp else []
    with ProgrammableSCP() as scp:
        association = ae.associate("127.0.0.1", scp.port, ext_neg=roles)
        list(association.send_c_get(identifier, STUDY_ROOT_GET))
        association.release()
        found = _bad(scp).get("get.roles")
    assert (found and found.verdict) == verdict


def test_an_abort_instead_of_a_release_warns() -> None:
    """PS3.8 7.2 and 7.3: an abort is allowed, and loses what is under way."""
    ae = AE("PYNETDICOM")
    ae.add_requested_context(VERIFICATION)
    with ProgrammableSCP() as scp:
        association = ae.associate("127.0.0.1", scp.port)
        association.send_c_echo()
        association.abort()
        assert _bad(scp)["association.released"].verdict is Verdict.WARNING


# Scenario files


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[rules]]\nservise = 'C-FIND'", "servise"),
        ("[[rules]]\nservice = 'C-FOUND'", "C-FIND"),
        ("[[rules]]\nstatus = 'A700'", "status"),
        ("rules = 7", "rules"),
        ("[[rules", "mine.toml"),
    ],
)
def test_a_mistake_in_a_scenario_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(says)) as caught:
        parse(text, "mine.toml")
    assert caught.value.message.startswith("mine.toml: ")


def test_the_example_of_the_documentation_is_a_scenario() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conformance-testing.md").read_text("utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]
    scenario = parse(example, "example.toml")
    assert scenario.rules[0].status == 0xA700
    assert [one.PatientID for one in scenario.data_sets()] == ["P1"]


def test_each_key_of_a_rule_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "conformance-testing.md").read_text("utf-8")
    table = text.partition("| key | what it does |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| ")]
    named = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert {one.name for one in fields(Rule)} == named


def test_a_rule_counts_the_requests_of_one_calling_ae() -> None:
    scenario = parse(
        "[[rules]]\ncalling_ae = 'BAD*'\nservice = 'C-ECHO'\nrequest = 2\nstatus = 0x0122",
        "mine.toml",
    )
    with ProgrammableSCP(scenario) as scp:
        assert [_echo(scp, "BADLY"), _echo(scp, "GOOD"), _echo(scp, "BADLY")] == [0, 0, 0x0122]


def _echo(scp: ProgrammableSCP, calling: str) -> int:
    ae = AE(calling)
    ae.add_requested_context(VERIFICATION)
    association = ae.associate("127.0.0.1", scp.port)
    status = association.send_c_echo().Status
    association.release()
    return int(status)


# Live control


def _call(control: Control, method: str, path: str, body: object = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", control.port, timeout=_SECONDS)
    try:
        connection.request(method, path, b"" if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_rules_change_while_the_scp_runs() -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        assert _call(control, "POST", "/rules", {"service": "C-ECHO", "status": 0x0211})[0] == 200
        assert _echo(scp, "ANYONE") == 0x0211
        assert _call(control, "GET", "/rules")[1][0]["status"] == 0x0211
        _call(control, "DELETE", "/rules")
        assert _echo(scp, "ANYONE") == 0
        wait_until(lambda: scp.is_idle)
        assert _call(control, "GET", "/health")[1] == {"associations": 2, "running": 0}
        assert _call(control, "GET", "/associations")[1][0]["requests"] == ["C-ECHO-RQ"]
        assert _call(control, "GET", "/associations/2")[0] == 200
        assert _call(control, "GET", "/report")[0] == 200


def test_a_scenario_takes_the_place_of_the_rules() -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        _call(control, "POST", "/rules", {"service": "C-ECHO", "status": 0x0211})
        assert _call(control, "POST", "/scenario", {"name": "move-slow"})[1] == {"rules": 1}
        assert [rule.service for rule in scp.rules.all()] == ["C-MOVE"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing", None, 404),
        ("GET", "/associations/1", None, 404),
        ("GET", "/associations/x", None, 404),
        ("GET", "/associations/%C2%B2", None, 404),
        ("GET", "/associations/" + "1" * 5000, None, 404),
        ("POST", "/rules", [1], 400),
        ("POST", "/rules", {"stattus": 1}, 422),
        ("POST", "/scenario", {"name": "no-such"}, 422),
        ("POST", "/scenario", {"name": __file__}, 422),
        ("POST", "/scenario", {"name": "/etc/passwd"}, 422),
        ("POST", "/scenario", {"name": ["move-slow"]}, 422),
        ("POST", "/scenario", {}, 422),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    method: str, path: str, body: object, status: int
) -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        answer = _call(control, method, path, body)
    assert answer[0] == answer[1]["status"] == status
    assert answer[1]["detail"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:1", "Origin": "http://localhost:3000"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_page_of_another_site_does_not_reach_the_control(
    headers: dict[str, str], status: int
) -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        connection = HTTPConnection("127.0.0.1", control.port, timeout=_SECONDS)
        connection.request("POST", "/rules", json.dumps({"service": "C-ECHO"}), headers)
        answer = connection.getresponse().status
        connection.close()
        rules = len(scp.rules.all())

    assert (answer, rules) == (status, int(status == 200))


@pytest.mark.parametrize(
    "length", [b"\xb2", b"-1", b"9999999999", b"1" * 5000, b"1x"], ids=lambda one: str(one[:10])
)
def test_control_outlives_a_length_that_is_none(length: bytes) -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        with socket.create_connection(("127.0.0.1", control.port), timeout=_SECONDS) as sock:
            sock.sendall(
                b"POST /rules HTTP/1.1\r\nHost: localhost\r\nContent-Length: %b\r\n\r\n" % length
            )
            first_line = sock.makefile("rb").readline()
        assert b" 413 " in first_line
        assert _call(control, "GET", "/health")[0] == 200


# The command


def _scu_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["conformance", "scu", *arguments], standalone_mode=False)


def test_the_scenarios_are_listed() -> None:
    done = _scu_command("--list")
    assert done.exit_code == 0
    assert "move-destination-unknown" in done.output


@pytest.mark.parametrize(
    ("command", "keys", "one"),
    [
        ("scu", {"scenario", "title"}, ("scenario", "move-destination-unknown")),
        ("scp", {"check", "clause", "requirement", "title"}, ("check", "verification.echo")),
    ],
)
def test_lists_are_json_when_asked(command: str, keys: set[str], one: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["conformance", command, "--list", "--json"])

    listed = json.loads(done.output)
    assert {frozenset(row) for row in listed} == {frozenset(keys)}
    assert one[1] in [row[one[0]] for row in listed]


def test_the_command_ends_with_traces_and_a_report(tmp_path: Path) -> None:
    options = "--host 127.0.0.1 --port 0 --scenario find-duplicates --associations 1 --json"
    tmp_path = tmp_path / "traces"
    command = ["-m", "pacs", "conformance", "scu", *options.split(), "--trace-dir", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        ready = re.search(r"127\.0\.0\.1:(\d+), 3 instances", running.stderr.readline())
        assert ready is not None
        subprocess.run(
            ["/usr/bin/echoscu", "127.0.0.1", ready[1]],
            check=True,
            timeout=_SECONDS,
            env={"TCP_NODELAY": "1"},
        )
        printed, _ = running.communicate(timeout=_SECONDS)
    assert running.returncode == 0
    assert "message.message-id" in printed
    assert "C-ECHO-RQ" in (tmp_path / "association-0001.txt").read_text("utf-8")
    assert json.loads((tmp_path / "association-0001.json").read_text("utf-8"))
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in (tmp_path, *tmp_path.iterdir())}
    assert modes == {
        tmp_path.name: 0o700,
        "association-0001.txt": 0o600,
        "association-0001.json": 0o600,
    }


def _request_of(calling: bytes, version: bytes) -> bytes:
    """An A-ASSOCIATE-RQ for Verification (PS3.8 9.3.2) with these AE title and Implementation Version Name."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    context = struct.pack(">Bxxx", 1) + item(0x30, VERIFICATION.encode())
    user = item(0x51, struct.pack(">L", 16_384)) + item(0x52, b"1.2.3") + item(0x55, version)
    items = (
        item(0x10, b"1.2.840.10008.3.1.1.1")
        + item(0x20, context + item(0x40, b"1.2.840.10008.1.2"))
        + item(0x50, user)
    )
    body = struct.pack(">Hxx16s16s32x", 1, b"SCP".ljust(16), calling.ljust(16)) + items
    return struct.pack(">BxL", 1, len(body)) + body


def test_what_a_peer_sent_is_printed_and_traced_without_its_escape_sequences(
    tmp_path: Path,
) -> None:
    """And nobody else reads it, though files of these names were there, open to all, or lead elsewhere."""
    tmp_path.chmod(0o755)
    text, document = tmp_path / "association-0001.txt", tmp_path / "association-0001.json"
    text.write_text("of an earlier run")
    text.chmod(0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    document.symlink_to(elsewhere)
    options = "--host 127.0.0.1 --port 0 --associations 1"
    command = ["-m", "pacs", "conformance", "scu", *options.split(), "--trace-dir", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        ready = re.search(r"127\.0\.0\.1:(\d+), ", running.stderr.readline())
        assert ready is not None
        with socket.create_connection(("127.0.0.1", int(ready[1])), timeout=_SECONDS) as sock:
            sock.sendall(_request_of(b"A\x1b[2J", b"V\x1b[2J"))
            assert sock.recv(1) == b"\x02"
        printed = "".join(running.communicate(timeout=_SECONDS))

    traced = text.read_text("utf-8")
    assert r"A\x1b[2J" in printed
    assert r"A\x1b[2J" in traced
    assert r"V\x1b[2J" in traced
    assert "\x1b" not in printed + traced
    assert stat.S_IMODE(text.stat().st_mode) == 0o600
    assert elsewhere.read_text() == "kept"


def test_control_changes_the_rules_from_the_command_line() -> None:
    with ProgrammableSCP() as scp, Control(scp) as control:
        url = f"http://127.0.0.1:{control.port}"
        rule = '{"service": "C-ECHO", "status": 290}'
        done = CliRunner().invoke(app, ["conformance", "control", url, "add", rule])
        assert json.loads(done.output) == {"rules": 1}
        assert _echo(scp, "ANYONE") == 0x0122
