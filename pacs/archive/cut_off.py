"""Instances that were cut off, by an earlier release as they were stored or on the disk since, on their way to a peer.

A receiver that decodes what it gets ends the association at such a data set, and all that is known then is that there
was no answer. So what is cheap to find out is found out before it is sent; ``OutgoingInstance.fault`` tells the rest.
The walk is a fourth of the processor time that a C-MOVE of CT images takes: what this process has stored, or has walked
before, is sent without.
"""

from __future__ import annotations

from io import SEEK_END
from typing import BinaryIO

from pacs.archive.condition import missing_end
from pacs.archive.retrieve import OutgoingInstance
from pacs.dicom.sop_classes import DEFLATED
from pacs.errors import StorageUnavailable

#: Elements in sequences, or fragments, each of which may be a read of the disk: some 2 ms from memory.
_CHEAP_ELEMENTS = 500


def refuse_cut_off(instance: OutgoingInstance, stream: BinaryIO) -> None:
    """Refuse an instance whose stored data set was cut off, if that is cheap to tell; ``stream`` is its file.

    Raises:
        IncompleteInstance: the message says what it lacks.
        StorageUnavailable: the file cannot be read, or was cut off here.
    """
    stored, whole = instance.stored, instance.whole
    if whole is None:
        # What is derived was read for that.
        return
    beyond = stream.seek(0, SEEK_END) - stored.data_set_offset - stored.data_set_size
    if beyond < 0:
        # Once a part of it has been sent nothing but an abort can end the message, and a C-GET with it.
        raise StorageUnavailable("The stored file broke off: it is shorter than the index says")
    # To inflate it all takes too long.
    if beyond or stored.transfer_syntax_uid in DEFLATED:
        return
    if whole.has(stored.digest, stored.transfer_syntax_uid):
        return
    missing_end(stream, stored, most_passed=_CHEAP_ELEMENTS)
    whole.add(stored.digest, stored.transfer_syntax_uid)
