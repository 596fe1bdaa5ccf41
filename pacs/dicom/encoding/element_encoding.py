"""How Data Elements are encoded (PS3.5 7, A): byte order, kind of VR, and which transfer syntax has which.

Whether all of the data set is deflated is ``byte_source``'s concern.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from pacs.dicom.sop_classes import EXPLICIT_VR_BIG_ENDIAN

UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM = 0xFFFEE000
ITEM_DELIMITER = 0xFFFEE00D
SEQUENCE_DELIMITER = 0xFFFEE0DD

#: The VRs that an element can have (PS3.5 6.2): their names by what is in its header.
VRS = {str(vr).encode(): str(vr) for vr in VR if len(str(vr)) == 2}
#: VRs whose length has four bytes in explicit VR (PS3.5 7.1.2).
LONG_VRS = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)


@dataclass(frozen=True, slots=True)
class Encoding:
    """Byte order and kind of VR of a run of Data Elements (PS3.5 A)."""

    is_implicit: bool
    is_big_endian: bool = False
    tag: Struct = field(init=False, repr=False, compare=False)
    tag_and_length: Struct = field(init=False, repr=False, compare=False)
    tag_and_short_length: Struct = field(init=False, repr=False, compare=False)
    long_length: Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        order = ">" if self.is_big_endian else "<"
        object.__setattr__(self, "tag", Struct(f"{order}HH"))
        object.__setattr__(self, "tag_and_length", Struct(f"{order}HHL"))
        object.__setattr__(self, "tag_and_short_length", Struct(f"{order}HH2sH"))
        object.__setattr__(self, "long_length", Struct(f"{order}L"))


IMPLICIT_LITTLE = Encoding(is_implicit=True)
EXPLICIT_LITTLE = Encoding(is_implicit=False)
IMPLICIT_BIG = Encoding(is_implicit=True, is_big_endian=True)
EXPLICIT_BIG = Encoding(is_implicit=False, is_big_endian=True)


def declared_encoding(transfer_syntax_uid: str) -> Encoding:
    """The encoding that a data set should have by its transfer syntax.

    Implicit VR, and transfer syntaxes that are not known, count as explicit VR little endian: files name the wrong one
    often enough, so the reader looks at the first element anyway (``ElementReader.encoding_at``).
    """
    return EXPLICIT_BIG if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else EXPLICIT_LITTLE
