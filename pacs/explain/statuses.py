"""Every status the archive answers with, and the ranges of those that other AEs give: meaning, clause, advice.

To add a status, add a row; a test fails when one of ``pacs.dimse.status`` has none. A row for a service goes before
the one for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacs.dimse.status import Status
from pacs.explain import advice
from pacs.explain.advice import Rule, says


@dataclass(frozen=True, slots=True)
class Row:
    """What a status means and what to do about it."""

    name: str
    clause: str
    why: str
    rules: tuple[Rule, ...] = ()


_RETRIES = says("Nothing has to be changed.")
_FIX_REQUESTER = says("This is to be mended in the requester.")
_ASK_VENDOR = says(
    "The log of the AE that answered says more; the Error Comment, if there is one, is the best hint."
)
_SEE_LOG = says("The archive's log has the reason, at the time of the request.")

_PARTIAL = Row(
    "Warning: sub-operations complete, one or more failed or warned",
    "PS3.4 C.4.2.1.5, C.4.3.1.4",
    "The retrieve came to its end, but not every instance was taken without a complaint.",
    (advice.sub_operations,),
)
_NONE_SENT = Row(
    "Refused: out of resources, unable to perform sub-operations",
    "PS3.4 C.4.2.1.5",
    "No association with the destination could be opened, every sub-operation failed, or the archive could not "
    "read what it has stored.",
    (advice.destination_reachable,),
)
_GET_FAILED = Row(
    _NONE_SENT.name,
    "PS3.4 C.4.3.1.4",
    "Every C-STORE sub-operation on the requester's own association failed, or the archive could not read what it "
    "has stored.",
    (
        says(
            "The requester has to propose each SOP Class it wants with SCP role selection (PS3.7 D.3.3.4), in a "
            "transfer syntax that it can take."
        ),
        advice.sub_operations,
    ),
)
_IDENTIFIER = Row(
    "Failed: Identifier does not match SOP Class",
    "PS3.4 C.4.1.1.4, C.4.2.1.5, C.4.3.1.4",
    "The Identifier breaks a rule of the information model: its level, a key that must or must not be there, or a "
    "value that cannot be one.",
    (advice.offending_keys, _FIX_REQUESTER),
)

#: By service, or None for all of them.
ROWS: dict[tuple[str | None, int], Row] = {
    (None, Status.SUCCESS): Row("Success", "PS3.7 C.1", "The operation is complete.", (_RETRIES,)),
    ("C-MOVE", Status.SUCCESS): Row(
        "Success",
        "PS3.4 C.4.2.1.5",
        "All sub-operations were completed; or nothing matched the Identifier, which is a success too.",
        (says("If nothing arrived: does the archive have what was asked for?", "pacs", "stats"),),
    ),
    (None, Status.PENDING): Row(
        "Pending", "PS3.7 C.2", "The operation goes on; more responses follow.", (_RETRIES,)
    ),
    (None, Status.PENDING_OPTIONAL_KEYS_NOT_SUPPORTED): Row(
        "Pending: one or more optional keys were not supported for existence or matching",
        "PS3.4 C.4.1.1.4",
        "A match, but a key asked for cannot be returned or was not used to match.",
        (
            says(
                "Leave out the keys that the Conformance Statement of the answering AE does not list."
            ),
        ),
    ),
    (None, Status.CANCEL): Row(
        "Cancel",
        "PS3.4 C.4.1.3.3, C.4.2.1.5",
        "The requester sent a C-CANCEL; what was done until then stays done.",
        (
            says(
                "If nobody cancelled: look for a time-out or a limit of responses in the requester."
            ),
        ),
    ),
    (None, Status.WARNING_SUB_OPERATIONS): _PARTIAL,
    ("C-STORE", Status.WARNING_SUB_OPERATIONS): Row(
        "Warning: coercion of Data Elements",
        "PS3.4 B.2.3",
        "Stored, but the AE changed some elements.",
        (_ASK_VENDOR,),
    ),
    (None, Status.PROCESSING_FAILURE): Row(
        "Processing failure",
        "PS3.7 C.5",
        "The archive could not carry it out.",
        (_SEE_LOG, advice.trouble),
    ),
    (None, Status.NO_SUCH_SOP_INSTANCE): Row(
        "No such SOP Instance",
        "PS3.7 C.5",
        "The request named another SOP Instance than the well-known one of Storage Commitment (PS3.4 J.3).",
        (_FIX_REQUESTER,),
    ),
    (None, Status.INVALID_ARGUMENT_VALUE): Row(
        "Invalid argument value",
        "PS3.7 C.5",
        "The Action Information lacks an Attribute, or has one that is not valid (PS3.4 J.3.2).",
        (_FIX_REQUESTER,),
    ),
    (None, Status.NO_SUCH_SOP_CLASS): Row(
        "No such SOP Class",
        "PS3.7 C.5",
        "The request names another SOP Class than the one negotiated for its presentation context.",
        (_FIX_REQUESTER,),
    ),
    (None, Status.NO_SUCH_ACTION): Row(
        "No such action",
        "PS3.7 C.5",
        "Storage Commitment has one Action Type, 1 (PS3.4 J.3).",
        (_FIX_REQUESTER,),
    ),
    (None, Status.SOP_CLASS_NOT_SUPPORTED): Row(
        "SOP Class not supported",
        "PS3.7 C.5",
        "The Affected SOP Class is not that of the presentation context the request was sent on, or is not "
        "supported.",
        (
            says(
                "The requester has to send each request on the context that it negotiated for that SOP Class."
            ),
        ),
    ),
    (None, Status.NOT_AUTHORISED): Row(
        "Refused: not authorized",
        "PS3.7 C.5",
        "The calling AE is known, but may not do this here.",
        (advice.register_right,),
    ),
    (None, Status.DUPLICATE_INVOCATION): Row(
        "Duplicate invocation",
        "PS3.7 C.5",
        "The Message ID is that of a request on the same association which is not answered yet.",
        (_FIX_REQUESTER,),
    ),
    (None, Status.UNRECOGNISED_OPERATION): Row(
        "Unrecognized operation",
        "PS3.7 C.5",
        "The operation does not belong to the SOP Class of its presentation context: a C-MOVE on a FIND context, "
        "for one.",
        (says("The requester has to propose, and use, the SOP Class of the operation it wants."),),
    ),
    (None, Status.MISTYPED_ARGUMENT): Row(
        "Mistyped argument",
        "PS3.7 C.5",
        "An element of the command set is missing, or has a value that it cannot have; the Error Comment names it.",
        (_FIX_REQUESTER,),
    ),
    (None, Status.RESOURCE_LIMITATION): Row(
        "Resource limitation",
        "PS3.7 C.5",
        "The request references more SOP Instances than are handled at a time.",
        (says("Have the requester ask for fewer instances in a request."),),
    ),
    (None, Status.OUT_OF_RESOURCES): Row(
        "Refused: out of resources",
        "PS3.4 B.2.3, C.4.1.1.4",
        "No space in the storage, or the storage or the index cannot be used.",
        (advice.trouble,),
    ),
    ("C-FIND", Status.OUT_OF_RESOURCES): Row(
        "Refused: out of resources",
        "PS3.4 C.4.1.1.4",
        "The query has more matches than may be returned, or took too long, or the index cannot be used.",
        (advice.limit("find_limit", "Too many matches"),),
    ),
    (None, Status.UNABLE_TO_CALCULATE_MATCHES): Row(
        "Refused: out of resources, unable to calculate number of matches",
        "PS3.4 C.4.2.1.5",
        "More instances than may be retrieved, or the index cannot be used or took too long.",
        (advice.limit("retrieve_limit", "Too many instances"),),
    ),
    (None, Status.UNABLE_TO_PERFORM_SUB_OPERATIONS): _NONE_SENT,
    ("C-GET", Status.UNABLE_TO_PERFORM_SUB_OPERATIONS): _GET_FAILED,
    (None, Status.MOVE_DESTINATION_UNKNOWN): Row(
        "Refused: Move Destination unknown",
        "PS3.4 C.4.2.1.5",
        "A C-MOVE names its destination by AE title; the archive sends only to titles whose address it knows.",
        (advice.unknown_destination,),
    ),
    (None, Status.DOES_NOT_MATCH_SOP_CLASS): _IDENTIFIER,
    ("C-STORE", Status.DOES_NOT_MATCH_SOP_CLASS): Row(
        "Error: data set does not match SOP Class",
        "PS3.4 B.2.3",
        "SOP Class UID or SOP Instance UID in the data set differ from those in the C-STORE request.",
        (says("The sender has to name the instance as its data set does."),),
    ),
    (None, Status.FRAMES_NOT_FOUND): Row(
        "Failure: none of the frames requested were found in the SOP Instance",
        "PS3.4 Y.4.1.1.4",
        "The request is for frames that the instance does not have.",
        (says("Ask for frames from 1 to the instance's Number of Frames."),),
    ),
    (None, Status.UNABLE_TO_CREATE_INSTANCE): Row(
        "Failure: unable to create new object for this SOP Class",
        "PS3.4 Y.4.1.1.4",
        "Frames of this SOP Class cannot be made into a new instance.",
        (says("Retrieve the whole instance: level IMAGE."),),
    ),
    (None, Status.UNABLE_TO_EXTRACT_FRAMES): Row(
        "Failure: unable to extract frames",
        "PS3.4 Y.4.1.1.4",
        "The frames of the stored instance cannot be told apart.",
        (says("Retrieve the whole instance: level IMAGE."),),
    ),
    (None, Status.NOT_TIME_BASED): Row(
        "Failure: time-based request received for a non-time-based original SOP Instance",
        "PS3.4 Y.4.1.1.4",
        "The instance does not say when its frames were made, so no Time Range can be taken from it.",
        (says("Ask by Simple or Calculated Frame List."),),
    ),
    (None, Status.INVALID_REQUEST): Row(
        "Failure: invalid request",
        "PS3.4 Y.4.1.1.4",
        "The Frame level keys break a rule; the Error Comment names the key.",
        (_FIX_REQUESTER,),
    ),
    (None, Status.UNABLE_TO_PROCESS): Row(
        "Failed: unable to process",
        "PS3.4 C.4.1.1.4, C.4.2.1.5",
        "Something that no other status says; the Error Comment is what there is to know.",
        (_SEE_LOG,),
    ),
    ("C-STORE", Status.UNABLE_TO_PROCESS): Row(
        "Error: cannot understand",
        "PS3.4 B.2.3",
        "The data set could not be taken; the Error Comment is what there is to know.",
        (_SEE_LOG,),
    ),
    (None, Status.DATA_SET_UNREADABLE): Row(
        "Error: cannot understand",
        "PS3.4 B.2.3",
        "The data set cannot be read as DICOM, or lacks the UIDs that identify it.",
        (
            says(
                "The sender has to mend the instance; of a file, this says what is wrong:",
                "pacs",
                "import",
                "FILE",
            ),
        ),
    ),
    (None, Status.DUPLICATE_SOP_INSTANCE): Row(
        "Error: cannot understand (a different instance with this UID is stored)",
        "PS3.4 B.2.3",
        "duplicate_policy is refuse, and another data set has this SOP Instance UID.",
        (
            says(
                "Two different data sets must not have one UID (PS3.5 9): ask who made the second one."
            ),
            says(
                "To have the new one replace the stored one:",
                "pacs",
                "serve",
                "--duplicate-policy",
                "replace",
            ),
        ),
    ),
    (None, Status.ELEMENTS_DISCARDED): Row(
        "Warning: elements discarded",
        "PS3.4 B.2.3",
        "duplicate_policy is keep: another data set with this SOP Instance UID was stored before, and stays.",
        (
            says(
                "To have the new one replace the stored one:",
                "pacs",
                "serve",
                "--duplicate-policy",
                "replace",
            ),
        ),
    ),
}

#: What other AEs answer to a C-STORE (PS3.4 B.2.3) and everything else: first and last code, then the row.
RANGES: tuple[tuple[int, int, Row], ...] = (
    (
        0xA700,
        0xA7FF,
        Row(
            "Refused: out of resources", "PS3.4 B.2.3", "The AE has no room for it.", (_ASK_VENDOR,)
        ),
    ),
    (
        0xA900,
        0xA9FF,
        Row(
            "Error: data set does not match SOP Class",
            "PS3.4 B.2.3",
            "The AE checks the data set and refused it.",
            (_ASK_VENDOR,),
        ),
    ),
    (
        0xB000,
        0xBFFF,
        Row(
            "Warning",
            "PS3.7 C.4",
            "Done, with a reservation of the AE that answered.",
            (_ASK_VENDOR,),
        ),
    ),
    (
        0xC000,
        0xCFFF,
        Row(
            "Error: cannot understand, or unable to process",
            "PS3.4 B.2.3, C.4",
            "The AE could not process it.",
            (_ASK_VENDOR,),
        ),
    ),
    (
        0x0001,
        0x0001,
        Row(
            "Warning",
            "PS3.7 C.4",
            "Done, with a reservation of the AE that answered.",
            (_ASK_VENDOR,),
        ),
    ),
    (0x0100, 0x02FF, Row("Failure", "PS3.7 C.5", "A general failure of DIMSE.", (_ASK_VENDOR,))),
    (
        0xA000,
        0xAFFF,
        Row(
            "Refused",
            "PS3.7 C.5",
            "The AE refused it, for a reason of the service.",
            (_ASK_VENDOR,),
        ),
    ),
)
_UNKNOWN = Row(
    "Status without a meaning",
    "PS3.7 C",
    "The Standard gives this status no meaning.",
    (_ASK_VENDOR,),
)


def row_of(service: str, status: int) -> Row:
    """What a status means in a service; there is something to say of each."""
    for key in ((service, status), (None, status)):
        if key in ROWS:
            return ROWS[key]
    for first, last, row in RANGES:
        if first <= status <= last:
            return row
    return _UNKNOWN
