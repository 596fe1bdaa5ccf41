"""A matched record becomes a response Identifier (PS3.4 C.4.1.1.3.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from pydicom import config
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from pacs.dicom.attributes import Attribute
from pacs.dicom.encoding.plain_values import (
    CHARACTER_SET_VRS,
    NUMBER_FORMATS,
    SINGLE_VALUED_VRS,
    SPECIFIC_CHARACTER_SET,
    is_one_text,
    may_have_several,
    text_of_json,
)
from pacs.dicom.query.identifier import (
    INSTANCE_AVAILABILITY,
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    Query,
)
from pacs.dicom.query.matching import SequenceMatch, item_matches, json_items_of_text
from pacs.dicom.text.character_sets import encode, has_code_extensions, response_terms
from pacs.dicom.text.timezones import TIMEZONE_OFFSET_FROM_UTC
from pacs.dicom.text.values import split_values

_JAPANESE_ALONE = frozenset(
    {("ISO_IR 13",), ("ISO 2022 IR 13",), ("ISO 2022 IR 87",), ("ISO 2022 IR 159",)}
)


def encode_response(
    query: Query,
    record: Mapping[str, str | None],
    *,
    retrieve_ae_title: str,
    header: Dataset | None = None,
) -> Dataset:
    """Build the Identifier of one pending C-FIND response.

    ``record`` maps keywords to index texts, ``header`` has what a stored instance adds. Every supported key asked
    for is present, with zero length if there is no value; unsupported ones are absent (PS3.4 C.2.2.1.3). Retrieve
    AE Title is always present, as the Standard asks. Values are returned even if their VR does not allow them;
    only numbers that cannot be encoded are left empty. pydicom can write the result as it is.
    """
    items_wanted = dict(query.sequence_keys)
    response = Dataset()
    if header is not None:
        response.update(header)
    for attribute in query.returns:
        text = record.get(attribute.keyword)
        if attribute.vr == "SQ":
            element = _sequence(attribute, text, items_wanted.get(attribute))
        else:
            element = text_element(attribute.tag, attribute.vr, text)
        response[element.tag] = element
    for tag, vr, text in constant_texts(query, retrieve_ae_title):
        response[tag] = text_element(tag, vr, text)
    terms = response_terms(_texts(response), query.character_sets)
    if terms:
        response[SPECIFIC_CHARACTER_SET] = text_element(
            SPECIFIC_CHARACTER_SET, "CS", "\\".join(terms)
        )
        if has_code_extensions(terms) or terms in _JAPANESE_ALONE:
            _encode_texts(response, terms)
    return response


def constant_texts(query: Query, retrieve_ae_title: str) -> Iterator[tuple[int, str, str]]:
    """Tag, VR and text of what all responses to a query have in common; ASCII."""
    yield QUERY_RETRIEVE_LEVEL, "CS", query.level.name
    yield RETRIEVE_AE_TITLE, "AE", retrieve_ae_title
    if "InstanceAvailability" in query.retrieval_keys:
        yield INSTANCE_AVAILABILITY, "CS", "ONLINE"
    if query.timezone_offset:
        yield TIMEZONE_OFFSET_FROM_UTC, "SH", query.timezone_offset


def _encode_texts(data_set: Dataset, terms: tuple[str, ...]) -> None:
    """Replace texts by their bytes.

    pydicom's code extensions do not end where a line or value does, and in a Japanese set alone it writes Latin letters
    as question marks.
    """
    for element in list(data_set):
        if element.VR == "SQ":
            for item in element.value:
                _encode_texts(item, terms)
        elif element.VR in CHARACTER_SET_VRS:
            text = "\\".join(_values(element))
            if not text.isascii() or (text and terms in _JAPANESE_ALONE):
                value = _encoded(element.VR, text, terms)
                data_set[element.tag] = DataElement(
                    element.tag, element.VR, value, already_converted=True
                )


def _encoded(vr: str, text: str, terms: tuple[str, ...]) -> bytes | PersonName:
    value = encode(text, terms, is_name=vr == "PN", is_one_value=vr in SINGLE_VALUED_VRS)
    assert value is not None, "the character set was chosen for this text"
    # pydicom writes a name that it is to encode with the codecs it was decoded with as it is.
    if vr != "PN":
        return value
    return PersonName(value, convert_encodings(list(terms)), validation_mode=config.IGNORE)


def text_element(tag: int, vr: str, text: str | None) -> DataElement:
    """The element of a response for an index text, values joined with a backslash."""
    if not text:
        return DataElement(BaseTag(tag), vr, None)
    if vr not in CHARACTER_SET_VRS:  # the default repertoire is all that can be written
        text = text.encode("ascii", "replace").decode()
    parts = split_values(vr, text, several=may_have_several(int(tag)))
    values = [value for one in parts for value in _typed(vr, one)]
    value = values[0] if len(values) == 1 else values or None
    # IGNORE: what an instance has is what is returned, also if its VR does not allow it.
    try:
        return DataElement(BaseTag(tag), vr, value, validation_mode=config.IGNORE)
    except (ValueError, TypeError, OverflowError):  # "1.5" as IS: returned as the text it is
        return DataElement(BaseTag(tag), vr, text, already_converted=True)


def join_whole_texts(data_set: Dataset) -> None:
    """Make one value again of each text of VM 1 that pydicom has split at its backslashes."""
    for element in data_set:
        vr, value = str(element.VR), element.value
        whole = is_one_text(vr, several=may_have_several(int(element.tag)))
        if whole and isinstance(value, MultiValue):
            text = "\\".join(map(str, value))
            data_set[element.tag] = DataElement(element.tag, vr, text, already_converted=True)


def _typed(vr: str, text: str) -> Iterator[str | int | float]:
    if vr not in NUMBER_FORMATS:
        yield text
        return
    try:
        number = float(text) if vr in {"FL", "FD"} else int(text)
        struct.pack(f"<{NUMBER_FORMATS[vr]}", number)
    except (ValueError, OverflowError, struct.error):
        return
    yield number


def _sequence(attribute: Attribute, text: str | None, wanted: SequenceMatch | None) -> DataElement:
    items = json_items_of_text(text) if text else []
    return DataElement(BaseTag(attribute.tag), "SQ", _items(items, wanted))


def _items(items: list[object], wanted: SequenceMatch | None) -> Sequence:
    # The Items that match, with the Attributes asked for only (PS3.4 C.2.2.2.6).
    return Sequence(
        [
            _item(item, wanted)
            for item in items
            if isinstance(item, dict) and (wanted is None or item_matches(wanted, item))
        ]
    )


def _item(item: dict[str, object], wanted: SequenceMatch | None) -> Dataset:
    keys: list[tuple[int, str, SequenceMatch | None]]
    if wanted is None:
        keys = [(int(tag, 16), _vr_of_json(item[tag]), None) for tag in item]
    else:
        keys = [
            (tag, vr, match if isinstance(match, SequenceMatch) else None)
            for tag, vr, match in wanted.keys
        ]
    data_set = Dataset()
    for tag, vr, nested in keys:
        attribute = item.get(f"{tag:08X}")
        if vr == "SQ":
            value = attribute.get("Value") if isinstance(attribute, dict) else None
            found = value if isinstance(value, list) else []
            data_set[tag] = DataElement(BaseTag(tag), vr, _items(found, nested))
        else:
            data_set[tag] = text_element(tag, vr, text_of_json(attribute))
    return data_set


def _vr_of_json(attribute: object) -> str:
    return str(attribute.get("vr", "UN")) if isinstance(attribute, dict) else "UN"


def _texts(data_set: Dataset) -> Iterator[str]:
    for element in data_set:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        else:
            yield from _values(element)


def _values(element: DataElement) -> list[str]:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return [str(value) for value in values if value is not None]
