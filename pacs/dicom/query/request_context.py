"""What a request says of its own texts and times: character set and time zone (PS3.4 C.4.1.1.3.1, C.2.2.2)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.dicom.encoding.plain_values import (
    CHARACTER_SET_VRS,
    SPECIFIC_CHARACTER_SET,
    Element,
    texts_of,
)
from pacs.dicom.error_comment import refuse
from pacs.dicom.text.character_sets import unknown_terms
from pacs.dicom.text.timezones import TIMEZONE_OFFSET_FROM_UTC, zone_of_offset
from pacs.errors import InvalidIdentifier


def check_character_set(identifier: Dataset) -> None:
    """Refuse text in a character set that is not known; a guess would match other values.

    A request in ASCII is answered whatever it declares: the set has no effect on its keys, and responses
    may be in another one (PS3.4 C.4.1.1.3.2).

    Raises:
        InvalidIdentifier: a Defined Term is not known, and a key needs it.
    """
    if SPECIFIC_CHARACTER_SET in identifier:
        stated = texts_of(identifier.get_item(SPECIFIC_CHARACTER_SET))
        unknown = unknown_terms(stated)
        if unknown and _has_text_beyond_ascii(identifier):
            raise InvalidIdentifier(
                f"SpecificCharacterSet (0008,0005) is not known: {unknown[0][:16]}",
                offending=(SPECIFIC_CHARACTER_SET,),
            )
    for tag in identifier.keys():  # noqa: SIM118 - iterating the data set itself would decode it
        for item in _items(identifier.get_item(tag)):
            check_character_set(item)


def _has_text_beyond_ascii(data_set: Dataset) -> bool:
    for tag in data_set.keys():  # noqa: SIM118 - as above
        element = data_set.get_item(tag)
        if any(
            SPECIFIC_CHARACTER_SET not in item and _has_text_beyond_ascii(item)
            for item in _items(element)
        ):
            return True
        value = element.value
        if element.VR in CHARACTER_SET_VRS and isinstance(value, bytes) and not value.isascii():
            return True
    return False


def _items(element: Element) -> list[Dataset]:
    value = element.value
    return list(value) if isinstance(value, Sequence) else []


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
