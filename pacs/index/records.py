"""Values that cross the border of the index. No SQL here."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from pacs.dicom.instance import InstanceHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """A SOP Instance whose bytes are in the storage and that is to be indexed."""

    header: InstanceHeader
    location: str
    #: Bytes before the data set in the stored file.
    data_set_offset: int
    data_set_size: int
    #: SHA-256 of the data set, lower-case hexadecimal.
    digest: str
    #: Aware UTC.
    received_at: datetime
    source_ae: str
    #: The stored file, if the storage has not made it durable: the index keeps it until that is done.
    content: bytes | None = None
    #: Where the stored file of this instance was found to be lost, damaged or incomplete: while the row points
    #: there, this one takes its place, whatever the policy says.
    in_place_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInstance:
    """A SOP Instance as the index knows it: what to send and where its bytes are."""

    key: int
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    location: str
    data_set_offset: int
    data_set_size: int
    digest: str
    received_at: datetime


@dataclass(frozen=True, slots=True)
class HeaderFile:
    """Where the header of a match can be read; no location if it has no instance any more."""

    transfer_syntax_uid: str | None
    location: str | None
    data_set_offset: int | None
    #: Of the instance, to look it up again.
    key: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLocation:
    """Where one indexed SOP Instance should be found in the storage."""

    sop_instance_uid: str
    transfer_syntax_uid: str
    location: str
    #: Bytes before the data set in the stored file.
    data_set_offset: int
    data_set_size: int
    digest: str

    @property
    def size(self) -> int:
        """The bytes that the stored file should have."""
        return self.data_set_offset + self.data_set_size


class DuplicatePolicy(Enum):
    """What happens to a different data set that arrives under a SOP Instance UID already stored."""

    REPLACE = "replace"
    KEEP = "keep"
    REFUSE = "refuse"
    #: The one with the later location stays. Not a setting: rows that are rebuilt from stored files end up
    #: as they were when each file was received, whatever is indexed already.
    LATEST = "latest"


class IngestOutcome(Enum):
    """What the index did with an instance."""

    STORED = "stored"
    #: The same data set is indexed already; the new file is superfluous.
    IDENTICAL = "identical"
    REPLACED = "replaced"
    #: A different data set stays; the new file is superfluous.
    KEPT = "kept"
    #: A different data set stays and the sender is to be told; the new file is superfluous.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """The outcome for one record of a batch; true once the batch is committed."""

    outcome: IngestOutcome
    #: The location that nothing points at any more; the caller removes its bytes.
    superseded_location: str | None = None
    #: One sentence for each parent value that this instance contradicted; never contains a value.
    notes: tuple[str, ...] = ()


class Service(Enum):
    """What a remote AE may ask of the archive."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    COMMIT = "commit"


#: How many associations one C-MOVE to a remote AE may use at a time.
MOST_PARALLEL_ASSOCIATIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAE:
    """A known remote AE: its address and what it may do."""

    title: str
    host: str
    port: int
    services: frozenset[Service] = frozenset(Service)
    #: AE titles it may name as Move Destination; None is any.
    destinations: frozenset[str] | None = None
    tls: bool = False
    parallel_associations: int = 1
    description: str = ""


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


@dataclass(frozen=True, slots=True)
class ConflictingStudy:
    """What one study of a patient says; empty where it says nothing."""

    study_instance_uid: str
    study_date: str
    accession_number: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientConflict:
    """A patient whose studies disagree in who that is."""

    patient_id: str
    issuer: str
    #: In what they disagree.
    keywords: tuple[str, ...]
    studies: tuple[ConflictingStudy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """How much the archive holds."""

    patients: int = 0
    studies: int = 0
    series: int = 0
    instances: int = 0
    #: Of all data sets, without File Meta Information.
    size_bytes: int = 0
