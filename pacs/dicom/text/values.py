"""The canonical form of a value, by VR: what the index keeps and what comparison looks at.

This is the one place that says how a value of an instance becomes the text of a column. It knows
neither SQL nor keys; ``matching`` compares what it makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pacs.dicom.encoding.plain_values import (
    SINGLE_VALUED_VRS,
    Element,
    is_one_text,
    json_items,
    may_have_several,
    texts_of,
    vr_of,
)
from pacs.dicom.text.character_sets import DEFAULT_CODECS
from pacs.dicom.text.dates import canonical, canonical_upper
from pacs.dicom.text.fuzzy_names import name_codes
from pacs.dicom.text.names import fold, name_groups

__all__ = [
    "canonical",
    "canonical_upper",
    "capped",
    "fold",
    "index_value",
    "name_groups",
    "shadow_values",
    "split_values",
]

# Caps in characters, far above what the VRs allow (PS3.5 6.2): they stop hostile lengths, not
# values.
_LONG_TEXT_CHARACTERS = 10_240
_SEQUENCE_CHARACTERS = 65_536
_SEVERAL_VALUES_CHARACTERS = 1_024
_ONE_VALUE_CHARACTERS = 256
# A key of a PostgreSQL btree must stay below 2,704 bytes.
_INDEXED_BYTES = 2_500


def index_value(element: Element, codecs: Sequence[str] = DEFAULT_CODECS) -> str | None:
    """The text that the index keeps for an Attribute; None if it has no value.

    Values are joined with a backslash. Where VM is 1, a text is kept whole (``is_one_text``), and of
    what cannot contain a backslash (CS, DA, UI, numbers) the first value counts: there a backslash
    always means several values. A sequence is compact DICOM JSON (PS3.18 F.2), or nothing if it is
    too large. ``codecs`` decodes a raw element; pydicom's own elements are decoded already.
    """
    vr = vr_of(element)
    if vr == "SQ":
        return _sequence_text(element, codecs)
    may_be_several = may_have_several(int(element.tag))
    values = texts_of(element, codecs)
    if not may_be_several:
        values = [value for value in values if value][:1]
    if not any(values):
        return None
    return capped(vr, "\\".join(values), may_be_several=may_be_several)


def _sequence_text(element: Element, codecs: Sequence[str]) -> str | None:
    items = json_items(element, codecs)
    if not items:
        return None
    text = json.dumps(items, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _SEQUENCE_CHARACTERS else None


def capped(vr: str, text: str, *, may_be_several: bool = False) -> str | None:
    """Cut a text to what the index keeps of it."""
    if vr in SINGLE_VALUED_VRS or vr == "UC":
        limit = _LONG_TEXT_CHARACTERS
    else:
        limit = _SEVERAL_VALUES_CHARACTERS if may_be_several else _ONE_VALUE_CHARACTERS
    if len(text) > limit:
        text = text[:limit].rstrip(" ")
    return (text if limit == _LONG_TEXT_CHARACTERS else _cut_bytes(text)) or None


def _cut_bytes(text: str) -> str:
    if len(text) * 4 <= _INDEXED_BYTES:
        return text
    return text.encode()[:_INDEXED_BYTES].decode(errors="ignore")


def split_values(vr: str, text: str, *, several: bool = True) -> list[str]:
    """The single values of an index text; ``several``: the VM of its Attribute may exceed one."""
    return [text] if is_one_text(vr, several=several) else text.split("\\")


def shadow_values(vr: str, text: str | None, *, several: bool = True) -> tuple[str | None, ...]:
    """The texts of ``Attribute.shadow_columns`` for an index text, aligned with them.

    PN: the folded alphabetic, ideographic and phonetic groups, and the codes for fuzzy matching;
    those of several names are joined with a backslash, so the n-th part of each column belongs to
    the n-th name; ``several`` as for ``split_values``. TM and DT: the canonical form, None if the
    value is not valid. Also what a PN key must be folded with: wild cards stay as they are.
    """
    if vr == "PN":
        if text is None:
            return None, None, None, None
        names = [
            (*name_groups(name), name_codes(name))
            for name in split_values(vr, text, several=several)
        ]
        columns = (_cut_bytes("\\".join(groups)) for groups in zip(*names, strict=True))
        return tuple(column if column.strip("\\") else None for column in columns)
    if vr in {"TM", "DT"}:
        return (canonical(vr, text) if text is not None else None,)
    return ()
