"""Storage (PS3.4 Annex B, PS3.7 9.1.1): instances of a patient of the tool's own, beside the sample."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import UNCOMPRESSED, VERIFICATION, Run, check
from pacs.conformance.scp.generation import new_instance
from pacs.conformance.scp.operations import store
from pacs.conformance.scp.preparation import STORED_STATUSES
from pacs.conformance.scp.queries import hexadecimal
from pacs.conformance.scp.sample import SampleInstance
from pacs.conformance.scp.sop_instances import KINDS
from pacs.conformance.wire import pdu as pdus
from pacs.conformance.wire.association import Association, AssociationEnded, NegotiatedContext
from pacs.conformance.wire.message import (
    CommandField,
    Message,
    encode_data_set,
    fragments,
    request,
)

_storage_check = partial(check, needs_sample=True)
_PDV_HEADER_BYTES = 6
_LARGE_BYTES, _SMALL_PDU_BYTES = 8 << 20, 4096
_STORED = "status 0x0000, or a warning: 0xB000, 0xB006, 0xB007"


def _context(run: Run, association: Association, one: SampleInstance) -> NegotiatedContext:
    context = association.context_with(one.sop_class_uid, one.transfer_syntax)
    if context is None:
        run.not_applicable(f"{one.sop_class_uid} in {one.transfer_syntax} is not accepted")
    return context


def _stored(run: Run, one: SampleInstance, **elements: str | int) -> Message:
    """The response to a C-STORE on an association of its own."""
    with run.associate([(one.sop_class_uid, (one.transfer_syntax,))]) as association:
        return store(association, _context(run, association, one), one.attributes, **elements)


def _expect_stored(run: Run, answer: Message) -> None:
    run.expect(
        answer.status in STORED_STATUSES, _STORED, f"{hexadecimal(answer.status)} {answer.comment}"
    )


def _expect_answer(run: Run, answer: Message) -> None:
    """A response, whatever its status."""
    run.expect(answer.status is not None, "a response with a status", "a response without one")


@_storage_check("storage.success", "PS3.4 B.2.3", "stores a CT image")
def success(run: Run) -> None:
    """The simplest of all."""
    run.sent("C-STORE-RQ of a CT image")
    _expect_stored(run, _stored(run, new_instance(run.sample.token)))


@_storage_check(
    "storage.accepted-contexts",
    "PS3.4 B.2.3",
    "stores an instance of each SOP Class, in each transfer syntax, that it accepted",
    Requirement.SHOULD,
)
def accepted_contexts(run: Run) -> None:
    """A refused instance may have been refused for a reason of the archive's own."""
    instances = {name: new_instance(run.sample.token, name) for name in KINDS}
    run.sent(f"C-STORE-RQ of each of {', '.join(instances)}")
    pairs = dict.fromkeys((one.sop_class_uid, (one.transfer_syntax,)) for one in instances.values())
    refused = []
    with run.associate(list(pairs)) as association:
        for name, one in instances.items():
            context = association.context_with(one.sop_class_uid, one.transfer_syntax)
            if context is None:
                continue
            answer = store(association, context, one.attributes)
            if answer.status not in STORED_STATUSES:
                refused.append(f"{name}: {hexadecimal(answer.status)} {answer.comment}")
    run.expect(not refused, f"for each {_STORED}", "; ".join(refused))


@_storage_check("storage.response-command", "PS3.7 9.3.1.2", "says what a C-STORE-RSP responds to")
def response_command(run: Run) -> None:
    """Message ID 65535; Affected SOP Class and Instance UID, where there are any, as in the request."""
    one = new_instance(run.sample.token)
    run.sent("C-STORE-RQ with Message ID 65535")
    answer = _stored(run, one, MessageID=0xFFFF)
    run.expect(
        (answer.command.get("CommandField"), answer.responds_to)
        == (CommandField.C_STORE_RSP, 0xFFFF),
        "C-STORE-RSP, Message ID Being Responded To 65535",
        f"{answer.name}, Message ID Being Responded To {answer.responds_to}",
    )
    for keyword, wanted in (
        ("AffectedSOPClassUID", one.sop_class_uid),
        ("AffectedSOPInstanceUID", one.sop_instance_uid),
    ):
        came = answer.command.get(keyword, wanted)
        run.expect(came == wanted, f"{keyword} {wanted}, where there is one", f"{keyword} {came}")
    run.expect(answer.data is None, "no data set", "a data set")


@_storage_check(
    "storage.twice", "PS3.4 B.2.3", "answers when an instance that it has is stored again"
)
def stored_twice(run: Run) -> None:
    """What it does with it is its own affair; the status says whether it was taken."""
    one = new_instance(run.sample.token)
    run.sent("the same C-STORE-RQ, twice")
    _expect_stored(run, _stored(run, one))
    _expect_answer(run, _stored(run, one))


@_storage_check(
    "storage.sop-class-mismatch",
    "PS3.7 9.1.1.1.3",
    "does not report Success for a data set whose SOP Class UID is not that of the request",
    Requirement.SHOULD,
)
def sop_class_mismatch(run: Run) -> None:
    """0xA9xx, 0x0122 or 0xCxxx says so; 0xB007 does, too."""
    one = new_instance(run.sample.token)
    claimed = one.sop_class_uid
    one.attributes.SOPClassUID = KINDS["MR"].sop_class_uid
    run.sent(f"C-STORE-RQ with Affected SOP Class UID {claimed}, data set with that of MR")
    with run.associate([(claimed, (one.transfer_syntax,))]) as association:
        context = association.context_for(claimed)
        if context is None:
            run.not_applicable("CT is not accepted")
        answer = store(association, context, one.attributes, AffectedSOPClassUID=claimed)
    run.expect(answer.status != 0, "a failure or a warning", "status 0x0000, Success")


@_storage_check(
    "storage.sop-instance-mismatch",
    "PS3.7 9.1.1.1.4",
    "does not report Success for a data set whose SOP Instance UID is not that of the request",
    Requirement.SHOULD,
)
def sop_instance_mismatch(run: Run) -> None:
    """Whoever asked for storage commitment would ask for the wrong one."""
    one, other = new_instance(run.sample.token), new_instance(run.sample.token)
    run.sent("C-STORE-RQ whose Affected SOP Instance UID is another than that of the data set")
    answer = _stored(run, one, AffectedSOPInstanceUID=other.sop_instance_uid)
    run.expect(answer.status != 0, "a failure or a warning", "status 0x0000, Success")


@_storage_check(
    "storage.sop-instance-uid-missing",
    "PS3.3 C.12.1",
    "does not report Success for a data set without SOP Instance UID",
    Requirement.SHOULD,
)
def sop_instance_uid_missing(run: Run) -> None:
    """It is type 1: no instance is without."""
    one = new_instance(run.sample.token)
    uid = one.sop_instance_uid
    del one.attributes.SOPInstanceUID
    run.sent("C-STORE-RQ of a data set without SOP Instance UID")
    with run.associate([(one.sop_class_uid, (one.transfer_syntax,))]) as association:
        context = _context(run, association, one)
        association.send(
            request(
                CommandField.C_STORE_RQ,
                context.context_id,
                1,
                one.sop_class_uid,
                encode_data_set(one.attributes, context.transfer_syntax),
                AffectedSOPInstanceUID=uid,
            )
        )
        answer = association.receive()
    run.expect(answer.status != 0, "a failure or a warning", "status 0x0000, Success")


@_storage_check(
    "storage.context-of-another-class",
    "PS3.7 9.1.1.1.3",
    "does not report Success for an instance on the presentation context of another SOP Class",
    Requirement.SHOULD,
)
def context_of_another_class(run: Run) -> None:
    """The Affected SOP Class UID is the Abstract Syntax of the context (PS3.4 B.2.1)."""
    one = new_instance(run.sample.token)
    mr = KINDS["MR"]
    run.sent("C-STORE-RQ of a CT image on the presentation context of MR")
    with run.associate([(mr.sop_class_uid, (mr.transfer_syntax,))]) as association:
        context = association.context_for(mr.sop_class_uid)
        if context is None:
            run.not_applicable("MR is not accepted")
        answer = store(association, context, one.attributes)
    run.expect(answer.status != 0, "a failure, 0x0122 for one", "status 0x0000, Success")


@_storage_check(
    "storage.large-in-small-pdus",
    "PS3.8 9.3.5",
    "takes a data set of 8 MB in PDUs of 4 KB",
)
def large_in_small_pdus(run: Run) -> None:
    """A sender chooses the length of its PDUs, up to the receiver's maximum (PS3.8 D.1)."""
    one = new_instance(run.sample.token, Rows=2048, Columns=4096)
    one.attributes["PixelData"].value = bytes(_LARGE_BYTES)
    run.sent("C-STORE-RQ of 8 MB in PDUs of 4096 bytes")
    with run.associate([(one.sop_class_uid, (one.transfer_syntax,))]) as association:
        limit = association.peer_maximum_length or _SMALL_PDU_BYTES
        association.peer_maximum_length = min(limit, _SMALL_PDU_BYTES)
        answer = store(association, _context(run, association, one), one.attributes)
    _expect_stored(run, answer)


def _in_pdus(run: Run, one: SampleInstance, fragment_bytes: int, values_in_a_pdu: int) -> Message:
    """C-STORE in fragments of that size, so many of them in each P-DATA-TF PDU."""
    with run.associate([(one.sop_class_uid, (one.transfer_syntax,))]) as association:
        context = _context(run, association, one)
        message = request(
            CommandField.C_STORE_RQ,
            context.context_id,
            1,
            one.sop_class_uid,
            encode_data_set(one.attributes, context.transfer_syntax),
            AffectedSOPInstanceUID=one.sop_instance_uid,
        )
        pieces = tuple(fragments(message, fragment_bytes + _PDV_HEADER_BYTES))
        for begin in range(0, len(pieces), values_in_a_pdu):
            association.send_pdu(pdus.PData(pieces[begin : begin + values_in_a_pdu]))
        return association.receive()


@_storage_check(
    "storage.fragmented", "PS3.8 E.1", "takes command and data sets in fragments of 64 bytes"
)
def fragmented(run: Run) -> None:
    """Each in a PDU of its own."""
    run.sent("C-STORE-RQ in P-DATA-TF PDUs with one PDV of 64 bytes each")
    _expect_stored(run, _in_pdus(run, new_instance(run.sample.token), 64, 1))


@_storage_check(
    "storage.command-and-data-in-a-pdu",
    "PS3.8 9.3.5",
    "takes command and data set as two presentation data values of one PDU",
)
def command_and_data_in_a_pdu(run: Run) -> None:
    """A P-DATA-TF PDU has one or more of them; this one is shorter than any usual maximum length."""
    run.sent("C-STORE-RQ in one P-DATA-TF PDU with two PDVs")
    _expect_stored(run, _in_pdus(run, new_instance(run.sample.token), 4096, 2))


@_storage_check(
    "storage.contexts-in-turn",
    "PS3.7 9.1.1",
    "stores instances on several presentation contexts of one association in turn",
)
def contexts_in_turn(run: Run) -> None:
    """CT, MR, and CT again."""
    instances = [new_instance(run.sample.token, name) for name in ("CT", "MR", "CT")]
    run.sent("C-STORE-RQ of CT, MR and CT on two presentation contexts")
    pairs = dict.fromkeys((one.sop_class_uid, (one.transfer_syntax,)) for one in instances)
    with run.associate(list(pairs)) as association:
        for one in instances:
            _expect_stored(run, store(association, _context(run, association, one), one.attributes))


@_storage_check(
    "storage.private-attributes",
    "PS3.4 B.4.1",
    "stores an instance with private and with long Attributes",
)
def private_attributes(run: Run) -> None:
    """Level 2 keeps them all; no level refuses them."""
    one = new_instance(run.sample.token)
    block = one.attributes.private_block(0x0099, "CONFORMANCE", create=True)
    block.add_new(0x01, "LO", "private")
    block.add_new(0x02, "OB", bytes(1 << 16))
    run.sent("C-STORE-RQ of a CT image with private Attributes")
    _expect_stored(run, _stored(run, one))


@_storage_check(
    "storage.empty-type-2",
    "PS3.5 7.4.3",
    "stores an instance whose Attributes of type 2 have no value",
)
def empty_type_2(run: Run) -> None:
    """Zero length says that the value is unknown. Patient ID has one here, so that it can be deleted again."""
    empty = ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime")
    more = ("AccessionNumber", "StudyID", "SeriesNumber", "InstanceNumber")
    one = new_instance(run.sample.token, **dict.fromkeys((*empty, *more), ""))
    run.sent(f"C-STORE-RQ of a CT image with zero length in {', '.join((*empty, *more))}")
    _expect_stored(run, _stored(run, one))


@_storage_check(
    "storage.found",
    "PS3.4 C.4.1.3.1",
    "finds with C-FIND what it stored",
    Requirement.SHOULD,
)
def found(run: Run) -> None:
    """Each instance of the sample that was stored; within half a minute."""
    run.sent("C-FIND-RQ, level IMAGE, for each series of the sample")
    hidden = [note for note in run.sample.notes if note.startswith("stored, but not found")]
    run.expect(not hidden, "each instance that was stored", "; ".join(hidden[:3]))


# The last one of this module: some peers do not outlive it.
@_storage_check(
    "storage.many-fragments-in-a-pdu",
    "PS3.8 9.3.5",
    "takes many fragments of a message in one PDU",
)
def many_fragments_in_a_pdu(run: Run) -> None:
    """A P-DATA-TF PDU has one or more presentation data values, each with a fragment (PS3.8 E.1)."""
    run.sent("C-STORE-RQ in one P-DATA-TF PDU with PDVs of 64 bytes")
    try:
        answer = _in_pdus(run, new_instance(run.sample.token), 64, 1 << 16)
    except AssociationEnded:
        # A peer that is ending still takes a connection, and loses it: here, not in the check after this one.
        with suppress(AssociationEnded), run.associate([(VERIFICATION, UNCOMPRESSED)]):
            pass
        raise
    _expect_stored(run, answer)
