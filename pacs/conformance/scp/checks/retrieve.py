"""C-MOVE and C-GET (PS3.4 C.4.2 and C.4.3, PS3.7 9.1.3 and 9.1.4)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import UNCOMPRESSED, Run
from pacs.conformance.scp.checks.retrieving import (
    FAILED,
    IDENTIFIER,
    REMAINING,
    RESPONSE_IDENTIFIER,
    SCP_BEHAVIOUR,
    STATUS,
    Retrieved,
    keys_of,
    retrieve,
    retrieve_check,
    some,
    success,
    target,
    uids,
)
from pacs.conformance.scp.sample import SampleInstance
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association
from pacs.conformance.wire.message import Message, cancel
from pacs.dicom.information_model import InformationModel, Operation
from pacs.dicom.levels import Level

_SUCCESS, _CANCEL, _WARNING = 0x0000, 0xFE00, 0xB000
_DESTINATION_UNKNOWN, _NOT_OF_SOP_CLASS = 0xA801, 0xA900
_OUT_OF_RESOURCES, _COERCED = 0xA700, 0xB000
_MOVE, _GET = Operation.MOVE, Operation.GET
_COUNTERS = ("Remaining", "Completed", "Failed", "Warning")


def _is_failure(status: int | None) -> bool:
    """Whether a status is Failure or Refused (PS3.7 C): Axxx, Cxxx, 01xx, 02xx."""
    return status is not None and (status >> 12 in (0xA, 0xC) or status >> 8 in (0x01, 0x02))


def _expect_arrival(run: Run, got: Retrieved, instances: Sequence[SampleInstance]) -> None:
    run.expect(
        sorted(got.instance_uids) == uids(instances),
        f"a C-STORE sub-operation for each of the {len(instances)} instances, and no other",
        f"{len(got.instance_uids)} sub-operations, {got.status_text}",
    )
    run.expect(got.final.status == _SUCCESS, "final status 0x0000", got.status_text)


def _whole(run: Run, level: Level) -> list[SampleInstance]:
    instances = some(run, level, at_least=2)
    run.sent(f"a retrieve at {level.name} level of {len(instances)} instances")
    _expect_arrival(
        run, retrieve(run, *target(run, level, instances), instances=instances), instances
    )
    return instances


@retrieve_check("patient", SCP_BEHAVIOUR, "retrieves all instances of a patient", needs_sample=True)
def of_patient(run: Run) -> None:
    """PATIENT is a level of Patient Root only."""
    if run.model is not InformationModel.PATIENT_ROOT:
        run.not_applicable("Study Root has no PATIENT level")
    _whole(run, Level.PATIENT)


@retrieve_check("study", SCP_BEHAVIOUR, "retrieves all instances of a study", needs_sample=True)
def of_study(run: Run) -> None:
    """With the unique keys of the levels above."""
    _whole(run, Level.STUDY)


@retrieve_check("series", SCP_BEHAVIOUR, "retrieves all instances of a series", needs_sample=True)
def of_series(run: Run) -> None:
    """With the unique keys of the levels above."""
    _whole(run, Level.SERIES)


@retrieve_check("image", SCP_BEHAVIOUR, "retrieves one instance")
def of_instance(run: Run) -> None:
    """With the unique keys of the levels above."""
    instances = some(run, Level.SERIES)[:1]
    run.sent("a retrieve at IMAGE level of one instance")
    _expect_arrival(
        run,
        retrieve(run, *target(run, Level.IMAGE, instances), instances=instances),
        instances,
    )


@retrieve_check("uid-list", IDENTIFIER, "retrieves the instances of a list of UIDs")
def of_list(run: Run) -> None:
    """The unique key of the level of the retrieve may be a list of UIDs."""
    instances = some(run, Level.SERIES, at_least=2)[:2]
    run.sent("a retrieve at IMAGE level of two SOP Instance UIDs")
    _expect_arrival(
        run,
        retrieve(run, *target(run, Level.IMAGE, instances), instances=instances),
        instances,
    )


@retrieve_check(
    "nothing-matches",
    STATUS,
    "ends a retrieve of what it does not have without a sub-operation",
    Requirement.SHOULD,
)
def nothing_matches(run: Run) -> None:
    """Success with nothing done is what the table leaves; some archives call it a failure."""
    run.sent("a retrieve at STUDY level of a Study Instance UID that nobody has")
    instances = some(run, Level.STUDY)
    keys = keys_of(run, Level.STUDY, instances) | {"StudyInstanceUID": str(generate_uid(None))}
    got = retrieve(run, Level.STUDY, keys, instances=instances)
    run.expect(not got.instance_uids, "no sub-operation", f"{len(got.instance_uids)}")
    run.expect(got.final.status == _SUCCESS, "status 0x0000", got.status_text)


# Counters


@retrieve_check("counters-pending", REMAINING, "has all four counters in a pending response")
def counters_are_there(run: Run) -> None:
    """Pending responses are optional, their counters are not."""
    instances = some(run, Level.STUDY, at_least=2)
    run.sent(f"a retrieve at STUDY level of {len(instances)} instances")
    got = retrieve(run, *target(run, Level.STUDY, instances), instances=instances)
    if not got.pending:
        run.not_applicable("no pending response came; they are optional")
    for response in got.pending:
        missing = [name for name in _COUNTERS if got.counter(name, response) is None]
        run.expect(
            not missing,
            "Number of Remaining, Completed, Failed and Warning Sub-operations",
            f"no {', '.join(missing) or 'gaps'}",
        )


@retrieve_check("counters-sum", REMAINING, "counts each sub-operation once in each response")
def counters_add_up(run: Run) -> None:
    """Remaining, completed, failed and warning are all there are, and only remaining shrinks."""
    instances = some(run, Level.STUDY, at_least=2)
    run.sent(f"a retrieve at STUDY level of {len(instances)} instances, the second one refused")
    got = retrieve(
        run,
        *target(run, Level.STUDY, instances),
        lambda number, _: _OUT_OF_RESOURCES if number == 1 else _SUCCESS,
        instances=instances,
    )
    done_before = 0
    for response in (*got.pending, got.final):
        values = [got.counter(name, response) for name in _COUNTERS]
        known = [value for value in values if value is not None]
        if len(known) < 3:
            continue
        run.expect(
            sum(known) == len(instances),
            f"counters that sum to {len(instances)}",
            f"remaining, completed, failed, warning: {values}",
        )
        done = sum(known) - (values[0] or 0)
        run.expect(
            done >= done_before, "sub-operations done never become fewer", f"{done_before}, {done}"
        )
        done_before = done


@retrieve_check(
    "remaining-not-in-final",
    REMAINING,
    "leaves Number of Remaining Sub-operations out of a final response with Success",
)
def nothing_remains(run: Run) -> None:
    """It shall not be in responses with Warning, Failure or Success."""
    instances = some(run, Level.SERIES)
    run.sent("a retrieve at SERIES level")
    got = retrieve(run, *target(run, Level.SERIES, instances), instances=instances)
    run.expect(got.counter("Remaining") is None, "no such element", got.status_text)


# Sub-operations that fail


def _of_refused(run: Run, refused: Sequence[int], status: int) -> tuple[Retrieved, list[str]]:
    """Retrieve a study while the n-th sub-operations are answered with ``status``; their UIDs."""
    instances = some(run, Level.STUDY, at_least=2)
    affected: list[str] = []

    def answers(number: int, request: Message) -> int:
        if number not in refused:
            return _SUCCESS
        affected.append(str(request.command.get("AffectedSOPInstanceUID", "")))
        return status

    run.sent(f"a retrieve of {len(instances)} instances; 0x{status:04X} to some C-STORE requests")
    return retrieve(
        run, *target(run, Level.STUDY, instances), answers, instances=instances
    ), affected


@retrieve_check("some-fail", STATUS, "ends with a warning when some sub-operations failed")
def some_fail(run: Run) -> None:
    """B000: complete, one or more failures or warnings. To give up with a failure instead is doubtful."""
    got, _ = _of_refused(run, [1], _OUT_OF_RESOURCES)
    run.expect(got.final.status != _SUCCESS, "status 0xB000", got.status_text)
    run.expect(
        got.counter("Failed") in (None, 1), "Number of Failed Sub-operations 1", got.status_text
    )
    if got.final.status != _WARNING:
        run.warn("status 0xB000", f"{got.status_text}, though a sub-operation was completed")


@retrieve_check("all-fail", SCP_BEHAVIOUR, "ends with a failure when all sub-operations failed")
def all_fail(run: Run) -> None:
    """Failure or Refused if all sub-operations were unsuccessful."""
    got, _ = _of_refused(run, range(1000), _OUT_OF_RESOURCES)
    run.expect(_is_failure(got.final.status), "a failure, 0xA702 for one", got.status_text)


@retrieve_check("warnings", STATUS, "ends with a warning when a sub-operation ended with a warning")
def some_warn(run: Run) -> None:
    """A C-STORE that was answered with B000 was neither a success nor a failure."""
    got, _ = _of_refused(run, [1], _COERCED)
    run.expect(got.final.status == _WARNING, "status 0xB000", got.status_text)
    run.expect(
        got.counter("Warning") in (None, 1), "Number of Warning Sub-operations 1", got.status_text
    )


@retrieve_check(
    "failed-list",
    RESPONSE_IDENTIFIER,
    "lists the instances whose sub-operation failed in the final response, and no other",
)
def failed_are_listed(run: Run) -> None:
    """Failed SOP Instance UID List (0008,0058)."""
    got, affected = _of_refused(run, [1], _OUT_OF_RESOURCES)
    run.expect(
        sorted(got.failed_uids) == sorted(affected),
        f"Failed SOP Instance UID List {affected}",
        f"{got.failed_uids}",
    )


@retrieve_check(
    "failed-list-absent",
    RESPONSE_IDENTIFIER,
    "has no list of failed instances where none failed",
)
def nothing_failed(run: Run) -> None:
    """An Identifier with an empty list is tolerable; one with UIDs is not."""
    instances = some(run, Level.SERIES)
    run.sent("a retrieve at SERIES level")
    got = retrieve(run, *target(run, Level.SERIES, instances), instances=instances)
    run.expect(not got.failed_uids, "no Failed SOP Instance UID", f"{got.failed_uids}")


@retrieve_check(
    "class-refused",
    FAILED,
    "counts an instance whose SOP Class is not accepted as a failed sub-operation",
)
def refused_class(run: Run) -> None:
    """C-GET: the requestor proposes no context for it; C-MOVE: the destination accepts none."""
    instances = some(run, Level.SERIES)
    run.sent("a retrieve of a series whose SOP Class is not accepted for the sub-operations")
    if run.destination is not None:
        run.destination.refused_syntaxes = frozenset(one.sop_class_uid for one in instances)
    got = retrieve(run, *target(run, Level.SERIES, instances))
    run.expect(
        _is_failure(got.final.status) and not got.instance_uids,
        "a failure, and no sub-operation",
        f"{len(got.instance_uids)} sub-operations, {got.status_text}",
    )
    run.expect(
        got.counter("Failed") in (None, len(instances)),
        f"Number of Failed Sub-operations {len(instances)}",
        got.status_text,
    )


# Cancel


@retrieve_check("cancel", SCP_BEHAVIOUR, "ends after C-CANCEL with 0xFE00, or when it is done")
def cancelled(run: Run) -> None:
    """What was sent before the C-CANCEL came is sent; nothing comes after the final response."""
    instances = some(run, Level.STUDY, at_least=2)
    run.sent("a retrieve at STUDY level, and C-CANCEL at the first pending response")

    def stop(association: Association, number: int, response: Message) -> None:
        if not sent:
            sent.append(number)
            association.send(cancel(response.context_id, number))

    sent: list[int] = []
    got = retrieve(run, *target(run, Level.STUDY, instances), instances=instances, on_pending=stop)
    if not sent:
        run.not_applicable("no pending response came, so there was no time to cancel")
    run.expect(
        got.final.status == _CANCEL or len(got.instance_uids) == len(instances),
        "status 0xFE00, or all sub-operations done",
        f"{len(got.instance_uids)} of {len(instances)} instances, {got.status_text}",
    )


# Identifiers that are wrong. The Standard says what an SCU shall send, and has a status for what does not fit; that an
# SCP uses it is nowhere a "shall".


def _expect_refusal(run: Run, level: Level | str, keys: dict[str, object]) -> None:
    instances = some(run, Level.STUDY)
    got = retrieve(run, level, keys, instances=instances)
    run.expect(not got.instance_uids, "no sub-operation", f"{len(got.instance_uids)}")
    run.expect(_is_failure(got.final.status), "a failure, 0xA900 for one", got.status_text)


@retrieve_check(
    "level-unknown",
    IDENTIFIER,
    "refuses a Query/Retrieve Level that does not exist",
    Requirement.SHOULD,
)
def unknown_level(run: Run) -> None:
    """The Identifier does not match the SOP Class."""
    run.sent("a retrieve at level VOLUME")
    _expect_refusal(run, "VOLUME", keys_of(run, Level.STUDY, some(run, Level.STUDY)))


@retrieve_check(
    "level-of-other-model",
    IDENTIFIER,
    "refuses a Query/Retrieve Level that its model does not have",
    Requirement.SHOULD,
)
def foreign_level(run: Run) -> None:
    """Study Root has no PATIENT level."""
    if run.model is not InformationModel.STUDY_ROOT:
        run.not_applicable("Patient Root has every level")
    run.sent("a retrieve at PATIENT level of Study Root")
    patient = str(some(run, Level.STUDY)[0].attributes.get("PatientID", ""))
    _expect_refusal(run, Level.PATIENT, {"PatientID": patient})


@retrieve_check(
    "unique-key-missing",
    IDENTIFIER,
    "refuses a retrieve without the unique key of its level",
    Requirement.SHOULD,
)
def no_unique_key(run: Run) -> None:
    """A retrieve of everything there is would be the alternative."""
    run.sent("a retrieve at STUDY level without Study Instance UID")
    keys = keys_of(run, Level.STUDY, some(run, Level.STUDY))
    keys.pop("StudyInstanceUID")
    _expect_refusal(run, Level.STUDY, keys)


@retrieve_check(
    "unique-key-above-missing",
    IDENTIFIER,
    "refuses a retrieve without the unique keys of the levels above, unless relational was negotiated",
    Requirement.SHOULD,
)
def no_key_above(run: Run) -> None:
    """The SCU shall send them (baseline behaviour); that an SCP refuses without them is no "shall" of the text."""
    instances = some(run, Level.SERIES)
    run.sent("a retrieve at SERIES level without Study Instance UID")
    keys = keys_of(run, Level.SERIES, instances)
    keys.pop("StudyInstanceUID")
    got = retrieve(run, Level.SERIES, keys, instances=instances)
    run.expect(
        _is_failure(got.final.status) and not got.instance_uids,
        "a failure, 0xA900 for one",
        f"{len(got.instance_uids)} sub-operations, {got.status_text}",
    )


# C-MOVE alone


@retrieve_check(
    "destination-unknown", {_MOVE: STATUS[_MOVE]}, "refuses a Move Destination it does not know"
)
def unknown_destination(run: Run) -> None:
    """A801; another failure is doubtful."""
    instances = some(run, Level.SERIES)
    run.sent("a C-MOVE to NOBODY_KNOWS_ME")
    keys = keys_of(run, Level.SERIES, instances)
    got = retrieve(run, Level.SERIES, keys, destination="NOBODY_KNOWS_ME")
    run.expect(
        _is_failure(got.final.status), "status 0xA801 (Move Destination unknown)", got.status_text
    )
    if got.final.status != _DESTINATION_UNKNOWN:
        run.warn("status 0xA801 (Move Destination unknown)", f"{got.status_text}; 0xA801 says it")


@retrieve_check(
    "destination-rejects",
    {_MOVE: SCP_BEHAVIOUR[_MOVE]},
    "ends with a failure when the Move Destination rejects the association",
)
def rejecting_destination(run: Run) -> None:
    """No sub-operation can be done."""
    assert run.destination is not None
    run.destination.reject = pdus.AssociateReject(1, 1, 3)
    instances = some(run, Level.SERIES)
    run.sent("a C-MOVE to a destination that rejects the association")
    got = retrieve(run, *target(run, Level.SERIES, instances))
    run.expect(_is_failure(got.final.status), "a failure, 0xA702 for one", got.status_text)


@retrieve_check(
    "destination-dead",
    {_MOVE: SCP_BEHAVIOUR[_MOVE]},
    "ends with a failure when nobody listens at the Move Destination",
)
def dead_destination(run: Run) -> None:
    """No sub-operation can be done, and the SCU is told so in time."""
    assert run.destination is not None
    instances = some(run, Level.SERIES)
    run.sent("a C-MOVE to a destination where nobody listens")
    with run.destination.away():
        got = retrieve(run, *target(run, Level.SERIES, instances))
    run.expect(_is_failure(got.final.status), "a failure, 0xA702 for one", got.status_text)


@retrieve_check(
    "destination-aborts",
    {_MOVE: SCP_BEHAVIOUR[_MOVE]},
    "does not call a C-MOVE a success when its destination aborted",
)
def aborting_destination(run: Run) -> None:
    """It may call again, and the second try may succeed; then that has to be true."""
    instances = some(run, Level.STUDY, at_least=2)
    run.sent("a C-MOVE whose destination aborts the association at the first C-STORE")
    stored: list[str] = []

    def answers(number: int, request: Message) -> int | None:
        if number == 0:
            return None
        stored.append(str(request.command.get("AffectedSOPInstanceUID", "")))
        return _SUCCESS

    got = retrieve(run, *target(run, Level.STUDY, instances), answers)
    are_all_stored = sorted(stored) == uids(instances)
    run.expect(
        got.final.status != _SUCCESS or are_all_stored,
        "0xB000 or a failure, unless all came on another association",
        f"{len(stored)} of {len(instances)} stored, {got.status_text}",
    )


@retrieve_check(
    "originator",
    {_MOVE: "PS3.7 9.1.1.1.6"},
    "names the C-MOVE in the C-STORE requests it leads to",
)
def originator(run: Run) -> None:
    """Both elements are optional; what they hold is not."""
    assert run.destination is not None
    instances = some(run, Level.SERIES)
    run.sent("a C-MOVE at SERIES level")
    retrieve(run, *target(run, Level.SERIES, instances))
    for one in run.destination.received:
        title = one.request.command.get("MoveOriginatorApplicationEntityTitle")
        number = one.request.command.get("MoveOriginatorMessageID")
        if title is None or number is None:
            run.warn("Move Originator AE Title and Message ID", "one is missing; they are optional")
        run.expect(
            title in (None, run.peer.calling_ae_title),
            f"Move Originator AE Title {run.peer.calling_ae_title}",
            repr(title),
        )
        run.expect(number in (None, 1), "Move Originator Message ID 1", repr(number))


@retrieve_check(
    "destination-called",
    {_MOVE: SCP_BEHAVIOUR[_MOVE]},
    "calls the Move Destination by its title",
    Requirement.SHOULD,
)
def called_title(run: Run) -> None:
    """An archive may have an alias for it; a destination that looks at its title will refuse that."""
    assert run.destination is not None
    instances = some(run, Level.SERIES)
    run.sent(f"a C-MOVE to {run.destination.ae_title}")
    retrieve(run, *target(run, Level.SERIES, instances))
    titles = sorted({one.called_ae_title for one in run.destination.received})
    run.expect(titles == [run.destination.ae_title], run.destination.ae_title, f"{titles}")


# What arrives


@retrieve_check(
    "content",
    {_MOVE: "PS3.4 B.4.1"},
    "sends an instance as it was stored",
    needs_sample=True,
)
def content_is_unchanged(run: Run) -> None:
    """An archive may coerce the patient and study of an instance; its UIDs, and pixels with what describes them, stay.

    No Storage Level discards those; Level 0 and 1 may discard others.
    """
    assert run.destination is not None
    images = (group for group in run.sample.entities(Level.SERIES) if all(map(_is_image, group)))
    instances = next(images, None)
    if instances is None:
        run.not_applicable("no uncompressed image of the sample was stored")
    run.sent("a C-MOVE at SERIES level")
    retrieve(run, *target(run, Level.SERIES, instances), success)
    stored = {one.sop_instance_uid: one for one in instances}
    same = [
        (stored[str(one.data_set.SOPInstanceUID)].attributes, one.data_set)
        for one in run.destination.received
        if stored[str(one.data_set.SOPInstanceUID)].transfer_syntax == one.transfer_syntax
    ]
    if not same:
        run.not_applicable("sent in another transfer syntax than it was stored in")
    for original, received in same:
        changed = _changed(original, received)
        run.expect(not changed, "the Attributes that were stored", f"changed: {', '.join(changed)}")


def _is_image(one: SampleInstance) -> bool:
    return "PixelData" in one.attributes and one.transfer_syntax in UNCOMPRESSED


def _changed(stored: Dataset, received: Dataset) -> list[str]:
    """The keywords of what is not as it was of the pixels and their description."""
    tags = [
        element.tag
        for element in stored
        if element.VR != "SQ" and element.tag.group in (0x0028, 0x7FE0)
    ]
    return [
        stored[tag].keyword
        for tag in tags
        if tag not in received or stored[tag].value != received[tag].value
    ]
