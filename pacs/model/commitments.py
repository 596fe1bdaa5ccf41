"""Storage commitments that were asked for (PS3.4 J)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class CommitmentState(Enum):
    """How far a storage commitment transaction has come."""

    #: The instances are not all checked.
    REQUESTED = "requested"
    #: The report is due.
    CHECKED = "checked"
    REPORTED = "reported"
    #: The report was given up.
    UNDELIVERABLE = "undeliverable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRequest:
    """Who asked for storage commitment, in which transaction."""

    transaction_uid: str
    calling_ae: str
    calling_host: str
    #: Aware UTC.
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentRecord:
    """One recorded storage commitment transaction."""

    key: int
    request: CommitmentRequest
    state: CommitmentState
    checked_at: datetime | None
    finished_at: datetime | None
    #: When the next attempt to report is due, as far as it is known.
    due_at: datetime | None
    #: Associations opened to report it, in vain or not.
    attempts: int
    #: Why the last attempt failed.
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentReference:
    """One SOP Instance of a storage commitment transaction."""

    #: Counts from one within the transaction.
    number: int
    sop_class_uid: str
    sop_instance_uid: str
    #: PS3.3 C.14.1.1; None: committed, once the transaction is checked.
    failure_reason: int | None
