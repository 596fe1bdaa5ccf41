"""The tables of docs/conformance.md, written from the tables in the code.

``python -m pacs.dicom.conformance FILE`` brings the generated blocks of a Markdown file up to date; a test
fails when they are not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from pydicom.datadict import dictionary_description
from pydicom.tag import Tag
from pydicom.uid import UID

from pacs.dicom.attributes import ATTRIBUTES, Attribute, KeyType
from pacs.dicom.information_model import QUERY_RETRIEVE_SOP_CLASSES
from pacs.dicom.levels import Level
from pacs.dicom.query.matching import WILD_CARD_VRS
from pacs.dicom.query.query_options import SUB_FIELDS
from pacs.dicom.query.ranges import RANGE_VRS
from pacs.dicom.text.code_elements import CHARACTER_SETS, CodeElement

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_KEY_TYPES = {KeyType.UNIQUE: "unique", KeyType.REQUIRED: "required", KeyType.OPTIONAL: "optional"}


def keys() -> str:
    """Every key by level, with the matching it supports (PS3.4 C.2.2.2)."""
    lines = [
        "| level | Attribute | tag | VR | key | matching |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for level in Level:
        lines += [_key_row(attribute) for attribute in ATTRIBUTES if attribute.level is level]
    return "\n".join(lines)


def _key_row(attribute: Attribute) -> str:
    tag = Tag(attribute.tag)
    name = dictionary_description(tag)
    origin = "" if attribute.is_stored else " (computed)"
    return (
        f"| {attribute.level.name} | {name}{origin} | ({tag.group:04X},{tag.element:04X}) | {attribute.vr} "
        f"| {key_type(attribute)} | {', '.join(matching(attribute))} |"
    )


def key_type(attribute: Attribute) -> str:
    """Unique, required or optional (PS3.4 C.2.2.1)."""
    return _KEY_TYPES[attribute.key_type]


def matching(attribute: Attribute) -> list[str]:
    """The kinds of matching that a key supports (PS3.4 C.2.2.2)."""
    if attribute.vr == "SQ":
        return ["universal", "sequence"]
    kinds = ["universal", "single value"]
    if attribute.vr == "UI":
        kinds.append("list of UID")
    if attribute.vr in WILD_CARD_VRS:
        kinds.append("wild card")
    if attribute.vr in RANGE_VRS:
        kinds.append("range")
    return kinds


def query_retrieve() -> str:
    """The Query/Retrieve SOP Classes."""
    lines = ["| SOP Class | UID | role |", "| --- | --- | --- |"]
    lines += [f"| {UID(uid).name} | {uid} | SCP |" for uid in QUERY_RETRIEVE_SOP_CLASSES]
    return "\n".join(lines)


def extended_negotiation() -> str:
    """What each byte of SOP Class Extended Negotiation is answered with (PS3.4 C.5)."""
    lines = ["| operation | byte | sub-field | answer |", "| --- | --- | --- | --- |"]
    for operation, sub_fields in SUB_FIELDS.items():
        for byte, (name, option) in enumerate(sub_fields, start=1):
            answer = "0: not supported" if option is None else f"1 (`{option.replace('_', '-')}`)"
            lines.append(f"| C-{operation.value} | {byte} | {name} | {answer} |")
    return "\n".join(lines)


def character_sets() -> str:
    """Every Defined Term of Specific Character Set (PS3.3 C.12.1.1.2)."""
    lines = [
        "| character set | Defined Term | with code extensions | escape sequences |",
        "| --- | --- | --- | --- |",
    ]
    for one in CHARACTER_SETS:
        escapes = ", ".join(_escape(element) for element in one.elements)
        terms = f"{one.defined_term or '-'} | {one.extension_term or '-'}"
        lines.append(f"| {one.description} | {terms} | {escapes or '-'} |")
    return "\n".join(lines)


def _escape(element: CodeElement) -> str:
    # In the notation of PS3.3 Table C.12-3: column and row of the code table.
    codes = " ".join(f"{byte >> 4:02d}/{byte & 15:02d}" for byte in element.escape[1:])
    return f"{'G1' if element.is_g1 else 'G0'} ESC {codes}"


BLOCKS: dict[str, Callable[[], str]] = {
    "keys": keys,
    "query_retrieve": query_retrieve,
    "extended_negotiation": extended_negotiation,
    "character_sets": character_sets,
}


def update(text: str) -> str:
    """Replace the content of every generated block.

    Raises:
        KeyError: a block has a name that nothing generates.
    """
    return _BLOCK.sub(lambda match: f"{match[1]}{BLOCKS[match[2]]()}\n{match[3]}", text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(update(path.read_text()))
