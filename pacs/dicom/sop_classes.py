"""Accepted storage SOP Classes and transfer syntaxes, as data.

Both come from pydicom's UID dictionary; the few entries below are in the Standard and not yet in
there. The archive keeps bytes as received, so a transfer syntax need not be one that anything here
can decode.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

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

_NEWER_TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
# Both retired; neither is an encoding of Data Elements that a C-STORE could carry.
_NOT_ENCODINGS = frozenset({"1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2"})

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

#: Transfer syntaxes that deflate the whole data set (PS3.5 A.5 and the JPIP ones with Deflate).
DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}
)

# Best first: explicit VR keeps the VR of private elements, little endian is what everyone reads.
_UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)


def _named(kind: str) -> Iterable[tuple[str, str]]:
    return ((uid, entry[0]) for uid, entry in UID_dictionary.items() if entry[1] == kind)


#: UID and name of every storage SOP Class of the Standard, retired ones included (PS3.4 B.5, GG.3,
#: PS3.6 A).
STORAGE_SOP_CLASSES: dict[str, str] = {
    uid: name
    for uid, name in _named("SOP Class")
    if _STORAGE_NAME.search(name) and uid not in _NOT_INSTANCES
} | _NEWER_STORAGE

#: UID and name of every transfer syntax of the Standard that encodes a data set (PS3.6 A, PS3.5 A).
TRANSFER_SYNTAXES: dict[str, str] = {
    uid: name for uid, name in _named("Transfer Syntax") if uid not in _NOT_ENCODINGS
} | _NEWER_TRANSFER_SYNTAXES


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


def choose_transfer_syntax(proposed: Sequence[str]) -> str | None:
    """The transfer syntax to accept of those proposed for one presentation context (PS3.8 9.3.3.2).

    The first one decides, since peers propose first what they have: an encapsulated one is accepted
    as proposed, so nobody transcodes. If the first is uncompressed, so is the choice, with explicit
    VR little endian before implicit before big endian. One that is not of the Standard is accepted
    only if nothing else is proposed. None if nothing proposed can be a data set's encoding.
    """
    known = [uid for uid in proposed if uid in TRANSFER_SYNTAXES]
    if not known:
        private = (uid for uid in proposed if not uid.startswith(_DICOM_ROOT))
        return next(private, None)
    if known[0] in _UNCOMPRESSED:
        return next(uid for uid in _UNCOMPRESSED if uid in known)
    return known[0]
