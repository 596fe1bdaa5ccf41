"""What the archive knows of one SOP Instance without its Pixel Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstanceHeader:
    """The identity of a SOP Instance and the values of its indexed Attributes.

    ``values`` has one entry for each stored Attribute of ``pacs.dicom.attributes.ATTRIBUTES`` that the data
    set contains with a value: keyword to the text that ``pacs.dicom.text.values.index_value`` makes of it.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    values: Mapping[str, str]
    #: What little the data set lacks (``pacs.dicom.encoding.completeness``); None if it is whole, or that was not
    #: looked at.
    lacking: str | None = None
