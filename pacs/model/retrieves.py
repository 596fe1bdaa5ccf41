"""Retrieves: what is to be sent, what was asked for, what became of it (PS3.4 C.4.2)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from pacs.model.remote_ae import Service


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievePlan:
    """The instances that a C-MOVE or C-GET sends, in order, at eight bytes each."""

    keys: array[int]
    #: (SOP Class UID, transfer syntax UID) to the number of instances stored so.
    contexts: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveRequest:
    """Who asked for what in a C-MOVE or C-GET."""

    calling_ae: str
    calling_host: str
    service: Service
    #: The information model's name.
    model: str
    level: str
    #: The Identifier as DICOM JSON (PS3.18 F).
    identifier: str
    #: The Move Destination; empty for C-GET.
    destination: str
    message_id: int
    #: Aware UTC.
    started_at: datetime


class RetrieveState(Enum):
    """How far a recorded retrieve has come."""

    RUNNING = "running"
    FINISHED = "finished"
    #: The process that carried it out ended first.
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveOutcome:
    """How a retrieve ended: the final status and its sub-operation counts."""

    #: The DIMSE status, as sent or as it would have been sent.
    status: int
    completed: int
    failed: int
    warning: int
    remaining: int
    error_comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveRecord:
    """One recorded C-MOVE or C-GET operation."""

    key: int
    request: RetrieveRequest
    state: RetrieveState
    finished_at: datetime | None
    #: None unless finished.
    outcome: RetrieveOutcome | None


class SubOperationOutcome(Enum):
    """How a C-STORE sub-operation ended."""

    COMPLETED = "completed"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubOperationRecord:
    """One C-STORE sub-operation of a retrieve."""

    #: Counts from one within the retrieve.
    number: int
    sop_class_uid: str
    sop_instance_uid: str
    outcome: SubOperationOutcome
    #: The C-STORE status; None if no response came.
    status: int | None
    error_comment: str = ""
    size_bytes: int = 0
    duration_seconds: float = 0.0
