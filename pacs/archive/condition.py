"""Whether a stored file is there, and is what its row says."""

from __future__ import annotations

import errno
from enum import Enum
from typing import BinaryIO

from pacs.archive.stored_files import digest_of
from pacs.dicom.encoding.completeness import check_complete
from pacs.dicom.encoding.element_headers import MAX_PASSED_ELEMENTS
from pacs.errors import IncompleteInstance, InvalidInstance, StorageUnavailable
from pacs.model.instances import InstanceLocation, StoredInstance
from pacs.storage.faults import is_missing
from pacs.storage.storage import Storage

#: The process lacks something, which says nothing about the file.
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Condition(Enum):
    """What a stored file is like."""

    SOUND = "sound"
    LOST = "lost"
    #: It cannot be read, or has another size or SHA-256 than its row says.
    DAMAGED = "damaged"
    #: It is what was received, but that was cut off.
    INCOMPLETE = "incomplete"
    #: As ``SOUND``, but for the delimiter behind its last fragment.
    LACKING = "without its last delimiter"


#: What an orphan, or an instance received, takes the place of.
NO_GOOD = frozenset({Condition.LOST, Condition.DAMAGED, Condition.INCOMPLETE})


def condition_of(storage: Storage, stored: StoredInstance | InstanceLocation) -> Condition:
    """Read a stored file to its end and compare it with its row.

    Raises:
        StorageUnavailable: this process cannot open another file, so nothing is known.
    """
    try:
        with storage.open(stored.location) as stream:
            if digest_of(stream, stored.data_set_offset) != stored.digest:
                return Condition.DAMAGED
            lacking = missing_end(stream, stored)
    except StorageUnavailable as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _OUR_OWN:
            raise
        return Condition.LOST if is_missing(error) else Condition.DAMAGED
    except IncompleteInstance:
        return Condition.INCOMPLETE
    return Condition.LACKING if lacking else Condition.SOUND


def missing_end(
    stream: BinaryIO,
    stored: StoredInstance | InstanceLocation,
    most_passed: int = MAX_PASSED_ELEMENTS,
) -> str | None:
    """What little a stored data set lacks (``check_complete``); None if nothing, or that takes more to tell.

    Raises:
        IncompleteInstance: it was cut off when it was received.
        StorageUnavailable: the file cannot be read.
    """
    try:
        return check_complete(
            stream, stored.transfer_syntax_uid, stored.data_set_offset, most_passed=most_passed
        )
    except IncompleteInstance:
        raise
    except InvalidInstance:
        # It was received so, and may be whole all the same.
        return None
