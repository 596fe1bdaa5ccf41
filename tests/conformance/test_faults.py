"""Each check can fail: faults planted in an SCP that is right otherwise, and which check has to see each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pacs.conformance.judgement import Verdict
from pacs.conformance.scp.runner import selected
from pacs.conformance.scu.rules import Rule
from tests.conformance.programmable import Judge, judging

_IMPLICIT = "1.2.840.10008.1.2"
_VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Fault:
    """What is wrong with the SCP, and the check that says so."""

    caught_by: str
    rule: Rule


def _fault(caught_by: str, **rule: Any) -> Fault:
    return Fault(caught_by, Rule(**rule))


FAULTS = {
    # Verification
    "echo is refused": _fault("verification.echo", service="C-ECHO", status=0x0110),
    "echo has another Message ID": _fault("verification.echo", service="C-ECHO", message_id=77),
    "echo without status": _fault("verification.echo", service="C-ECHO", without=("Status",)),
    "echo without response": _fault("verification.echo", service="C-ECHO", drop=True),
    # Negotiation
    "any abstract syntax is accepted": _fault(
        "negotiation.abstract-syntax-unknown", service="association", accept_unknown=True
    ),
    "a transfer syntax of its own": _fault(
        "negotiation.transfer-syntax-proposed", service="association", transfer_syntax="1.2.3"
    ),
    "contexts are not answered": _fault(
        "negotiation.contexts-answered", service="association", unanswered=(3,)
    ),
    "no Implicit VR Little Endian": _fault(
        "negotiation.implicit-vr", service="association", refuse=(_IMPLICIT,), refuse_result=4
    ),
    "another application context": _fault(
        "negotiation.application-context-returned", service="association", application_context="1.2"
    ),
    "other AE titles": _fault(
        "negotiation.titles-returned", service="association", other_titles=True
    ),
    "no Implementation Class UID": _fault(
        "negotiation.implementation-identified", service="association", without_items=(0x52,)
    ),
    "no maximum length": _fault(
        "negotiation.maximum-length-announced", service="association", without_items=(0x51,)
    ),
    "PDUs longer than announced": _fault(
        "negotiation.maximum-length-kept", service="C-ECHO", pdu_bytes=100_000
    ),
    "associations are rejected": _fault(
        "negotiation.release", service="association", reject=(1, 1, 1)
    ),
    # Storage
    "instances are refused": _fault("storage.success", service="C-STORE", status=0xA700),
    "instances are stored with another UID said": _fault(
        "storage.response-command", service="C-STORE", sop_class_uid="1.2.3"
    ),
    "responses to C-STORE without the SOP Instance": _fault(
        "storage.response-command", service="C-STORE", message_id=9999
    ),
    # C-FIND: the responses
    "a final response with an Identifier": _fault(
        "find.identifier-present", service="C-FIND", identifier="extra"
    ),
    "pending responses without an Identifier": _fault(
        "find.identifier-present", service="C-FIND", response=1, identifier="none"
    ),
    "pending responses that cannot be decoded": _fault(
        "find.identifier-present", service="C-FIND", response=1, identifier="garbage"
    ),
    "the wrong Message ID": _fault(
        "find.response-command", service="C-FIND", response="every", message_id=4711
    ),
    "the wrong SOP Class": _fault(
        "find.response-command", service="C-FIND", response="every", sop_class_uid="1.2.3"
    ),
    "an unknown pending status": _fault(
        "find.pending-status", service="C-FIND", response=1, status=0xFF02
    ),
    "no Query/Retrieve Level": _fault(
        "find.level-returned", service="C-FIND", response="every", omit=("QueryRetrieveLevel",)
    ),
    "another Query/Retrieve Level": _fault(
        "find.level-returned",
        service="C-FIND",
        response="every",
        set={"QueryRetrieveLevel": "IMAGE"},
    ),
    "no unique keys": _fault(
        "find.unique-keys", service="C-FIND", response="every", omit=("StudyInstanceUID",)
    ),
    "no Patient's Name": _fault(
        "find.required-keys", service="C-FIND", response="every", omit=("PatientName",)
    ),
    "another Patient's Name": _fault(
        "find.required-key-values", service="C-FIND", response="every", set={"PatientName": "X"}
    ),
    "the character set is not the one said": _fault(
        "find.character-sets", service="C-FIND", response="every", character_set="ISO_IR 101"
    ),
    # C-FIND: matching
    "matches are left out": _fault("find.complete", service="C-FIND", limit=1),
    "ranges of dates are ignored": _fault(
        "find.range-of-dates", service="C-FIND", ignore_keys=("StudyDate",)
    ),
    "ranges of times are ignored": _fault(
        "find.range-of-times", service="C-FIND", ignore_keys=("StudyTime",)
    ),
    "the UIDs of a list but the first are ignored": _fault(
        "find.list-of-uids", service="C-FIND", first_uid_only=True
    ),
    "Accession Number is ignored": _fault(
        "find.single-value", service="C-FIND", ignore_keys=("AccessionNumber",)
    ),
    "wild cards are ignored": _fault(
        "find.wild-card-star", service="C-FIND", ignore_keys=("AccessionNumber",)
    ),
    "Patient's Name is ignored": _fault(
        "find.patient-name", service="C-FIND", ignore_keys=("PatientName",)
    ),
    "levels that do not exist are taken": _fault(
        "find.level-unknown", service="C-FIND", unchecked=True
    ),
    # C-FIND: cancel
    "C-CANCEL is ignored and there is no end": _fault(
        "find.cancel", service="C-FIND", endless=True, ignore_cancel=True
    ),
    "the final response is lost": _fault("find.no-match", service="C-FIND", drop=True),
    # C-MOVE
    "a sub-operation is left out": _fault("move.study", service="C-MOVE", skip=(1,)),
    "a sub-operation is done twice": _fault("move.study", service="C-MOVE", repeat=(1,)),
    "C-MOVE stops in the middle": _fault("move.patient", service="C-MOVE", stop_after=1),
    "no counters while pending": _fault(
        "move.counters-pending",
        service="C-MOVE",
        response=1,
        counters={"remaining": -1},
    ),
    "counters that do not sum": _fault(
        "move.counters-sum", service="C-MOVE", response="every", counters={"completed": 17}
    ),
    "something remains at the end": _fault(
        "move.remaining-not-in-final", service="C-MOVE", counters={"remaining": 0}
    ),
    "Success though some failed": _fault("move.some-fail", service="C-MOVE", status=0x0000),
    "a warning though all failed": _fault("move.all-fail", service="C-MOVE", status=0xB000),
    "Success though one warned": _fault("move.warnings", service="C-MOVE", status=0x0000),
    "no list of the failed": _fault("move.failed-list", service="C-MOVE", failed_list="none"),
    "all are in the list of the failed": _fault(
        "move.failed-list", service="C-MOVE", failed_list="all"
    ),
    "a list of the failed though none failed": _fault(
        "move.failed-list-absent", service="C-MOVE", failed_list="all"
    ),
    "a Move Originator of its own": _fault(
        "move.originator", service="C-MOVE", originator="ARCHIVE"
    ),
    "no Move Originator": _fault("move.originator", service="C-MOVE", originator="none"),
    "the UIDs of a list but the first are not moved": _fault(
        "move.uid-list", service="C-MOVE", first_uid_only=True
    ),
    "C-CANCEL of a C-MOVE ends with a failure": _fault(
        "move.cancel", service="C-MOVE", status=0xB000, stop_after=1, ignore_cancel=True
    ),
    "C-MOVE takes a level that does not exist": _fault(
        "move.level-unknown", service="C-MOVE", unchecked=True
    ),
    "C-MOVE to nowhere is a success": _fault(
        "move.destination-unknown", service="C-MOVE", status=0x0000
    ),
    "C-MOVE is a success though its destination rejects": _fault(
        "move.destination-rejects", service="C-MOVE", status=0x0000
    ),
    "C-MOVE is a success though nobody listens": _fault(
        "move.destination-dead", service="C-MOVE", status=0x0000
    ),
    # C-GET
    "C-GET leaves a sub-operation out": _fault("get.study", service="C-GET", skip=(1,)),
    "C-GET counts wrong": _fault(
        "get.counters-sum", service="C-GET", response="every", counters={"failed": 5}
    ),
    "C-GET has no list of the failed": _fault(
        "get.failed-list", service="C-GET", failed_list="none"
    ),
    "C-GET is a success though all failed": _fault("get.all-fail", service="C-GET", status=0x0000),
    # Robustness
    "an echo that takes long": _fault(
        "robustness.reaction-time", service="C-ECHO", delay_seconds=1.2
    ),
}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """An SCP that is right, to begin with."""
    with judging() as one:
        yield one


def test_there_are_forty_of_them() -> None:
    assert len(FAULTS) >= 40


def test_without_a_fault_no_check_fails_or_warns(judge: Judge) -> None:
    found = judge.bad(["*"])

    assert not found, {name: one.received for name, one in found.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(judge: Judge, name: str) -> None:
    fault = FAULTS[name]

    found = judge.bad([fault.caught_by], fault.rule)

    assert fault.caught_by in found
    assert found[fault.caught_by].received


def test_a_warning_says_what_was_wanted(judge: Judge) -> None:
    """Not what was met before: PS3.8 9.3.3.2, result 3."""
    name = "negotiation.abstract-syntax-unknown"
    refused = Rule(service="association", refuse=("1.2.840.10008.1.2",), refuse_result=1)

    found = judge.bad([name], refused)[name]

    assert found.verdict is Verdict.WARNING
    assert "result 3" in found.expected
    assert "result 1" in found.received


def test_pixels_that_are_not_as_they_were_stored_are_noticed() -> None:
    """PS3.4 B.4.1: no Storage Level discards them."""
    with judging() as judge:
        judge.spoil_pixels()
        found = judge.bad(["*.content"])

    assert found["move.content"].verdict is Verdict.FAIL
    assert "PixelData" in found["move.content"].received


def _of_retrieves(**rule: Any) -> list[Rule]:
    return [Rule(service="C-MOVE", **rule), Rule(service="C-GET", **rule)]


def test_no_check_of_a_retrieve_is_blind(judge: Judge) -> None:
    """Each goes red under a gross fault, or under one of its own above."""
    patterns = ["move.*", "get.*"]
    wrong = {"completed": 99, "failed": 7, "warning": 7, "remaining": 7}
    gross = [
        _of_retrieves(status=0xA702),
        _of_retrieves(status=0x0000, unchecked=True),
        _of_retrieves(response="every", counters=wrong),
        _of_retrieves(response="every", counters={"remaining": -1}),
        _of_retrieves(failed_list="all"),
    ]
    names = {one.name for one in selected(patterns, [], read_only=False)}

    red = {name for rules in gross for name in judge.bad(patterns, *rules)}

    own = {fault.caught_by for fault in FAULTS.values()} | {"move.content"}
    assert names <= red | own
