"""Accepted storage SOP Classes, as data, and the transfer syntaxes that need a name.

The SOP Classes come from pydicom's UID dictionary; the few entries below are in the Standard and not
yet in there. Transfer syntaxes need no list: the archive keeps bytes as received, so one need not be
known, much less be one that anything here can decode.
"""

from __future__ import annotations

import re

from pydicom.uid import UID_dictionary

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
# A space may follow, as in "... Storage - For Presentation", or the end, or "... Storage SOP
# Class".
_STORAGE_NAME = re.compile(r"Storage( - .*| SOP Class)?$")

_NEWER_STORAGE = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.8": "Confocal Microscopy Image Storage",
    "1.2.840.10008.5.1.4.1.1.77.1.9": "Confocal Microscopy Tiled Pyramidal Image Storage",
}
# The directory of a medium describes files; it belongs to no study (PS3.3 F). The Storage
# Commitment classes do not match the name pattern above.
_NOT_INSTANCES = frozenset({"1.2.840.10008.1.3.10"})

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

#: Transfer syntaxes that deflate the whole data set (PS3.5 A.5 and the JPIP ones with Deflate).
DEFLATED = frozenset(
    {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)


#: UID and name of every storage SOP Class of the Standard, retired ones included (PS3.4 B.5, GG.3,
#: PS3.6 A).
STORAGE_SOP_CLASSES: dict[str, str] = {
    uid: name
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and _STORAGE_NAME.search(name) and uid not in _NOT_INSTANCES
} | _NEWER_STORAGE


def is_storage_sop_class(uid: str) -> bool:
    """Whether instances of this SOP Class are stored.

    Besides the known ones these are all private SOP Classes, because to store is all an archive can
    do for them, and those below the Standard's storage root that are too new to be known.
    """
    if uid in STORAGE_SOP_CLASSES:
        return True
    if uid in UID_dictionary:
        return False
    return uid.startswith(_STORAGE_ROOT) or not uid.startswith(_DICOM_ROOT)
