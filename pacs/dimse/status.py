"""DIMSE status codes by name, and which domain error becomes which status in which service.

PS3.7 Annex C for the general ones, PS3.4 B.2.3 (Storage), C.4.1.1.4, C.4.2.1.5 and C.4.3.1.4 (Query/Retrieve).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs import errors
from pacs.archive.retrieving import Ending, How
from pacs.dicom.error_comment import MAX_COMMENT_CHARACTERS
from pacs.foreign_text import visible
from pacs.model.sub_operations import SubOperations

_FAILED_LIST = Tag("FailedSOPInstanceUIDList")


class Status(IntEnum):
    """Status codes this archive answers with."""

    SUCCESS = 0x0000
    PENDING = 0xFF00
    PENDING_OPTIONAL_KEYS_NOT_SUPPORTED = 0xFF01
    CANCEL = 0xFE00
    WARNING_SUB_OPERATIONS = 0xB000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORISED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNISED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_CALCULATE_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DOES_NOT_MATCH_SOP_CLASS = 0xA900
    #: Composite Instance Root Retrieve (PS3.4 Y.4.1.1.4).
    FRAMES_NOT_FOUND = 0xAA00
    UNABLE_TO_CREATE_INSTANCE = 0xAA01
    UNABLE_TO_EXTRACT_FRAMES = 0xAA02
    NOT_TIME_BASED = 0xAA03
    INVALID_REQUEST = 0xAA04
    UNABLE_TO_PROCESS = 0xC000
    DATA_SET_UNREADABLE = 0xC010
    #: PS3.7's 0x0111 is not among the statuses of C-STORE (PS3.7 9.1.1.1.9), so one of "cannot understand".
    DUPLICATE_SOP_INSTANCE = 0xC011
    #: Warning, PS3.4 B.2.3: what was sent is not what is stored.
    ELEMENTS_DISCARDED = 0xB006


#: The one sub-operation has failed: there is no SOP Instance to send (PS3.4 Y.4.1.3).
NOT_CREATED = (
    Status.FRAMES_NOT_FOUND,
    Status.UNABLE_TO_CREATE_INSTANCE,
    Status.UNABLE_TO_EXTRACT_FRAMES,
    Status.NOT_TIME_BASED,
    Status.INVALID_REQUEST,
)


class DimseService(Enum):
    """The DIMSE services whose statuses differ."""

    STORE = "C-STORE"
    FIND = "C-FIND"
    MOVE = "C-MOVE"
    GET = "C-GET"
    #: The N-ACTION of Storage Commitment (PS3.7 10.1.4.1.10): no status beyond those of PS3.7.
    COMMIT = "N-ACTION"


_COMMON = {
    errors.NotAuthorised: Status.NOT_AUTHORISED,
    errors.PacsError: Status.UNABLE_TO_PROCESS,
    errors.InvalidSetting: Status.UNABLE_TO_PROCESS,
    errors.NoArchive: Status.UNABLE_TO_PROCESS,
    errors.PeerAborted: Status.UNABLE_TO_PROCESS,
    errors.InvalidIdentifier: Status.DOES_NOT_MATCH_SOP_CLASS,
    errors.InvalidFrameRequest: Status.INVALID_REQUEST,
    errors.FramesNotFound: Status.FRAMES_NOT_FOUND,
    errors.InstanceNotCreatable: Status.UNABLE_TO_CREATE_INSTANCE,
    errors.FramesNotExtractable: Status.UNABLE_TO_EXTRACT_FRAMES,
    errors.NotTimeBased: Status.NOT_TIME_BASED,
    errors.InstanceMismatch: Status.DOES_NOT_MATCH_SOP_CLASS,
    errors.InvalidActionInformation: Status.UNABLE_TO_PROCESS,
    errors.TooManyReferences: Status.UNABLE_TO_PROCESS,
    errors.InvalidInstance: Status.DATA_SET_UNREADABLE,
    errors.NotDicom: Status.DATA_SET_UNREADABLE,
    errors.IncompleteInstance: Status.DATA_SET_UNREADABLE,
    errors.DuplicateInstance: Status.DUPLICATE_SOP_INSTANCE,
    errors.DestinationUnreachable: Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
    errors.StorageFull: Status.OUT_OF_RESOURCES,
    errors.StorageUnavailable: Status.OUT_OF_RESOURCES,
    errors.IndexUnavailable: Status.OUT_OF_RESOURCES,
    errors.ClaimLost: Status.UNABLE_TO_PROCESS,
    errors.LimitExceeded: Status.OUT_OF_RESOURCES,
}
_RETRIEVE = _COMMON | {
    errors.IndexUnavailable: Status.UNABLE_TO_CALCULATE_MATCHES,
    errors.LimitExceeded: Status.UNABLE_TO_CALCULATE_MATCHES,
    errors.StorageUnavailable: Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
    errors.StorageFull: Status.UNABLE_TO_PERFORM_SUB_OPERATIONS,
}
_COMMIT = dict.fromkeys(_COMMON, Status.PROCESSING_FAILURE) | {
    errors.NotAuthorised: Status.NOT_AUTHORISED,
    errors.InvalidActionInformation: Status.INVALID_ARGUMENT_VALUE,
    errors.TooManyReferences: Status.RESOURCE_LIMITATION,
    errors.LimitExceeded: Status.RESOURCE_LIMITATION,
}
STATUS_OF: dict[DimseService, dict[type[errors.PacsError], Status]] = {
    DimseService.STORE: _COMMON,
    DimseService.FIND: _COMMON,
    DimseService.MOVE: _RETRIEVE,
    DimseService.GET: _RETRIEVE,
    DimseService.COMMIT: _COMMIT,
}


def status_of(error: errors.PacsError, service: DimseService) -> Dataset:
    """The status elements that tell the peer of ``error``: Status, Error Comment, Offending Element."""
    return status_dataset(
        STATUS_OF[service][type(error)], error.comment, getattr(error, "offending", ())
    )


def status_dataset(status: int, comment: str = "", offending: tuple[int, ...] = ()) -> Dataset:
    """The status elements of a response (PS3.7 C): what a handler may return or yield as its status."""
    dataset = Dataset()
    dataset.Status = int(status)
    if comment:
        dataset.ErrorComment = error_comment(comment)
    if offending:
        dataset.OffendingElement = list(offending)
    return dataset


def concluding_status(operations: SubOperations) -> tuple[Status, str]:
    """Status and Error Comment of a retrieve none of whose sub-operations remain (PS3.4 C.4.2.3.1, C.4.3.3.1)."""
    failed, warning, total = operations.failed, operations.warning, operations.total
    reason = operations.reason
    if failed and failed == total:
        comment = reason or "All sub-operations failed"
        return Status.UNABLE_TO_PERFORM_SUB_OPERATIONS, comment
    if failed and reason:
        # The counters are in the response beside it.
        return Status.WARNING_SUB_OPERATIONS, f"{failed} of {total} failed: {reason}"
    if failed or warning:
        return Status.WARNING_SUB_OPERATIONS, f"{failed} failed, {warning} warned, of {total}"
    return Status.SUCCESS, ""


def conclusion_of(ending: Ending, operations: SubOperations) -> tuple[Status, str]:
    """Status and comment to record for a retrieve that ended so."""
    error = ending.error
    message = error.message if isinstance(error, errors.PacsError) else ""
    match ending.how:
        case How.COMPLETE:
            return concluding_status(operations)
        case How.CANCELLED:
            return Status.CANCEL, "Cancelled by the requester"
        case How.CUT_SHORT:
            # Not 0xA701: the matches were calculated. Those that are left have failed, with UIDs nobody learned.
            return concluding_status(operations)[0], message
        case How.UNREACHABLE:
            return Status.UNABLE_TO_PERFORM_SUB_OPERATIONS, message
        case How.ABANDONED:
            return Status.UNABLE_TO_PROCESS, "The requester went away"
        case How.BROKEN:
            return Status.UNABLE_TO_PROCESS, message or "Processing failure"


def concluding_elements(ending: Ending, operations: SubOperations) -> Dataset:
    """The status elements of the final response to it."""
    status, comment = conclusion_of(ending, operations)
    if ending.how is How.CANCELLED:
        return status_dataset(status)
    if isinstance(ending.error, errors.PacsError):
        comment = ending.error.comment
    return status_dataset(status, comment)


def failed_list(uids: Sequence[str]) -> Dataset | None:
    """The Identifier of a retrieve's final response; none without a failed UID (PS3.4 C.4.2.1.4.2)."""
    if not uids:
        return None
    dataset = Dataset()
    # IGNORE: what was stored is named, also if its VR does not allow it.
    dataset[_FAILED_LIST] = DataElement(
        _FAILED_LIST, "UI", list(uids), validation_mode=config.IGNORE
    )
    return dataset


def error_comment(text: str) -> str:
    """What of ``text`` fits Error Comment (0000,0902): LO, 64 characters of the default repertoire.

    Of a sentence that is too long, what stands before its colons goes: the reason is behind them. It does not where
    that is of no help: then the end is cut, which is the value that a reason is about.
    """
    plain = visible(text).encode("ascii", "replace").decode("ascii").replace("\\", "/")
    clauses = plain.split(": ")
    while len(plain) > MAX_COMMENT_CHARACTERS and len(clauses) > 1:
        del clauses[0]
        shorter = ": ".join(clauses)
        if len(clauses) == 1 and len(shorter) > MAX_COMMENT_CHARACTERS:
            break
        plain = shorter
    if len(plain) > MAX_COMMENT_CHARACTERS:
        plain = plain[: MAX_COMMENT_CHARACTERS - 3].rstrip() + "..."
    return plain
