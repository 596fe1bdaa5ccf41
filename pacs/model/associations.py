"""Values of the recorded associations. No SQL here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class AssociationEnding(Enum):
    """How an association that a peer requested ended."""

    RELEASED = "released"
    #: Codes are result, source and reason of the A-ASSOCIATE-RJ (PS3.8 9.3.4).
    REJECTED = "rejected"
    #: Codes are source and reason of the A-ABORT (PS3.8 9.3.8), as for the next one.
    ABORTED_BY_PEER = "aborted by the peer"
    ABORTED = "aborted by the archive"
    CONNECTION_LOST = "connection lost"
    TIMED_OUT = "timed out"
    #: The archive was stopped, or its process was to end.
    STOPPED = "archive stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """A presentation context that was proposed, and what was answered (PS3.8 9.3.3.2)."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    #: 0 is acceptance; None if there was no answer to it.
    result: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """What a DIMSE operation, or several alike, came to."""

    #: As PS3.7 calls it: ``C-MOVE``.
    service: str
    sop_class_uid: str
    #: The final status.
    status: int
    #: Query/Retrieve Level; empty where there is none.
    level: str = ""
    #: The Move Destination; empty but for C-MOVE.
    destination: str = ""
    message_id: int | None = None
    error_comment: str = ""
    #: Tags of Offending Element (0000,0901).
    offending: tuple[int, ...] = ()
    #: Matches of a C-FIND that were sent.
    matches: int = 0
    #: Sub-operations completed, failed, warned and remaining; None for what the response did not say.
    counts: tuple[int | None, ...] = ()
    #: How many operations on the association were like this.
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRecord:
    """One recorded association; it has no values of Identifiers but UIDs and AE titles."""

    calling_ae: str
    called_ae: str
    calling_host: str
    tls: bool
    #: Aware UTC, as is the next one.
    started_at: datetime
    finished_at: datetime
    ending: AssociationEnding
    codes: tuple[int, ...] = ()
    #: Why the archive ended it, in words.
    detail: str = ""
    is_problem: bool = False
    contexts: tuple[ProposedContext, ...] = ()
    operations: tuple[OperationRecord, ...] = ()
    #: None until it is recorded.
    key: int | None = None
