"""Values that the VR of their Data Element has no room for in explicit VR."""

from __future__ import annotations

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pacs.dicom.encoding.element_writer import MAX_SHORT_LENGTH

_FAILED_LIST = 0x00080058


def with_long_lists_as_un(identifier: Dataset) -> Dataset:
    """A UI has a 16 bit length in explicit VR, about 1,000 UIDs; beyond that it is written as UN (PS3.5 6.2.2)."""
    listed = identifier.get("FailedSOPInstanceUIDList")
    if listed is None or isinstance(listed, str):
        return identifier
    value = "\\".join(listed).encode("ascii")
    if len(value) <= MAX_SHORT_LENGTH:
        return identifier
    copied = Dataset()
    copied.update(identifier)
    copied[_FAILED_LIST] = DataElement(_FAILED_LIST, "UN", value + b"\0" * (len(value) % 2))
    return copied
