"""Prove that SOP Instances are safely stored (PS3.4 J): by index, size and digest, not by what was once answered.

An indexed instance is durable: its file was synced before it was acknowledged, or its bytes are in the index until the
file is (``pacs.archive.redo``). What is left to find out is whether the bytes are still there and still the same, so
each data set is read to its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator

from pacs.archive.archive import Archive
from pacs.archive.condition import missing_end
from pacs.dicom.sop_classes import is_storage_sop_class
from pacs.dicom.storage_commitment import FailureReason, Reference, Result
from pacs.errors import IncompleteInstance, StorageFull, StorageUnavailable
from pacs.model.commitments import CommitmentReference
from pacs.model.instances import StoredInstance
from pacs.storage.faults import is_missing, storage_faults

_PAGE_REFERENCES = 500
#: Read at a time; between two pieces others may go first.
_PIECE_BYTES = 1 << 20
#: A file that is missing may have been replaced after its row was read; twice at the same place it is lost.
_LOOKS = 10


def check(archive: Archive, key: int) -> Generator[None, None, None]:
    """Check all references of a transaction and record the result; yields between pieces of work.

    Raises:
        IndexUnavailable: nothing is recorded.
        ClaimLost: another process works on the transaction by now; nothing is recorded, nor to be reported.
    """
    failures: list[tuple[int, int]] = []
    for reference in _references(archive, key):
        reason = yield from failure_of(
            archive, Reference(reference.sop_class_uid, reference.sop_instance_uid)
        )
        if reason is not None:
            failures.append((reference.number, int(reason)))
        yield
    archive.index.commitments.record_check(key, failures)


def results(archive: Archive, key: int) -> Iterator[Result]:
    """The recorded result of each reference of a checked transaction.

    Raises:
        IndexUnavailable: also while iterating.
    """
    for one in _references(archive, key):
        yield Result(Reference(one.sop_class_uid, one.sop_instance_uid), one.failure_reason)


def _references(archive: Archive, key: int) -> Iterator[CommitmentReference]:
    after = 0
    while page := archive.index.commitments.references(key, after, _PAGE_REFERENCES):
        yield from page
        after = page[-1].number


def failure_of(
    archive: Archive, reference: Reference
) -> Generator[None, None, FailureReason | None]:
    """Why an instance cannot be committed; None if it can (PS3.3 C.14.1.1).

    Raises:
        IndexUnavailable: it cannot be told.
    """
    if not is_storage_sop_class(reference.sop_class_uid):
        return FailureReason.SOP_CLASS_NOT_SUPPORTED
    before = None
    for _ in range(_LOOKS):
        stored = archive.index.find_by_uid(reference.sop_instance_uid)
        if stored is None:
            return FailureReason.NO_SUCH_INSTANCE
        if stored.sop_class_uid != reference.sop_class_uid:
            return FailureReason.CLASS_INSTANCE_CONFLICT
        try:
            is_sound = yield from _is_sound(archive, stored)
        except (StorageUnavailable, StorageFull) as error:
            if isinstance(error, StorageFull) or not is_missing(error):
                return FailureReason.PROCESSING_FAILURE
            if stored.location == before:
                break
            before = stored.location
            continue
        return None if is_sound else FailureReason.PROCESSING_FAILURE
    return FailureReason.NO_SUCH_INSTANCE


def _is_sound(archive: Archive, stored: StoredInstance) -> Generator[None, None, bool]:
    digest, size = hashlib.sha256(), 0
    with archive.storage.open(stored.location) as stream:
        stream.seek(stored.data_set_offset)
        while True:
            with storage_faults("read a stored file"):
                piece = stream.read(_PIECE_BYTES)
            if not piece:
                break
            digest.update(piece)
            size += len(piece)
            yield
        if size != stored.data_set_size or digest.hexdigest() != stored.digest:
            return False
        try:
            missing_end(stream, stored)
        except IncompleteInstance:
            # Received before that was looked at.
            return False
    return True
