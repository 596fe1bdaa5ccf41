"""What an archive is trusted with: that it keeps apart, keeps whole, and goes on (beside each service's own checks).

The instances are of the patient whom checks of storage may change, or of patients of the tool's own.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import replace

from pacs.conformance.judgement import Requirement
from pacs.conformance.scp.check import UNCOMPRESSED, VERIFICATION, Run, check
from pacs.conformance.scp.checks.retrieving import FAILED, keys_of, retrieve, retrieve_check, uids
from pacs.conformance.scp.generation import new_instance
from pacs.conformance.scp.operations import echo, find, identifier, start, store
from pacs.conformance.scp.preparation import STORED_STATUSES
from pacs.conformance.scp.queries import ask, find_check, hexadecimal, text
from pacs.conformance.scp.sample import SampleInstance
from pacs.conformance.wire.association import AssociationEnded
from pacs.conformance.wire.message import CommandField, Message, encode_data_set, request
from pacs.dicom.information_model import InformationModel, Operation, sop_class_uid
from pacs.dicom.levels import Level

_RECEIVE_BUFFER_BYTES = 4096
_STALLED_ASSOCIATIONS = 4
_REPLACED_INSTANCES = 4
_SUCCESS = 0x0000
_STUDY_ROOT_FIND = sop_class_uid(InformationModel.STUDY_ROOT, Operation.FIND)
_EVERYTHING = {"StudyInstanceUID": None, "PatientName": None, "StudyDescription": None}
_NOTHING = {"StudyInstanceUID": "1.2.3.4.5.6.7.8.9"}


def _store_all(run: Run, instances: Sequence[SampleInstance], title: str) -> list[Message]:
    """Store them on an association of their own: the responses; none where no context is accepted."""
    syntaxes = dict.fromkeys((one.sop_class_uid, (one.transfer_syntax,)) for one in instances)
    answers = []
    with run.associate(list(syntaxes), title=title) as association:
        for one in instances:
            context = association.context_with(one.sop_class_uid, one.transfer_syntax)
            if context is None:
                run.not_applicable(f"{one.sop_class_uid} in {one.transfer_syntax} is not accepted")
            answers.append(store(association, context, one.attributes))
    return answers


@check(
    "storage.truncated-data-set",
    "PS3.4 B.2.3",
    "does not acknowledge a data set that ends inside a value",
    needs_sample=True,
)
def truncated(run: Run) -> None:
    """Success says that it is stored, and the sender may delete its copy (PS3.4 B.2.3, B.4.1)."""
    one = new_instance(run.sample.token)
    missing_bytes = len(one.attributes.PixelData) // 2
    run.sent(f"C-STORE-RQ of a CT image without the last {missing_bytes} bytes of its Pixel Data")
    with run.associate([(one.sop_class_uid, (one.transfer_syntax,))]) as association:
        context = association.context_with(one.sop_class_uid, one.transfer_syntax)
        if context is None:
            run.not_applicable(f"{one.sop_class_uid} in {one.transfer_syntax} is not accepted")
        association.send(
            request(
                CommandField.C_STORE_RQ,
                context.context_id,
                association.next_message_id(),
                one.sop_class_uid,
                encode_data_set(one.attributes, one.transfer_syntax)[:-missing_bytes],
                AffectedSOPInstanceUID=one.sop_instance_uid,
            )
        )
        with suppress(AssociationEnded):  # an abort acknowledges nothing either
            answer = association.receive()
            run.expect(
                answer.status not in STORED_STATUSES,
                "a failure status, such as 0xC000 (cannot understand)",
                f"{hexadecimal(answer.status)} {answer.comment}".rstrip(),
            )


@find_check(
    "backslash-identity",
    "PS3.4 C.2.2.2.1",
    "keeps patients apart whose Patient IDs differ behind a backslash",
    Requirement.SHOULD,
    models=(InformationModel.STUDY_ROOT,),
    needs_sample=True,
)
def backslash(run: Run) -> None:
    r"""A backslash does not belong into Patient ID (PS3.5 6.2), and real ones have it: ``AB\1`` is not ``AB\2``."""
    patient_ids = [f"{run.sample.token}-BS\\{number}" for number in (1, 2)]
    instances = [new_instance(run.sample.token, PatientID=value) for value in patient_ids]
    studies = [str(one.attributes.StudyInstanceUID) for one in instances]
    run.sent(
        f"C-STORE-RQ of the studies of {' and '.join(patient_ids)}, then C-FIND-RQ for each of them, and for the "
        "patient whose ID is what is before the backslash"
    )
    answers = _store_all(run, instances, "what is looked for")
    if any(answer.status not in STORED_STATUSES for answer in answers):
        run.not_applicable("a Patient ID with a backslash is refused")
    for patient_id, study in zip(patient_ids, studies, strict=True):
        found = ask(run, Level.STUDY, {"StudyInstanceUID": study, "PatientID": None})
        returned = sorted({text(one, "PatientID") for one in found})
        run.expect(returned == [patient_id], f"PatientID {patient_id!r}", f"PatientID {returned}")
    common = patient_ids[0].partition("\\")[0]
    mixed = ask(run, Level.STUDY, {"PatientID": common, "StudyInstanceUID": None})
    run.expect(not mixed, f"no study of patient {common!r}", f"{len(mixed)} studies of it")


@check(
    "robustness.stalled-reader",
    "PS3.8 9.1",
    "serves others while peers do not read the responses to their C-FIND requests",
    Requirement.SHOULD,
)
def stalled_reader(run: Run) -> None:
    """TCP holds a response back for as long as its peer likes; what the SCP holds meanwhile must not be others'."""
    run.sent(
        f"C-FIND-RQ for everything on {_STALLED_ASSOCIATIONS} associations on which nothing is read; then C-ECHO-RQ, "
        "and a C-FIND-RQ, on others"
    )
    with ExitStack() as stalled:
        for _ in range(_STALLED_ASSOCIATIONS):
            association = stalled.enter_context(run.connect("does not read"))
            association.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES
            )
            association.request(run.proposal([(_STUDY_ROOT_FIND, UNCOMPRESSED)]))
            context = association.context_for(_STUDY_ROOT_FIND)
            if context is None:
                run.not_applicable("Study Root C-FIND is not accepted")
            start(association, context, Operation.FIND, identifier(Level.STUDY, _EVERYTHING))
        _expect_service(run)


def _expect_service(run: Run) -> None:
    expected = "C-ECHO and C-FIND are answered with 0x0000 on another association"
    syntaxes = [(VERIFICATION, UNCOMPRESSED), (_STUDY_ROOT_FIND, UNCOMPRESSED)]
    try:
        with run.associate(syntaxes, title="is it still there?") as association:
            answers = [echo(association, association.contexts[1])]
            context = association.context_for(_STUDY_ROOT_FIND)
            if context is not None:
                answers.append(find(association, context, Level.STUDY, _NOTHING)[-1])
    except AssociationEnded as error:
        run.fail(expected, str(error))
    statuses = [answer.status for answer in answers]
    run.expect(set(statuses) == {_SUCCESS}, expected, f"statuses {statuses}")


@retrieve_check(
    "replaced-meanwhile",
    FAILED,
    "sends every instance of a study that is stored again while it is sent",
    Requirement.SHOULD,
    needs_sample=True,
)
def replaced_meanwhile(run: Run) -> None:
    """All of them are there at every moment, in the old version or the new one."""
    first = new_instance(run.sample.token)
    versions = [_version(first, number, "one") for number in range(_REPLACED_INSTANCES)]
    run.sent(
        f"a retrieve of {_REPLACED_INSTANCES} instances, all of which are stored again, with another Image Comments, "
        "before the first sub-operation is answered"
    )
    if any(one.status not in STORED_STATUSES for one in _store_all(run, versions, "before")):
        run.not_applicable("the instances are refused")

    waiting: list[str] = []
    # Before the retrieve itself is given up, which waits for the answer.
    peer = replace(run.peer, timeout_seconds=run.peer.timeout_seconds / 2)
    impatient = replace(run, peer=peer)

    def answers(number: int, _request: Message) -> int:
        if number == 0:
            try:
                _store_all(impatient, [_changed(one) for one in versions], "meanwhile")
            except AssociationEnded as error:
                waiting.append(str(error))
        return _SUCCESS

    done = retrieve(
        run, Level.STUDY, keys_of(run, Level.STUDY, versions), answers, instances=versions
    )
    if waiting:
        # An archive that locks what it sends is right, if slow.
        run.not_applicable(f"nothing is stored while it is retrieved: {waiting[0]}")
    run.expect(
        (done.final.status, sorted(done.instance_uids)) == (_SUCCESS, uids(versions)),
        f"status 0x0000, and {_REPLACED_INSTANCES} instances, each once",
        f"{done.status_text}, {len(done.instance_uids)} instances",
    )


def _version(first: SampleInstance, number: int, comment: str) -> SampleInstance:
    """An instance of the same series."""
    data_set = deepcopy(first.attributes)
    data_set.SOPInstanceUID = f"{first.sop_instance_uid}.{number}"
    data_set.InstanceNumber = number
    data_set.ImageComments = comment
    return SampleInstance(data_set, first.transfer_syntax)


def _changed(one: SampleInstance) -> SampleInstance:
    data_set = deepcopy(one.attributes)
    data_set.ImageComments = "another"
    return SampleInstance(data_set, one.transfer_syntax)
