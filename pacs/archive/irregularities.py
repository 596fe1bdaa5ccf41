"""Instances that are not as the Standard wants them and are stored all the same, and what is said of it.

An archive keeps what it is sent. What is wrong with it is logged once for each kind and sender, because a modality that
does something wrong does it with each of its images.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from pydicom.uid import UID

from pacs.dicom.encoding.actual_syntax import HEAD_BYTES, actual_transfer_syntax
from pacs.dicom.encoding.part10 import file_meta
from pacs.dicom.instance import InstanceHeader
from pacs.dicom.uids import is_regular_uid
from pacs.errors import InvalidInstance
from pacs.storage.base import Spooled
from pacs.storage.faults import storage_faults
from pacs.storage.spool import Spool

_CHUNK_BYTES = 1024 * 1024
#: Senders choose their names, so what was said is remembered for so many of them only.
_MOST_REMEMBERED = 1000


class Once:
    """Remembers what was said, for any number of threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._said: set[tuple[str, str]] = set()

    def is_new(self, source_ae: str, note: str) -> bool:
        """Whether this has not been said of this sender; it counts as said afterwards."""
        with self._turn:
            is_new = (source_ae, note) not in self._said and len(self._said) < _MOST_REMEMBERED
            if is_new:
                self._said.add((source_ae, note))
            return is_new


def syntax_of(spooled: Spooled, declared: str) -> str:
    """The transfer syntax that a received data set is in."""
    begin = spooled.data_set_offset
    return actual_transfer_syntax(spooled.head[begin : begin + HEAD_BYTES], declared)


def under_its_own_names(
    spool: Spool, spooled: Spooled, header: InstanceHeader, source_ae: str
) -> Spooled:
    """The same data set behind a File Meta Information that says what ``header`` does.

    The file given is gone afterwards, unless it raises.

    Raises:
        StorageFull, StorageUnavailable: the spool cannot be read or written.
    """
    meta = file_meta(
        header.sop_class_uid,
        header.sop_instance_uid,
        header.transfer_syntax_uid,
        source_ae=source_ae,
    )
    with spool.create(meta) as writer:
        with storage_faults("read the spool"), spooled.open() as stream:
            stream.seek(spooled.data_set_offset)
            while chunk := stream.read(_CHUNK_BYTES):
                writer.write(chunk)
        renamed = writer.finish()
    spool.discard(spooled)
    return renamed


def require_regular_uids(header: InstanceHeader) -> None:
    """Hold an instance to what the setting ``strict_uids`` wants.

    Raises:
        InvalidInstance: one of its UIDs is not of digits and dots, or longer than 64 characters.
    """
    for keyword, uid in _irregular_uids(header):
        raise InvalidInstance(f"{keyword} is not a UID, {uid[:64]!a}")


def notes_of(header: InstanceHeader, declared: str) -> tuple[str, ...]:
    """What is irregular about a stored instance, a sentence each, without any value of it."""
    notes = [f"{keyword} is not a UID of PS3.5 9.1" for keyword, _ in _irregular_uids(header)]
    if header.transfer_syntax_uid != declared:
        actual, named = (UID(uid).name for uid in (header.transfer_syntax_uid, declared))
        notes.append(f"the data set is in {actual}, and was said to be in {named}")
    return tuple(notes)


def _irregular_uids(header: InstanceHeader) -> Iterator[tuple[str, str]]:
    uids = {
        "SOPClassUID": header.sop_class_uid,
        "SOPInstanceUID": header.sop_instance_uid,
        "StudyInstanceUID": header.study_instance_uid,
        "SeriesInstanceUID": header.series_instance_uid,
    }
    for keyword, uid in uids.items():
        if not is_regular_uid(uid):
            yield keyword, uid
