"""Storage commitment (PS3.4 J) with an SCU that sends what no library would, when nobody expects it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.dsutils import encode

from pacs.archive.commitment import check
from pacs.dicom.storage_commitment import SOP_CLASS_UID, SOP_INSTANCE_UID
from pacs.model.commitments import CommitmentRequest, CommitmentState
from pacs.wire import command
from tests.dimse.committing import action_information, wait_for
from tests.peers import VERIFICATION, RunningArchive
from tests.serving import Serve, engine_on_sqlite, engine_only
from tests.wire.wire import (
    ABORT_PDU,
    EXPLICIT,
    RELEASE_PDU,
    Wire,
    echo_command,
    message,
)

_N_ACTION_RSP, _N_EVENT_REPORT_RQ, _N_EVENT_REPORT_RSP, _C_ECHO_RSP = 0x8130, 0x0100, 0x8100, 0x8030
_UNKNOWN = [(CTImageStorage, f"1.2.3.4.{number}") for number in range(900, 920)]


@contextmanager
def _associated(running: RunningArchive) -> Iterator[Wire]:
    with Wire(running.port) as wire:
        wire.associate({1: (SOP_CLASS_UID, EXPLICIT), 3: (VERIFICATION, EXPLICIT)})
        yield wire


def _request(message_id: int) -> bytes:
    """An N-ACTION request for instances that are not stored."""
    information = encode(action_information(_UNKNOWN), False, True)
    assert information is not None
    return message(
        1,
        command.encode(
            {
                "RequestedSOPClassUID": SOP_CLASS_UID,
                "CommandField": 0x0130,
                "MessageID": message_id,
                "CommandDataSetType": command.HAS_DATA_SET,
                "RequestedSOPInstanceUID": SOP_INSTANCE_UID,
                "ActionTypeID": 1,
            }
        ),
        BytesIO(information).getvalue(),
    )


def _response(field: int, message_id: object, status: int = 0x0000) -> bytes:
    """A response of whatever service to a Message ID."""
    assert isinstance(message_id, int)
    return message(
        1,
        command.encode(
            {
                "AffectedSOPClassUID": SOP_CLASS_UID,
                "CommandField": field,
                "MessageIDBeingRespondedTo": message_id,
                "CommandDataSetType": command.NO_DATA_SET,
                "Status": status,
            }
        ),
    )


def _until(wire: Wire, field: int) -> dict[str, object]:
    """The next message with this command field."""
    while True:
        answer = wire.answer()
        if answer["CommandField"] == field:
            return answer


@pytest.fixture
def service(serve: Serve) -> RunningArchive:
    """A report that cannot be delivered is given up at once: nobody here is registered."""
    return serve(commitment_retries=0)


def _states(running: RunningArchive) -> list[CommitmentState]:
    return [record.state for record in running.archive.index.commitments.all()]


@pytest.mark.parametrize("ending", [ABORT_PDU, RELEASE_PDU, b""], ids=["abort", "release", "close"])
@engine_only
def test_requests_whose_turn_had_not_come_are_not_forgotten(
    service: RunningArchive, ending: bytes
) -> None:
    """PS3.4 J.3.2: what was answered with Success is reported, here by an association of its own."""
    with _associated(service) as wire:
        for message_id in (1, 2, 3):
            wire.send(_request(message_id))
            _until(wire, _N_ACTION_RSP)
        wire.send(ending)

    # Nobody is registered, which is what becomes of a transaction that is worked on.
    wait_for(lambda: _states(service) == [CommitmentState.UNDELIVERABLE] * 3)


@engine_on_sqlite
def test_more_requests_than_an_association_reports_on_go_to_the_delivery(
    service: RunningArchive,
) -> None:
    count = 40

    with _associated(service) as wire:
        for message_id in range(1, count + 1):
            wire.send(_request(message_id))
            assert _until(wire, _N_ACTION_RSP)["Status"] == 0x0000
        wire.send(ABORT_PDU)

    wait_for(lambda: _states(service) == [CommitmentState.UNDELIVERABLE] * count)


@engine_on_sqlite
def test_report_is_acknowledged_by_its_own_response_only(service: RunningArchive) -> None:
    """PS3.7 10.1.1: a response of another service with this Message ID is none to the report."""
    with _associated(service) as wire:
        wire.send(_request(1))
        report = _until(wire, _N_EVENT_REPORT_RQ)
        wire.send(_response(_C_ECHO_RSP, report["MessageID"]))
        wire.send(message(3, echo_command(2)))
        _until(wire, _C_ECHO_RSP)
        assert _states(service) == [CommitmentState.CHECKED]
        wire.send(_response(_N_EVENT_REPORT_RSP, report["MessageID"], 0x0110))
        wait_for(lambda: _states(service) == [CommitmentState.UNDELIVERABLE])


@engine_on_sqlite
def test_late_answer_to_one_report_does_not_acknowledge_the_next(serve: Serve) -> None:
    service = serve(dimse_timeout_seconds=0.3, commitment_retries=0)
    with _associated(service) as wire:
        wire.send(_request(1))
        late = _until(wire, _N_EVENT_REPORT_RQ)
        # The silence is noticed when it is too long for a response, not when it is for the network.
        wait_for(lambda: _states(service) == [CommitmentState.UNDELIVERABLE])
        wire.send(_request(2))
        report = _until(wire, _N_EVENT_REPORT_RQ)
        wire.send(_response(_N_EVENT_REPORT_RSP, late["MessageID"]))
        wire.send(_response(_N_EVENT_REPORT_RSP, report["MessageID"], 0x0110))
        wait_for(lambda: _states(service) == [CommitmentState.UNDELIVERABLE] * 2)


@engine_on_sqlite
def test_check_gives_way_after_each_reference(service: RunningArchive) -> None:
    """Also where there is nothing to read: the peer is served, and a stop is heard, between any two."""
    commitments = service.archive.index.commitments
    request = CommitmentRequest(
        transaction_uid="1.2.3",
        calling_ae="STRANGER",
        calling_host="127.0.0.1",
        requested_at=datetime.now(UTC),
    )
    references = [*_UNKNOWN, ("1.2.840.10008.1.1", "1.2.3.4")]
    key = commitments.begin(request, references, 0x0131)

    assert sum(1 for _ in check(service.archive, key)) >= len(references)
