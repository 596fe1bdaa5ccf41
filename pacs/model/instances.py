"""SOP Instances: what is indexed of one, what is known of a stored one, what becomes of one received."""

from __future__ import annotations

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

    #: Nothing yet: it is in the log.
    ACCEPTED = "accepted"
    STORED = "stored"
    #: The same data set is indexed already; the new file is superfluous.
    IDENTICAL = "identical"
    REPLACED = "replaced"
    #: A different data set stays; the new file is superfluous.
    KEPT = "kept"
    #: A different data set stays and the sender is to be told; the new file is superfluous.
    REFUSED = "refused"


#: What was stored before stays, and the file received is superfluous.
STAYS = frozenset({IngestOutcome.IDENTICAL, IngestOutcome.KEPT, IngestOutcome.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestResult:
    """The outcome for one record of a batch; true once the batch is committed."""

    outcome: IngestOutcome
    #: The location that nothing points at any more; the caller removes its bytes.
    superseded_location: str | None = None
    #: One sentence for each parent value that this instance contradicted; never contains a value.
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an instance came from and what it is said to be."""

    source_ae: str
    transfer_syntax_uid: str
    #: What names it in its file until its data set was read; empty if that is not known.
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    #: Whether a C-STORE command says so: then the data set has to be that instance.
    is_announced: bool = False


@dataclass(frozen=True, slots=True)
class StoreOutcome:
    """What became of an instance that was accepted."""

    outcome: IngestOutcome
    header: InstanceHeader
    size_bytes: int
    #: What is irregular about it (``pacs.archive.irregularities``).
    notes: tuple[str, ...] = ()
