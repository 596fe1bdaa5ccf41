"""The commands as processes: what they print, for people and as JSON, and how they end."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset

from tests.acceptance.peers import Destination, store
from tests.acceptance.processes import (
    DEADLINE_SECONDS,
    Processes,
    Serving,
    environment,
    failed,
    rows,
    succeeded,
)
from tests.factories import make_instance

MUELLER = "Müller^Jürgen"
WANG = "Wang^XiaoDong=王^小东"


@pytest.fixture(scope="module")
def peer() -> Iterator[Destination]:
    """The destination that the archive knows as DEST."""
    started = Destination()
    yield started
    started.close()


@pytest.fixture(scope="module")
def instances() -> list[Dataset]:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientID": "P-1", "StudyInstanceUID": "1.1"}
    series = {"SeriesInstanceUID": "1.1.1", "PatientName": MUELLER, **latin}
    return [
        make_instance(SOPInstanceUID="1.1.1.1", **series),
        make_instance(SOPInstanceUID="1.1.1.2", **series),
        make_instance(
            SpecificCharacterSet="ISO_IR 192",
            PatientName=WANG,
            PatientID="P-2",
            StudyInstanceUID="1.2",
            SOPInstanceUID="1.2.1.1",
        ),
    ]


@pytest.fixture(scope="module")
def archive(
    tmp_path_factory: pytest.TempPathFactory, peer: Destination, instances: list[Dataset]
) -> Iterator[Processes]:
    """The directory of an archive that serves and holds ``instances``; commands run there."""
    started = Processes(tmp_path_factory.mktemp("archive"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def serving(archive: Processes, peer: Destination, instances: list[Dataset]) -> Serving:
    started = archive.serve("--remote-aes", peer.remote_aes)
    assert set(store(started.peer, *instances)) == {0x0000}
    return started


# Echo


def test_echo_tells_who_answered_and_how_fast(archive: Processes, serving: Serving) -> None:
    printed = succeeded(archive.run("echo", serving.address))

    assert re.fullmatch(rf"{re.escape(serving.address)} answered in \d+\.\d ms\n", printed)


def test_echo_with_another_called_ae_title_tells_the_reason(
    archive: Processes, serving: Serving
) -> None:
    message = failed(archive.run("echo", f"OTHER@127.0.0.1:{serving.port}"), 3)

    assert "rejected the association: Called AE title not recognised" in message


@pytest.mark.parametrize("command", [["echo"], ["find"], ["move", "--to", "DEST"]])
def test_command_to_a_dead_port_ends_with_exit_code_3(
    processes: Processes, dead_port: int, command: list[str]
) -> None:
    name, *options = command
    keys = ["StudyInstanceUID=1.1"] if name == "move" else []

    message = failed(processes.run(name, f"PACS@127.0.0.1:{dead_port}", *options, *keys), 3)

    assert f"PACS@127.0.0.1:{dead_port}" in message


# Find


def test_find_prints_a_row_for_each_study(archive: Processes, serving: Serving) -> None:
    completed = archive.run("find", serving.address)

    heading, *studies = rows(succeeded(completed))
    assert heading[:2] == ["PatientID", "PatientName"]
    assert sorted((study[0], study[1], study[-1]) for study in studies) == [
        ("P-1", MUELLER, "1.1"),
        ("P-2", WANG, "1.2"),
    ]
    assert completed.stderr == "2 matches\n"


@pytest.mark.parametrize("name", ["müller*", "MULLER*", "Müller^Jürgen", "M?ller^*"])
def test_find_by_name_with_an_umlaut_folds_case_and_accent(
    archive: Processes, serving: Serving, name: str
) -> None:
    found = json.loads(
        succeeded(archive.run("find", serving.address, f"PatientName={name}", "--json"))
    )

    assert [match["00100010"]["Value"] for match in found] == [[{"Alphabetic": MUELLER}]]


def test_find_by_ideographic_name_without_a_unicode_locale_finds_it(
    archive: Processes, serving: Serving
) -> None:
    completed = archive.run("find", serving.address, "PatientName=王^小东", env={"LC_ALL": "C"})

    assert WANG in succeeded(completed)
    assert completed.stderr == "1 match\n"


@pytest.mark.parametrize(
    ("level", "keys", "expected"),
    [
        ("PATIENT", [], {"P-1", "P-2"}),
        ("STUDY", ["StudyDate=20240101-"], {"1.1", "1.2"}),
        ("SERIES", ["StudyInstanceUID=1.1"], {"1.1.1"}),
        (
            "IMAGE",
            ["StudyInstanceUID=1.1", "SeriesInstanceUID=1.1.1", "Rows=8"],
            {"1.1.1.1", "1.1.1.2"},
        ),
    ],
)
def test_find_at_each_level_returns_its_unique_key(
    archive: Processes, serving: Serving, level: str, keys: list[str], expected: set[str]
) -> None:
    unique = {
        "PATIENT": "00100020",
        "STUDY": "0020000D",
        "SERIES": "0020000E",
        "IMAGE": "00080018",
    }

    found = json.loads(
        succeeded(archive.run("find", serving.address, *keys, "--level", level, "--json"))
    )

    assert {match[unique[level]]["Value"][0] for match in found} == expected


def test_find_without_matches_succeeds(archive: Processes, serving: Serving) -> None:
    completed = archive.run("find", serving.address, "0010,0020=NOBODY")

    assert len(rows(succeeded(completed))) == 1
    assert completed.stderr == "0 matches\n"


def test_find_that_the_archive_refuses_tells_its_reason(
    archive: Processes, serving: Serving
) -> None:
    message = failed(archive.run("find", serving.address, "--level", "IMAGE"), 1)

    assert "answered 0xA900: " in message
    assert "StudyInstanceUID" in message


def test_find_into_a_closed_pipe_ends_quietly(archive: Processes, serving: Serving) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pacs", "find", serving.address, "--json"],
        env=environment(),
        cwd=archive.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        printed = process.stderr.read()
        status = process.wait(DEADLINE_SECONDS)

    assert printed == ""
    assert status == 1


# Move, and what is recorded of it


def test_move_sends_the_study_and_is_recorded(
    archive: Processes, serving: Serving, peer: Destination, instances: list[Dataset]
) -> None:
    peer.digests.clear()

    printed = succeeded(
        archive.run("move", serving.address, "--to", "DEST", "StudyInstanceUID=1.1")
    )

    assert printed == "status 0x0000: 2 completed, 0 failed, 0 warning, to DEST\n"
    assert peer.digests.keys() == {"1.1.1.1", "1.1.1.2"}
    (newest, *_) = json.loads(succeeded(archive.run("retrieve", "list", "--json")))
    number = str(newest["number"])
    shown = json.loads(succeeded(archive.run("retrieve", "show", number, "--json")))
    assert {key: shown[key] for key in newest} == newest
    assert shown["destination"] == "DEST"
    assert shown["status"] == "0000"
    operations = shown["sub_operations"]
    assert [one["sop_instance_uid"] for one in operations] == ["1.1.1.1", "1.1.1.2"]
    assert {one["outcome"] for one in operations} == {"completed"}
    assert shown["failed_sop_instance_uid_list"] == []


def test_move_as_json_gives_the_counters(archive: Processes, serving: Serving) -> None:
    printed = succeeded(
        archive.run("move", serving.address, "--to", "DEST", "StudyInstanceUID=1.2", "--json")
    )

    assert json.loads(printed) == {
        "status": 0x0000,
        "matched": True,
        "comment": "",
        "remaining": None,
        "completed": 1,
        "failed": 0,
        "warning": 0,
        "failed_uids": [],
    }


def test_move_to_an_unknown_destination_ends_with_exit_code_1(
    archive: Processes, serving: Serving
) -> None:
    completed = archive.run("move", serving.address, "--to", "NOBODY", "StudyInstanceUID=1.1")

    assert completed.returncode == 1
    assert completed.stdout == (
        "status 0xA801: 0 completed, 0 failed, 0 warning, to NOBODY\n"
        "Move Destination NOBODY is not known\n"
    )


def test_retrieve_list_prints_a_row_for_each(archive: Processes, serving: Serving) -> None:
    archive.run("move", serving.address, "--to", "NOBODY", "StudyInstanceUID=1.2")

    heading, newest, *_ = rows(succeeded(archive.run("retrieve", "list")))

    assert heading[0] == "no."
    assert newest[2:7] == ["MOVE", "PACS@127.0.0.1", "NOBODY", "STUDY", "A801"]


def test_retrieve_show_prints_who_what_and_each_sub_operation(
    archive: Processes, serving: Serving
) -> None:
    archive.run("move", serving.address, "--to", "DEST", "StudyInstanceUID=1.2")
    (newest, *_) = json.loads(succeeded(archive.run("retrieve", "list", "--limit", "1", "--json")))

    printed = succeeded(archive.run("retrieve", "show", str(newest["number"])))

    assert re.search(r"^service: +C-MOVE, Study Root, level STUDY$", printed, re.MULTILINE)
    assert re.search(r"^destination: +DEST$", printed, re.MULTILINE)
    assert re.search(r"^ *1 +1\.2\.1\.1 +completed +0000 ", printed, re.MULTILINE)


def test_retrieve_show_of_an_unknown_number_is_refused(archive: Processes) -> None:
    assert "no retrieve 999" in failed(archive.run("retrieve", "show", "999"), 2)


# Remote AEs


def test_ae_add_list_remove(processes: Processes) -> None:
    succeeded(processes.run("db", "upgrade", "--make"))
    added = processes.run(
        "ae", "add", "RESEARCH", "10.0.0.7", "104", "--allow", "find", "--allow", "move"
    )
    listed = json.loads(succeeded(processes.run("ae", "list", "--json")))
    removed = processes.run("ae", "remove", "RESEARCH")

    assert succeeded(added) == "RESEARCH is registered at 10.0.0.7:104\n"
    assert [(one["title"], one["host"], one["port"], one["may"]) for one in listed] == [
        ("RESEARCH", "10.0.0.7", 104, "find move")
    ]
    assert succeeded(removed) == "RESEARCH is removed\n"
    assert json.loads(succeeded(processes.run("ae", "list", "--json"))) == []
    assert "'RESEARCH'" in failed(processes.run("ae", "remove", "RESEARCH"), 2)


@pytest.fixture
def registered(processes: Processes) -> list[str]:
    """The registration of RESEARCH, with nothing at its default."""
    succeeded(processes.run("db", "upgrade", "--make"))
    rights = ["--allow", "find", "--destination", "WS1", "--parallel-associations", "4"]
    added = ["ae", "add", "RESEARCH", "10.0.0.7", "104", *rights, "--tls", "--description", "of R"]
    succeeded(processes.run(*added))
    return ["RESEARCH", "10.0.0.7", "104", "find", "WS1", "index", "yes", "4", "of R"]


def listed_row(processes: Processes) -> list[str]:
    return rows(succeeded(processes.run("ae", "list")))[1]


def test_ae_add_of_a_registered_ae_keeps_what_is_not_named(
    processes: Processes, registered: list[str]
) -> None:
    moved = succeeded(processes.run("ae", "add", "RESEARCH", "10.0.0.8", "104"))
    again = succeeded(processes.run("ae", "add", "RESEARCH", "10.0.0.8", "104"))

    assert moved == "RESEARCH was registered, and is changed:\n  host: 10.0.0.7 -> 10.0.0.8\n"
    assert again == "RESEARCH is registered just so, nothing is changed\n"
    assert listed_row(processes) == [registered[0], "10.0.0.8", *registered[2:]]


def test_ae_set_changes_what_is_named_and_says_so(
    processes: Processes, registered: list[str]
) -> None:
    narrowed = succeeded(processes.run("ae", "set", "RESEARCH", "--allow", "move", "--port", "105"))
    assert narrowed == (
        "RESEARCH was registered, and is changed:\n  port: 104 -> 105\n  may: find -> move\n"
    )
    assert listed_row(processes) == ["RESEARCH", "10.0.0.7", "105", "move", *registered[4:]]

    reset = ("--allow", "all", "--any-destination", "--no-tls", "--description", "")
    widened = succeeded(processes.run("ae", "set", "RESEARCH", *reset))
    assert widened.splitlines()[1:] == [
        "  may: move -> all",
        "  may move to: WS1 -> any",
        "  TLS: yes -> no",
        "  description: of R -> none",
    ]


def test_ae_set_of_what_is_not_registered_says_where_it_is(processes: Processes) -> None:
    succeeded(processes.run("db", "upgrade", "--make"))
    settings = {"PACS_REMOTE_AES": "VIEWER=10.0.0.8:104"}

    unknown = failed(processes.run("ae", "set", "NOBODY", "--tls"), 2)
    nothing = failed(processes.run("ae", "set", "VIEWER"), 2)
    elsewhere = failed(processes.run("ae", "set", "VIEWER", "--tls", env=settings), 2)

    assert "no remote AE 'NOBODY' is registered" in unknown
    assert "say what to change" in nothing
    assert "VIEWER is registered by the setting remote_aes" in elsewhere
    assert rows(succeeded(processes.run("ae", "list"))) == [
        [
            "title",
            "host",
            "port",
            "may",
            "may move to",
            "from",
            "TLS",
            "associations",
            "description",
        ]
    ]


def test_peer_may_be_named_by_the_title_it_is_registered_under(
    archive: Processes, serving: Serving
) -> None:
    known = {"PACS_REMOTE_AES": f"PACS=127.0.0.1:{serving.port}"}

    echoed = succeeded(archive.run("echo", "PACS", env=known))
    found = archive.run("find", "PACS", "--json", env=known)
    moved = archive.run("move", "PACS", "--to", "NOBODY", "StudyInstanceUID=1.1", env=known)
    mistaken = failed(archive.run("find", "PACZ", env=known), 2)

    assert echoed.startswith(f"{serving.address} answered in ")
    assert len(json.loads(succeeded(found))) == 2
    assert "status 0xA801" in moved.stdout
    assert mistaken.endswith("got 'PACZ'; did you mean PACS?")


def test_ae_list_has_those_of_the_settings(processes: Processes) -> None:
    succeeded(processes.run("db", "upgrade", "--make"))

    printed = succeeded(processes.run("ae", "list", "--remote-aes", "VIEWER=10.0.0.8:104"))

    assert rows(printed)[1][:6] == ["VIEWER", "10.0.0.8", "104", "all", "any", "settings"]


def test_ae_echo_calls_a_registered_ae(archive: Processes, serving: Serving) -> None:
    succeeded(archive.run("ae", "add", "PACS", "127.0.0.1", str(serving.port)))

    printed = succeeded(archive.run("ae", "echo", "PACS"))

    assert printed.startswith(f"{serving.address} answered in ")
    assert "'NOBODY'" in failed(archive.run("ae", "echo", "NOBODY"), 2)


def test_ae_add_reaches_a_running_server(
    archive: Processes, serving: Serving, destination: Destination
) -> None:
    # The destination calls itself DEST, and does not mind being called by another title.
    move = ("move", serving.address, "--to", "ADDED", "StudyInstanceUID=1.2")
    assert archive.run(*move).returncode == 1

    succeeded(archive.run("ae", "add", "ADDED", "127.0.0.1", str(destination.port)))

    deadline = time.monotonic() + DEADLINE_SECONDS
    while (completed := archive.run(*move)).returncode and time.monotonic() < deadline:
        assert "0xA801" in completed.stdout
    assert destination.digests.keys() == {"1.2.1.1"}, completed


# Administration


def test_stats_count_what_is_stored(archive: Processes, serving: Serving) -> None:
    stats = json.loads(succeeded(archive.run("stats", "--json")))
    printed = succeeded(archive.run("stats"))

    size = stats.pop("size_bytes")
    assert stats == {"patients": 2, "studies": 2, "series": 2, "instances": 3}
    assert 3 * 500 < size < 3 * 2000
    assert dict(rows(printed)[:4]) == {key: str(value) for key, value in stats.items()}


def test_check_of_a_served_archive_finds_nothing_wrong(
    archive: Processes, serving: Serving
) -> None:
    checked = json.loads(succeeded(archive.run("check", "--deep", "--json")))

    assert checked["counts"] == {"sound": 3}
    assert checked["findings"] == []
