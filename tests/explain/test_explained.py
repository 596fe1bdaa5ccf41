"""What ``pacs explain`` says of situations that real clients get into: DCMTK, and peers that break the rules."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from pacs.config import Settings
from pacs.conformance.scp.operations import responses as answers
from pacs.conformance.scp.operations import start
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, Rejected
from pacs.conformance.wire.trace import Trace
from pacs.dicom.information_model import Operation
from pacs.errors import InvalidSetting
from pacs.explain.explanation import Site
from pacs.explain.problems import Problem, Problems
from pacs.explain.traces import explain_trace, read_traces
from pacs.model.remote_ae import Service
from tests.dimse.retrieving import STUDY, store_study, study_query
from tests.factories import make_instance, part10
from tests.peers import (
    CALLED,
    PATIENT_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
    Destination,
    RunningArchive,
    association,
    closed_port,
    database_url_of,
    deposit,
    register,
    responses,
    wait_until,
)
from tests.serving import Serve, engine_on_sqlite
from tests.wire.wire import (
    ASSOCIATE_RJ,
    IMPLICIT,
    Wire,
    associate_pdu,
    echo_command,
    message,
    p_data,
)

StartDestination = Callable[..., Destination]


def dcmtk(tool: str, *arguments: object) -> None:
    """Run one of DCMTK's tools; that it fails is the point."""
    path = Path("/usr/bin", tool)
    if not path.exists():
        pytest.skip(f"DCMTK is not installed: no {tool}")
    subprocess.run([path, *map(str, arguments)], capture_output=True, check=False, timeout=30)


def explained(running: RunningArchive, **settings: str) -> Problem:
    """The latest problem, once there is one and its association is over."""
    index = running.archive.index
    wait_until(lambda: index.associations.newest(only_problems=True))
    remotes = {one.title: one for one in index.remote_aes.all()}
    (problem,) = Problems(index, Site(remotes=remotes, settings=settings)).latest()
    return problem


def whole(problem: Problem) -> str:
    """Everything that is said of it."""
    return json.dumps(problem.as_dict())


def commands(problem: Problem) -> list[str]:
    """The commands to type."""
    return [one.command_line for each in problem.explanations for one in each.change if one.command]


# C-MOVE


@engine_on_sqlite
def test_movescu_to_an_unknown_destination(serve: Serve) -> None:
    running = serve()
    register(running.archive, "RESEARCH", 104)
    store_study(running, 1)
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}")
    where = ("127.0.0.1", running.port)
    dcmtk("movescu", "-S", "-aet", "WS1", "-aec", CALLED, "-aem", "RESEARCH2", *keys, *where)

    problem = explained(running)

    assert problem.explanations[0].what == (
        "A801 Refused: Move Destination unknown: WS1 asked by C-MOVE STUDY to move to RESEARCH2"
    )
    assert "Known destinations are: RESEARCH." in whole(problem)
    assert "RESEARCH2 looks like RESEARCH" in whole(problem)
    assert commands(problem) == ["pacs ae add RESEARCH2 HOST PORT"]


@engine_on_sqlite
def test_a_destination_that_is_down(serve: Serve) -> None:
    running = serve()
    register(running.archive, "DEST", closed_port())
    store_study(running, 2)
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))

    problem = explained(running)

    assert problem.explanations[0].what.startswith("A702 ")
    assert commands(problem)[0] == "pacs ae echo DEST"
    assert "pacs retrieve retry 1" in commands(problem)


@engine_on_sqlite
def test_a_destination_that_refuses_some(serve: Serve, start_destination: StartDestination) -> None:
    running = serve()
    uids = store_study(running, 3)
    destination = start_destination(title="DEST", answers={uids[1]: 0xA700})
    register(running.archive, "DEST", destination.port)
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))

    problem = explained(running)

    assert problem.explanations[0].what.startswith("B000 ")
    assert "2 completed, 1 failed" in whole(problem)
    assert "1 of the instances: A700" in whole(problem)
    assert "2 of the instances" not in whole(problem)
    assert "The destination answered A700 (Refused: out of resources)" in whole(problem)
    assert commands(problem) == ["pacs retrieve show 1 --failed", "pacs retrieve retry 1"]


@engine_on_sqlite
def test_a_destination_that_may_not_be_named(serve: Serve) -> None:
    running = serve()
    register(running.archive, "WS1", 104, destinations=frozenset({"RESEARCH"}))
    with association(running, STUDY_ROOT_MOVE, calling="WS1") as assoc:
        responses(assoc.send_c_move(study_query(), "OTHER", STUDY_ROOT_MOVE))

    assert commands(explained(running)) == [
        "pacs ae add WS1 127.0.0.1 104 --destination OTHER --destination RESEARCH"
    ]


@engine_on_sqlite
def test_the_command_given_for_0124_mends_it(serve: Serve) -> None:
    running = serve()
    register(running.archive, "WS1", 104, services=frozenset({Service.ECHO}))
    with association(running, PATIENT_ROOT_FIND, calling="WS1") as assoc:
        responses(assoc.send_c_find(study_query(), PATIENT_ROOT_FIND))

    problem = explained(running)
    (command,) = commands(problem)
    assert command == "pacs ae add WS1 127.0.0.1 104 --allow echo --allow find"
    _run(running, *command.split()[1:], status=0)

    (remote,) = running.archive.index.remote_aes.all()
    assert remote.services == {Service.ECHO, Service.FIND}


@engine_on_sqlite
def test_get_without_a_storage_context(serve: Serve) -> None:
    running = serve()
    store_study(running, 1)
    with association(running, STUDY_ROOT_GET) as assoc:
        responses(assoc.send_c_get(study_query(), STUDY_ROOT_GET))

    problem = explained(running)

    assert problem.explanations[0].what.startswith("A702 ")
    assert "role selection" in whole(problem)
    assert commands(problem) == ["pacs retrieve show 1 --failed"]


# C-FIND and C-STORE


@engine_on_sqlite
def test_findscu_with_a_key_below_its_level(serve: Serve) -> None:
    running = serve()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "SOPInstanceUID=1.2.3")
    dcmtk("findscu", "-S", "-aet", "WS1", "-aec", CALLED, *keys, "127.0.0.1", running.port)

    problem = explained(running)

    assert problem.explanations[0].what.startswith("A900 ")
    assert "mend or leave out SOPInstanceUID (0008,0018)" in whole(problem)
    assert "relational" in whole(problem)


@engine_on_sqlite
def test_too_many_matches(serve: Serve) -> None:
    running = serve(find_limit=1)
    deposit(running.archive, make_instance(), make_instance())
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=")
    dcmtk("findscu", "-S", "-aec", CALLED, *keys, "127.0.0.1", running.port)

    problem = explained(running, find_limit="1")

    assert problem.explanations[0].what.startswith("A700 ")
    assert "find_limit (now 1" in whole(problem)
    assert "Matches sent before that: 1." in whole(problem)


@engine_on_sqlite
def test_storescu_of_an_instance_that_is_there_already(serve: Serve, tmp_path: Path) -> None:
    running = serve(duplicate_policy="refuse")
    first = make_instance(SOPInstanceUID="1.2.3", PatientName="A^B")
    deposit(running.archive, first)
    file = tmp_path / "second.dcm"
    file.write_bytes(part10(make_instance(SOPInstanceUID="1.2.3", PatientName="SECRET^NAME")))
    dcmtk("storescu", "-aec", CALLED, "127.0.0.1", running.port, file)

    problem = explained(running)

    assert problem.explanations[0].what.startswith("C011 ")
    assert "pacs serve --duplicate-policy replace" in commands(problem)
    assert "SECRET" not in whole(problem)


# Associations


@engine_on_sqlite
def test_echoscu_with_a_wrong_called_title(serve: Serve) -> None:
    running = serve()
    dcmtk("echoscu", "-aet", "WS1", "-aec", "ARCHIVE", "127.0.0.1", running.port)

    problem = explained(running)

    assert problem.explanations[0].what == (
        "Rejected permanently: called AE title not recognised: WS1@127.0.0.1 called ARCHIVE"
    )
    assert "call PACS (not ARCHIVE)" in whole(problem)


@engine_on_sqlite
def test_a_stranger_from_another_host(serve: Serve) -> None:
    address = next(
        (
            str(one.address)
            for addresses in psutil.net_if_addrs().values()
            for one in addresses
            if one.family == socket.AF_INET and not ipaddress.ip_address(one.address).is_loopback
        ),
        None,
    )
    if address is None:
        pytest.skip("this machine has no IPv4 address beside the loopback ones")
    running = serve(host="0.0.0.0")
    with Wire(running.port, host=address) as wire:
        wire.send(associate_pdu({1: (VERIFICATION, IMPLICIT)}, calling="STRANGER"))
        assert wire.ends() == ASSOCIATE_RJ

    problem = explained(running)

    assert "calling AE title not recognised" in whole(problem)
    assert commands(problem) == [f"pacs ae add STRANGER {address} PORT"]


@engine_on_sqlite
def test_an_application_context_that_is_not_dicoms(serve: Serve) -> None:
    running = serve()
    request = associate_pdu({1: (VERIFICATION, IMPLICIT)})
    with Wire(running.port) as wire:
        wire.send(request.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9"))
        assert wire.ends() == ASSOCIATE_RJ

    assert "application context name not supported" in whole(explained(running))


@engine_on_sqlite
def test_a_context_that_was_refused_and_then_used(serve: Serve) -> None:
    running = serve()
    worklist = "1.2.840.10008.5.1.4.31"
    with Wire(running.port) as wire:
        wire.associate({1: (VERIFICATION, IMPLICIT), 3: (worklist, IMPLICIT)})
        wire.send(p_data(3, 3, echo_command()))
        wire.ends()

    problem = explained(running)

    assert "used a presentation context that was refused" in whole(problem)
    assert worklist in whole(problem)


@engine_on_sqlite
def test_a_message_id_that_is_in_progress_and_an_operation_that_is_none(serve: Serve) -> None:
    running = serve()
    with Wire(running.port) as wire:
        wire.associate()
        wire.send(message(1, echo_command()) + message(1, echo_command()))
        wire.answer()
        wire.answer()
        wire.send(message(1, echo_command(CommandField=0x0020)))
        wire.answer()

    problem = explained(running)

    assert [one.what[:4] for one in problem.explanations][:1] in (["0210"], ["0211"])
    assert any(one.what.startswith("0211") for one in problem.explanations)
    assert any("connection lost" in one.what for one in problem.explanations)


# The command


def _run(running: RunningArchive, *arguments: str, status: int = 1) -> str:
    """What a command printed; ``pacs explain`` ends with 1 when something went wrong."""
    places = (
        *("--data-dir", str(running.archive.storage.root.parent)),
        *("--database-url", database_url_of(running.archive).replace("+pysqlite", "")),
    )
    done = subprocess.run(
        [sys.executable, "-m", "pacs", *arguments, *places],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


@engine_on_sqlite
def test_explain_prints_the_latest_problem(serve: Serve) -> None:
    running = serve()
    with association(running, STUDY_ROOT_MOVE, calling="WS1") as assoc:
        responses(assoc.send_c_move(study_query(), "NOWHERE", STUDY_ROOT_MOVE))
    explained(running)

    printed = _run(running, "explain")

    assert printed.startswith("association 1: WS1@127.0.0.1, ")
    assert "    pacs ae add NOWHERE HOST PORT\n" in printed
    assert json.loads(_run(running, "explain", "--json", "--ae", "WS1"))[0]["number"] == 1
    assert (
        json.loads(_run(running, "explain", "--json", "--ae", "WS2", "--last", "5", status=0)) == []
    )
    assert "Move Destination unknown" in _run(running, "explain", "0xA801", status=0)
    (retrieve,) = json.loads(_run(running, "explain", "--json", "--retrieve", "1"))
    assert (retrieve["kind"], retrieve["explanations"][0]["clause"]) == (
        "retrieve",
        "PS3.4 C.4.2.1.5",
    )


def _are_recorded(running: RunningArchive, count: int) -> bool:
    return len(running.archive.index.associations.newest(9)) == count


@engine_on_sqlite
def test_the_newest_problem_comes_first(serve: Serve) -> None:
    running = serve()
    index = running.archive.index
    for number in (1, 2, 3):
        with association(running, STUDY_ROOT_MOVE, calling=f"WS{number}") as assoc:
            responses(assoc.send_c_move(study_query(), "NOWHERE", STUDY_ROOT_MOVE))
        wait_until(partial(_are_recorded, running, number))

    found = Problems(index, Site()).latest(2)

    assert [(one.kind, one.calling_ae) for one in found] == [
        ("association", "WS3"),
        ("association", "WS2"),
    ]


@engine_on_sqlite
def test_a_retrieve_is_explained_while_its_association_is_open(serve: Serve) -> None:
    running = serve()
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "NOWHERE", STUDY_ROOT_MOVE))
        (found,) = Problems(running.archive.index, Site()).latest()

    assert (found.kind, found.number) == ("retrieve", 1)
    assert found.explanations[0].what.startswith("A801 ")


@engine_on_sqlite
def test_explain_probes_only_when_asked(serve: Serve, start_destination: StartDestination) -> None:
    running = serve()
    destination = start_destination(title="DEST", answer=0xA700)
    register(running.archive, "DEST", destination.port)
    store_study(running, 1)
    with association(running, STUDY_ROOT_MOVE) as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))
    explained(running)
    established = destination.established

    assert "Just now" not in _run(running, "explain")
    assert destination.established == established
    assert "Just now: DEST " in _run(running, "explain", "--probe")


def _write(directory: Path, *traces: Trace) -> str:
    file = directory / "trace.json"
    document = {"associations": [trace.to_json() for trace in traces]}
    file.write_text(json.dumps(document), "utf-8")
    return str(file)


@engine_on_sqlite
def test_a_trace_of_a_move_and_of_a_rejection_is_explained(serve: Serve, tmp_path: Path) -> None:
    running = serve()
    register(running.archive, "RESEARCH", 104)
    moved, rejected = Trace("an SCU under test"), Trace("the same")
    contexts = (pdus.ProposedContext(1, STUDY_ROOT_MOVE, (IMPLICIT,)),)
    address = ("127.0.0.1", running.port)
    with Association.connect(address, moved, 10) as assoc:
        assoc.request(pdus.AssociateRequest(CALLED, "WS1", contexts=contexts))
        start(
            assoc,
            assoc.contexts[1],
            Operation.MOVE,
            study_query(),
            MoveDestination="research",
        )
        answers(assoc)
        assoc.release()
    with Association.connect(address, rejected, 10) as assoc, pytest.raises(Rejected):
        assoc.request(pdus.AssociateRequest("ARCHIVE", "WS1", contexts=contexts))

    file = _write(tmp_path, moved, rejected)
    found = json.loads(_run(running, "explain", "--json", "--trace", file))

    assert [one["what"] for one in found] == [
        "A801 Refused: Move Destination unknown: WS1 asked by C-MOVE STUDY to move to research",
        "Rejected permanently: called AE title not recognised: WS1@HOST called ARCHIVE",
    ]
    assert "research looks like RESEARCH" in found[0]["change"][0]["text"]
    assert "Move Destination research is not known" in found[0]["why"][1]


@pytest.mark.parametrize(
    ("direction", "what"),
    [
        ("sent", "WS1@HOST aborted the association (unexpected PDU)"),
        ("received", "PACS aborted the association of WS1"),
    ],
)
def test_a_trace_tells_who_aborted(direction: str, what: str) -> None:
    trace = Trace("an SCU under test")
    trace.pdu("sent", pdus.AssociateRequest(CALLED, "WS1"))
    trace.pdu(direction, pdus.Abort(2, 2))

    (found,) = explain_trace(trace, Site())

    assert found.what == what


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"{}", "has no trace"),
        (b'{"entries": [{}], "title": "", "started": ""}', "is incomplete: 'seconds'"),
        (b'{"entries": [3]}', "is incomplete"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "trace.json"
    file.write_bytes(content)

    with pytest.raises(InvalidSetting, match=problem):
        read_traces(file)


def test_a_status_is_explained_without_making_an_archive(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pacs", "explain", "0xA801", "--service", "C-MOVE"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )

    assert "Move Destination unknown" in done.stdout
    assert not (
        tmp_path / Settings.model_fields["data_dir"].get_default(call_default_factory=True)
    ).exists()
