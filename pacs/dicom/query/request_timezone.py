"""The time zone of a request (PS3.4 C.2.2.2, C.4.1.1.3.1)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from pacs.dicom.encoding.plain_values import texts_of
from pacs.dicom.error_comment import refuse
from pacs.dicom.text.timezones import TIMEZONE_OFFSET_FROM_UTC, zone_of_offset


def request_offset(identifier: Dataset) -> str:
    """The Timezone Offset From UTC of a request; empty without a value.

    Raises:
        InvalidIdentifier: it is not one offset (PS3.3 C.12.1.1.8).
    """
    if TIMEZONE_OFFSET_FROM_UTC not in identifier:
        return ""
    values = texts_of(identifier.get_item(TIMEZONE_OFFSET_FROM_UTC))
    if not any(values):
        return ""
    # -0000 shall not be used.
    if len(values) > 1 or values[0] == "-0000" or zone_of_offset(values[0]) is None:
        refuse(TIMEZONE_OFFSET_FROM_UTC, "is not one of -1200 to +1400")
    return values[0]
