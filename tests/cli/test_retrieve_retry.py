"""``pacs retrieve retry``: a recorded C-MOVE, a destination that refused, and the command that sends again."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from pydicom.dataset import Dataset

from pacs.archive.retry import plan_retry
from pacs.dicom.information_model import InformationModel
from pacs.errors import InvalidSetting
from pacs.index.index import Index
from pacs.model.remote_ae import Service
from pacs.model.retrieves import RetrieveOutcome, RetrieveRequest
from tests.dimse.retrieving import Getter, recorded, store_study, study_query
from tests.multiframe import make_multiframe
from tests.peers import (
    STUDY_ROOT_MOVE,
    Destination,
    RunningArchive,
    association,
    closed_port,
    database_url_of,
    deposit,
    identifier,
    register,
    response,
    responses,
    wait_until,
)
from tests.retrieve_records import begin_retrieve, continue_retrieve
from tests.serving import engine_on_sqlite, engine_only

StartDestination = Callable[..., Destination]
COMPOSITE_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.4.2"


def _move(running: RunningArchive) -> int:
    """Have the study sent to DEST by C-MOVE; the number of its record."""
    with association(running, STUDY_ROOT_MOVE, calling="ASKER") as assoc:
        responses(assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE))
    return recorded(running)[0].key


def _retry(running: RunningArchive, number: int, *options: str) -> subprocess.CompletedProcess[str]:
    archive = running.archive
    return subprocess.run(
        [
            *(sys.executable, "-m", "pacs", "retrieve", "retry", str(number), *options),
            *("--data-dir", str(archive.storage.root.parent)),
            *("--storage-url", str(archive.storage.root)),
            *("--database-url", database_url_of(archive).replace("+pysqlite", "")),
            *("--acse-timeout-seconds", "5", "--dimse-timeout-seconds", "5"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@engine_only
def test_retry_sends_what_failed_and_nothing_else_without_a_move_originator(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 4)
    destination.answers = {uids[1]: 0xA700, uids[2]: 0xB000, uids[3]: 0xC001}
    number = _move(service)
    destination.answers = {}
    destination.received.clear()

    completed = _retry(service, number)

    record, operations = recorded(service)
    assert completed.stderr == ""
    assert completed.stdout == (
        f"status 0x0000: 2 completed, 0 failed, 0 warning, to DEST, record {record.key}\n"
    )
    assert completed.returncode == 0
    assert destination.uids == [uids[1], uids[3]]
    assert [one.originator_ae for one in destination.received] == [None, None]
    assert [one.originator_id for one in destination.received] == [None, None]
    assert {one.calling_ae for one in destination.received} == {"PACS"}
    assert record.key > number
    assert (record.request.calling_ae, record.request.destination) == ("PACS", "DEST")
    assert json.loads(record.request.identifier)["retryOf"] == number
    assert [one.sop_instance_uid for one in operations] == [uids[1], uids[3]]
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.completed) == (0x0000, 2)


@engine_on_sqlite
@pytest.mark.parametrize("associations", [1, 2])
def test_retry_of_a_cancelled_retrieve_sends_what_was_not_tried_and_again_what_is_left(
    service: RunningArchive, start_destination: StartDestination, associations: int
) -> None:
    destination, may_answer = start_destination(), threading.Event()
    register(service.archive, "DEST", destination.port, parallel_associations=associations)
    uids = store_study(service, 20)
    destination.answers = {uids[0]: lambda _event: 0x0000 if may_answer.wait(10) else 0xC000}
    with association(service, STUDY_ROOT_MOVE) as assoc:
        answers = assoc.send_c_move(study_query(), "DEST", STUDY_ROOT_MOVE, msg_id=5)
        next(answers)
        assoc.send_c_cancel(5, query_model=STUDY_ROOT_MOVE)
        may_answer.set()
        final = response(*list(answers)[-1])
    assert final.status == 0xFE00
    arrived = set(destination.uids)
    destination.received.clear()
    # The first retry leaves one behind; a retry of that has only this one to send.
    destination.answers = {uids[19]: 0xA700}

    first = _retry(service, recorded(service)[0].key, "--json")
    sent = set(destination.uids)
    destination.received.clear()
    destination.answers = {}
    second = _retry(service, recorded(service)[0].key, "--json")

    assert sent == set(uids) - arrived
    assert (first.returncode, second.returncode) == (1, 0)
    assert destination.uids == [uids[19]]
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert (one["status"], two["status"]) == ("B000" if len(sent) > 1 else "A702", "0000")
    assert two["retry_of"] == one["number"]


@engine_on_sqlite
def test_retry_to_a_destination_that_is_still_away_is_a702_and_can_be_retried(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    register(service.archive, "DEST", closed_port())
    uids = store_study(service, 3)
    number = _move(service)

    failed = _retry(service, number)
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    succeeded = _retry(service, recorded(service)[0].key)

    assert failed.returncode == 1
    assert failed.stdout.startswith("status 0xA702: 0 completed, 3 failed, 0 warning, to DEST")
    assert f"{uids[0]}: DEST at 127.0.0.1:" in failed.stdout
    assert succeeded.returncode == 0
    assert destination.uids == uids


@engine_only
def test_second_retry_of_a_retrieve_sends_only_what_still_fails(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(answer=0xA700)
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 3)
    number = _move(service)
    destination.answer, destination.answers = 0x0000, {uids[1]: 0xA700}

    first = _retry(service, number)
    destination.received.clear()
    destination.answers = {}
    second = _retry(service, number)
    third = _retry(service, number)

    assert (first.returncode, second.returncode, third.returncode) == (1, 0, 0)
    assert destination.uids == [uids[1]]
    assert third.stderr == f"retrieve {number}: nothing is left to send\n"


@engine_on_sqlite
def test_retry_of_an_instance_that_is_gone_names_it(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination(answer=0xA700)
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 2)
    number = _move(service)
    service.archive.index.remove(uids[0])
    destination.answer = 0x0000
    destination.received.clear()

    completed = _retry(service, number)

    assert destination.uids == [uids[1]]
    assert completed.returncode == 1
    assert f"{uids[0]}: is not stored any more\n" in completed.stdout


@engine_on_sqlite
def test_retry_of_what_has_all_arrived_sends_nothing(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination = start_destination()
    register(service.archive, "DEST", destination.port)
    store_study(service, 1)
    number = _move(service)

    completed = _retry(service, number)

    assert (completed.returncode, completed.stdout) == (0, "")
    assert completed.stderr == f"retrieve {number}: nothing is left to send\n"
    assert len(destination.received) == 1
    assert recorded(service)[0].key == number


@engine_on_sqlite
def test_what_cannot_be_retried_is_one_line(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    destination, may_answer = start_destination(), threading.Event()
    register(service.archive, "DEST", destination.port)
    uids = store_study(service, 1)
    Getter().retrieve(service, study_query(), answers={uids[0]: 0xA700})
    got = recorded(service)[0]
    assert got.request.service is Service.GET
    destination.answers = {uids[0]: lambda _event: 0xA700 if may_answer.wait(30) else 0xC000}
    moving = threading.Thread(target=_move, args=(service,))
    moving.start()
    wait_until(lambda: destination.received)

    running = _retry(service, got.key + 1)
    may_answer.set()
    moving.join(30)
    service.archive.index.remote_aes.remove("DEST")
    answers = {
        "C-GET: only its requester can ask again": _retry(service, got.key),
        "is still running": running,
        "Move Destination DEST is not known any more": _retry(service, got.key + 1),
        "no retrieve 999 is recorded": _retry(service, 999),
    }

    for reason, completed in answers.items():
        assert completed.returncode == 2
        assert reason in completed.stderr
        assert completed.stderr.count("\n") == 1


def _unfinished(index: Index, model: str, level: str, identifier: str) -> int:
    """Record a C-MOVE of two instances that sent none of them."""
    request = RetrieveRequest(
        calling_ae="ASKER",
        calling_host="127.0.0.1",
        service=Service.MOVE,
        model=model,
        level=level,
        identifier=identifier,
        destination="DEST",
        message_id=1,
        started_at=datetime.now(UTC),
    )
    key = begin_retrieve(index, request)
    outcome = RetrieveOutcome(status=0xC000, completed=0, failed=0, warning=0, remaining=2)
    continue_retrieve(index, key, outcome=outcome)
    return key


def test_retry_of_a_record_without_a_readable_identifier_is_one_line(index: Index) -> None:
    key = _unfinished(index, "1.2.3", "", "{}")

    with pytest.raises(InvalidSetting, match="does not tell what was asked for"):
        plan_retry(SimpleNamespace(index=index), key)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "level"),
    [
        (InformationModel.COMPOSITE_INSTANCE_ROOT, "FRAME"),
        (InformationModel.WITHOUT_BULK_DATA, "IMAGE"),
    ],
    ids=["frames", "without bulk data"],
)
def test_retry_does_not_send_whole_what_was_asked_for_in_part(
    index: Index, model: InformationModel, level: str
) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.SOPInstanceUID = "1.2.3"
    key = _unfinished(index, model.value, level, identifier.to_json())

    with pytest.raises(InvalidSetting, match="parts of instances"):
        plan_retry(SimpleNamespace(index=index), key)  # type: ignore[arg-type]


@engine_on_sqlite
def test_retry_of_a_move_of_frames_sends_nothing_and_says_who_can_ask(
    service: RunningArchive, start_destination: StartDestination
) -> None:
    """PS3.4 Y.4.1: what was refused was an instance of these frames, which is stored nowhere."""
    destination = start_destination(answer=0xA700)
    register(service.archive, "DEST", destination.port)
    source = make_multiframe()
    deposit(service.archive, source)
    query = identifier("FRAME", SOPInstanceUID=source.SOPInstanceUID, SimpleFrameList=[2, 3])
    with association(service, COMPOSITE_ROOT_MOVE) as assoc:
        answers = responses(assoc.send_c_move(query, "DEST", COMPOSITE_ROOT_MOVE))
    number = recorded(service)[0].key
    was_refused = len(destination.received)
    destination.answer = 0x0000

    completed = _retry(service, number)

    assert (answers[-1].status, was_refused) == (0xA702, 1)
    assert completed.returncode != 0
    assert completed.stdout == ""
    assert f"retrieve {number} sent parts of instances: ask again" in completed.stderr
    assert len(completed.stderr.splitlines()) == 1
    assert len(destination.received) == was_refused
    assert recorded(service)[0].key == number


def test_retry_of_a_relational_retrieve_takes_its_identifier(index: Index) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.SOPInstanceUID = "1.2.3"
    key = _unfinished(index, InformationModel.STUDY_ROOT.value, "IMAGE", identifier.to_json())

    retry = plan_retry(SimpleNamespace(index=index), key)  # type: ignore[arg-type]

    assert not retry.plan.keys
