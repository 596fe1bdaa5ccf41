"""A data element, as pydicom holds it, becomes plain values: texts, or Items as DICOM JSON.

Nothing here uses pydicom's validation or its lazy conversion of text: they raise and warn on what
peers really send. VR and VM are the data dictionary's, whatever the peer wrote, so an Attribute
always has the values that its column and its matching expect.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName
from pydicom.values import convert_SQ

from pacs.dicom.text.character_sets import (
    DEFAULT_CODEC,
    DEFAULT_CODECS,
    codecs_of,
    decode,
    defined_terms,
)
from pacs.dicom.text.code_elements import BY_TERM
from pacs.dicom.text.dates import canonical

Element: TypeAlias = DataElement | RawDataElement
#: One Item: tag as eight hexadecimal digits to its attribute object (PS3.18 F.2.2).
JsonItem: TypeAlias = dict[str, dict[str, object]]

SPECIFIC_CHARACTER_SET = 0x00080005

TEXT_VRS = frozenset(
    {
        "AE",
        "AS",
        "CS",
        "DA",
        "DS",
        "DT",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "ST",
        "TM",
        "UC",
        "UI",
        "UR",
        "UT",
    }
)
#: A backslash is a character of these, not a delimiter (PS3.5 6.2).
SINGLE_VALUED_VRS = frozenset({"LT", "ST", "UT", "UR"})
# In these it is a delimiter where VM may exceed one. Where VM is 1 (Patient ID, Study Description) there is nothing to
# delimit: instances have it as a character, and what stands behind it tells one patient from another.
_WHOLE_TEXT_VRS = frozenset({"LO", "PN", "SH", "UC"})
# Leading spaces are significant in these (PS3.5 6.2).
_LEADING_SPACE_VRS = frozenset({"LT", "ST", "UT", "UC", "UR"})
#: Specific Character Set applies to these only (PS3.5 6.1.2.2).
CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
NUMBER_FORMATS = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "UV": "Q",
    "SV": "q",
    "FL": "f",
    "FD": "d",
}
#: The VRs whose values are matched and kept; the others are bulk data.
MATCHED_VRS = TEXT_VRS | frozenset(NUMBER_FORMATS) | {"SQ"}

_REMOVED = {
    0: None,
    0x1B: None,
}  # NUL no database takes; a stray ESC would switch a response's character set
# pydicom tells of a name that it has read which codecs are to decode it, not which Defined Terms.
_TERM_OF_PYDICOM = {codec: term for term, codec in python_encoding.items() if term in BY_TERM}
_INTEGER = re.compile(r"([+-]?)0*([0-9]{1,18})")
_MAXIMUM_SEQUENCE_BYTES = 1 << 20
#: How deep Items may be nested in what is read, matched or asked for.
MAXIMUM_DEPTH = 8
_MAXIMUM_ATTRIBUTES = 4096

# What pydicom was seen to raise on damaged sequences; Warning, because an application that embeds
# the archive may have turned warnings into errors.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    struct.error,
    TypeError,
    ValueError,
    Warning,
)


@lru_cache(maxsize=4096)
def dictionary_facts(tag: int) -> tuple[str, bool] | None:
    """The dictionary's VR (the first of several) and whether VM may exceed 1; None if unknown."""
    if not dictionary_has_tag(tag):
        return None
    return dictionary_VR(tag).split(" or ")[0], dictionary_VM(tag) != "1"


def vr_of(element: Element) -> str:
    """The VR of the data dictionary; the element's own for an Attribute that is not in it."""
    facts = dictionary_facts(int(element.tag))
    return facts[0] if facts else str(element.VR or "UN")


def texts_of(element: Element, codecs: Sequence[str] = DEFAULT_CODECS) -> list[str]:
    """The values of an element as normalised texts, empty ones included.

    Bulk data and sequences have none. ``codecs`` applies to bytes that pydicom has not decoded. Of an
    Attribute that ``is_one_text`` there is one, with its backslashes; nothing but them is no value.
    """
    vr = vr_of(element)
    values = _texts_of_value(element.value, vr, element, codecs)
    if len(values) > 1 and is_one_text(vr, several=may_have_several(int(element.tag))):
        values = ["\\".join(values) if any(normalised(vr, value) for value in values) else ""]
    return [normalised(vr, value) for value in values]


def may_have_several(tag: int) -> bool:
    """Whether the VM of an Attribute may exceed one; so it may if the dictionary does not know it."""
    facts = dictionary_facts(tag)
    return facts is None or facts[1]


def is_one_text(vr: str, *, several: bool) -> bool:
    """Whether a text of this VR is one value, whatever is in it; ``several``: its Attribute's VM may exceed one."""
    return vr in SINGLE_VALUED_VRS or (not several and vr in _WHOLE_TEXT_VRS)


def _texts_of_value(value: object, vr: str, element: Element, codecs: Sequence[str]) -> list[str]:
    if isinstance(value, MultiValue | list | tuple):
        return [text for one in value for text in _texts_of_value(one, vr, element, codecs)]
    if isinstance(value, PersonName):
        return [_name_text(value)]
    if isinstance(value, bytes | bytearray):
        return _texts_of_bytes(bytes(value), vr, element, codecs)
    if isinstance(value, str):
        return _split(vr, value)
    if isinstance(value, BaseTag):
        return [f"{int(value):08X}"]
    original = getattr(value, "original_string", None)  # IS, DS and dates as pydicom read them
    if isinstance(original, str):
        return _split(vr, original)
    return [str(value)] if isinstance(value, int | float) else []


def _name_text(name: PersonName) -> str:
    if isinstance(name.original_string, bytes) and name.original_string:
        terms = tuple(_TERM_OF_PYDICOM.get(codec, "") for codec in name.encodings or ())
        return decode(name.original_string, codecs_of(terms), is_name=True)
    return str(name)


def _texts_of_bytes(value: bytes, vr: str, element: Element, codecs: Sequence[str]) -> list[str]:
    wire_vr = vr if element.VR in {None, "UN", "OB"} else str(element.VR)
    if wire_vr in CHARACTER_SET_VRS:
        return _split(vr, text_of_bytes(value, wire_vr, codecs))
    if wire_vr in TEXT_VRS:
        return _split(vr, value.decode(DEFAULT_CODEC))
    if wire_vr not in NUMBER_FORMATS:
        return []
    byte_order = "<" if getattr(element, "is_little_endian", True) else ">"
    number = struct.Struct(byte_order + NUMBER_FORMATS[wire_vr])
    whole = len(value) - len(value) % number.size
    return [str(found[0]) for found in number.iter_unpack(value[:whole])]


def text_of_bytes(value: bytes, vr: str, codecs: Sequence[str]) -> str:
    """Decode the bytes of a VR that Specific Character Set applies to."""
    return decode(value, codecs, is_name=vr == "PN", is_one_value=vr in SINGLE_VALUED_VRS)


def _split(vr: str, text: str) -> list[str]:
    return [text] if vr in SINGLE_VALUED_VRS else text.split("\\")


def normalised(vr: str, text: str) -> str:
    """One value without what does not count: padding, composition of accents, form of IS and DA."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())
    text = text.translate(_REMOVED)
    text = text.rstrip(" ") if vr in _LEADING_SPACE_VRS else text.strip(" ")
    if vr == "IS" and (found := _INTEGER.fullmatch(text)):
        return str(int(found[1] + found[2]))
    if vr == "DA":
        return canonical("DA", text) or text
    if vr == "PN":  # delimiters of absent component groups may be left out (PS3.5 6.2.1)
        return text.rstrip("= ")
    return text


def is_empty(element: Element) -> bool:
    """Whether an element has zero length, or nothing but padding."""
    value = element.value
    if value is None:
        return True
    if isinstance(value, bytes):
        return not value.strip(b" \0")
    if isinstance(value, str):
        return not value.strip(" \0")
    return isinstance(value, Iterable) and not any(value)


def items_of(element: Element, codecs: Sequence[str] = DEFAULT_CODECS) -> list[Dataset] | None:
    """The Items of a sequence; None if the value is not a readable sequence of bounded size."""
    value = element.value
    if isinstance(element, RawDataElement):
        if len(value or b"") > _MAXIMUM_SEQUENCE_BYTES:
            return None
        try:
            value = convert_SQ(
                value or b"", element.is_implicit_VR, element.is_little_endian, list(codecs)
            )
        except UNREADABLE:
            return None
    if value is None:
        return []
    if not isinstance(value, MultiValue | list | DicomSequence):
        return None
    items = [item for item in value if isinstance(item, Dataset)]
    return items if len(items) == len(value) else None


def item_codecs(item: Dataset, codecs: Sequence[str]) -> Sequence[str]:
    """The codecs of an Item: its own Specific Character Set, else the given ones (PS3.5 7.5.3)."""
    if SPECIFIC_CHARACTER_SET not in item:
        return codecs
    return codecs_of(character_set_terms(item))


def character_set_terms(data_set: Dataset) -> tuple[str, ...]:
    """The usable values of Specific Character Set (0008,0005); empty for the default repertoire."""
    if SPECIFIC_CHARACTER_SET not in data_set:
        return ()
    return defined_terms(texts_of(data_set.get_item(SPECIFIC_CHARACTER_SET)))


def json_items(element: Element, codecs: Sequence[str] = DEFAULT_CODECS) -> list[JsonItem] | None:
    """The Items of a sequence as DICOM JSON (PS3.18 F.2); None if unreadable, too deep or too big.

    Bulk data and private Attributes are left out: they are neither matched nor returned.
    """
    budget = [_MAXIMUM_ATTRIBUTES]
    try:
        return _json_items(element, codecs, MAXIMUM_DEPTH, budget)
    except UNREADABLE:
        return None


def _json_items(
    element: Element, codecs: Sequence[str], depth: int, budget: list[int]
) -> list[JsonItem]:
    items = items_of(element, codecs)
    if items is None or not depth:
        raise ValueError("not a readable sequence, or nested too deeply")
    return [_json_item(item, item_codecs(item, codecs), depth, budget) for item in items]


def _json_item(item: Dataset, codecs: Sequence[str], depth: int, budget: list[int]) -> JsonItem:
    attributes: JsonItem = {}
    for tag in sorted(item.keys()):
        if tag.is_private or tag.element == 0 or tag == SPECIFIC_CHARACTER_SET:
            continue
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError("too many Attributes")
        element = item.get_item(tag)
        vr = vr_of(element)
        if vr not in MATCHED_VRS:
            continue
        values: list[object]
        if vr == "SQ":
            values = list(_json_items(element, codecs, depth - 1, budget))
        else:
            values = [_json_value(vr, text) for text in texts_of(element, codecs)]
        attributes[f"{int(tag):08X}"] = (
            {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}
        )
    return attributes


def _json_value(vr: str, text: str) -> object:
    if not text:
        return None
    if vr == "PN":
        names = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
        return {name: group for name, group in names if group} or None
    if vr in NUMBER_FORMATS:
        number = float(text) if vr in {"FL", "FD"} else int(text)
        # JSON has no infinity and no NaN.
        return number if number - number == 0 else None
    return text


def text_of_json(attribute: object) -> str | None:
    """The index text of an attribute object that ``json_items`` made; None without a value."""
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    if not isinstance(values, list):
        return None
    return "\\".join(_text_of_json_value(value) for value in values) or None


def _text_of_json_value(value: object) -> str:
    if isinstance(value, dict):
        groups = [str(value.get(name, "")) for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return "" if value is None else str(value)
