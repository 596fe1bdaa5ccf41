"""What an SCU sends while its request is served, at moments that no ready-made SCU can be told to choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage

from pacs.conformance.judgement import CheckResult, Verdict
from pacs.conformance.scu.judge import judge
from pacs.conformance.scu.rules import Rule
from pacs.conformance.scu.scenario import load
from pacs.conformance.scu.server import ProgrammableSCP
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, proposed_contexts
from pacs.conformance.wire.message import (
    CommandField,
    CommandValue,
    Message,
    cancel,
    encode_data_set,
    request,
    response,
)
from pacs.conformance.wire.trace import Trace
from pacs.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.peers import STUDY_ROOT_FIND, STUDY_ROOT_GET, VERIFICATION, wait_until

_FIND, _GET, _STORE, _ECHO = 1, 3, 5, 7
_SYNTAXES = (STUDY_ROOT_FIND, STUDY_ROOT_GET, SecondaryCaptureImageStorage, VERIFICATION)


@contextmanager
def _associated(scp: ProgrammableSCP) -> Iterator[Association]:
    proposal = pdus.AssociateRequest(
        "ANY",
        "EARLY",
        (
            pdus.maximum_length(1 << 16),
            *pdus.implementation(IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
            pdus.role_selection(SecondaryCaptureImageStorage, scu=True, scp=True),
        ),
        contexts=proposed_contexts([(uid, (ImplicitVRLittleEndian,)) for uid in _SYNTAXES]),
    )
    with Association.connect(("127.0.0.1", scp.port), Trace("SCU"), 10) as association:
        association.request(proposal)
        yield association
        association.release()


def _asking(field: CommandField, context_id: int, message_id: int, level: str) -> Message:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    identifier.StudyInstanceUID = "2.25.1001"
    if level == "IMAGE":
        identifier.SeriesInstanceUID = "2.25.1001.1"
        identifier.SOPInstanceUID = ""
    data = encode_data_set(identifier, ImplicitVRLittleEndian)
    uid = _SYNTAXES[context_id // 2]
    return request(field, context_id, message_id, uid, data, Priority=0)


def _get(
    association: Association, *, is_cancelled: bool = False, **changes: CommandValue
) -> Message:
    """The final response to a C-GET whose C-STOREs are answered, the first one with these changes."""
    association.send(_asking(CommandField.C_GET_RQ, _GET, 21, "STUDY"))
    if is_cancelled:
        first = association.receive()
        assert first.command["CommandField"] == CommandField.C_STORE_RQ
        association.send(cancel(_GET, 21))
        association.send(response(first, 0))
    while True:
        received = association.receive()
        if received.command["CommandField"] == CommandField.C_STORE_RQ:
            association.send(response(received, 0, **changes))
            changes = {}
        elif received.status != 0xFF00:
            return received


def _result(scp: ProgrammableSCP, name: str) -> CheckResult:
    wait_until(lambda: scp.is_idle)
    return next(one for one in judge(scp.sessions).results if one.name == name)


def test_a_c_get_is_cancelled_before_its_sub_operation_is_answered() -> None:
    """PS3.4 C.4.3.3: Cancel, and what remains is counted."""
    with ProgrammableSCP(load("move-success")) as scp, _associated(scp) as association:
        final = _get(association, is_cancelled=True)
    assert final.status == 0xFE00
    assert final.command["NumberOfCompletedSuboperations"] == 1
    assert final.command["NumberOfRemainingSuboperations"] == 2


def test_a_cancelled_message_id_may_be_used_again() -> None:
    """PS3.7 9.3.2.3: a C-CANCEL is of one request, and no other one with its Message ID."""
    with ProgrammableSCP(load("move-success")) as scp, _associated(scp) as association:
        assert _get(association, is_cancelled=True).status == 0xFE00
        assert _get(association).status == 0x0000


def test_a_request_that_comes_too_early_is_answered_in_its_turn_and_held_against_the_scu() -> None:
    """PS3.7 D.3.3.3: without a negotiated window there is one operation at a time."""
    pause = Rule(service="C-FIND", response=1, delay_seconds=0.3)
    with ProgrammableSCP(load("move-success"), rules=[pause]) as scp:
        with _associated(scp) as association:
            association.send(_asking(CommandField.C_FIND_RQ, _FIND, 31, "IMAGE"))
            association.send(request(CommandField.C_ECHO_RQ, _ECHO, 32, VERIFICATION))
            answers = [association.receive() for _ in range(5)]
        found = _result(scp, "message.outstanding")
    assert [one.responds_to for one in answers] == [31, 31, 31, 31, 32]
    assert answers[-1].status == 0x0000
    assert found.verdict is Verdict.FAIL
    assert "C-ECHO-RQ during C-FIND-RQ" in found.received


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"AffectedSOPInstanceUID": "2.25.999"}, "2.25.999"),
        ({"AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "1.2.840.10008.5.1.4.1.1.2"),
    ],
    ids=["instance", "class"],
)
def test_a_c_store_of_a_c_get_is_answered_for_another_instance(
    changes: dict[str, CommandValue], says: str
) -> None:
    """PS3.7 9.1.1: what the response names is what the request named."""
    with ProgrammableSCP(load("move-success")) as scp:
        with _associated(scp) as association:
            _get(association, **changes)
        found = _result(scp, "message.responses")
    assert found.verdict is Verdict.FAIL
    assert says in found.received


def test_a_command_set_that_lies_about_its_length_is_held_against_the_scu() -> None:
    """PS3.7 6.3.1: it is understood and answered all the same."""
    echo = request(CommandField.C_ECHO_RQ, _ECHO, 5, VERIFICATION)
    encoded = bytearray(echo.encoded_command())
    encoded[8] += 2
    with ProgrammableSCP(load("move-success")) as scp:
        with _associated(scp) as association:
            association.send(echo)
            regular = association.receive()
            association.send(replace(echo, raw_command=bytes(encoded)))
            assert association.receive().command == regular.command
        found = _result(scp, "message.command-set")
        lines = "\n".join(scp.sessions[-1].association.trace.lines())
    assert found.verdict is Verdict.FAIL
    said = "the Command Group Length is 58, and 56 bytes follow"
    assert found.received.endswith(f": C-ECHO-RQ: {said}")
    assert f"irregular command set\n{'':17}{said}" in lines


def test_a_response_to_nothing_is_held_against_the_scu() -> None:
    """PS3.7 9.3.1.2: Message ID Being Responded To is that of the request."""
    with ProgrammableSCP(load("move-success")) as scp:
        with _associated(scp) as association:
            association.send(_asking(CommandField.C_GET_RQ, _GET, 21, "STUDY"))
            first = association.receive()
            wrong = response(first, 0, MessageIDBeingRespondedTo=40_000)
            association.send(wrong)
            association.send(response(first, 0))
            for _ in range(2):
                association.receive()  # a pending response
                association.send(response(association.receive(), 0))
            assert association.receive().status == 0x0000
        found = _result(scp, "message.responses")
    assert found.verdict is Verdict.FAIL
    assert "40000" in found.received


def test_right_answers_pass() -> None:
    """The two elements that name the instance may be left out (PS3.7 Table 9.1-1)."""
    with ProgrammableSCP(load("move-success")) as scp:
        with _associated(scp) as association:
            _get(association)
        assert _result(scp, "message.responses").verdict is Verdict.PASS
        assert _result(scp, "message.outstanding").verdict is Verdict.PASS


def test_a_c_find_without_end_is_ended_by_a_c_cancel() -> None:
    """PS3.4 C.4.1.3: Cancel is the final status."""
    with ProgrammableSCP(load("find-endless")) as scp, _associated(scp) as association:
        association.send(_asking(CommandField.C_FIND_RQ, _FIND, 41, "IMAGE"))
        seen = [association.receive().status for _ in range(10)]  # of three instances
        association.send(cancel(_FIND, 41))
        while (last := association.receive().status) == 0xFF00:
            pass
    assert set(seen) == {0xFF00}
    assert last == 0xFE00
