"""What an Error Comment (0000,0902) says of an Attribute, within its 64 characters (PS3.7 C, VR LO)."""

from __future__ import annotations

from pydicom.datadict import keyword_for_tag

#: Error Comment is LO: at most 64 characters.
MAX_COMMENT_CHARACTERS = 64


def attribute_name(tag: int) -> str:
    """Keyword and tag of an Attribute, such as ``PatientID (0010,0020)``."""
    return f"{keyword_for_tag(tag)} {_number(tag)}".strip()


def about(tag: int, reason: str) -> str:
    """The Attribute, then the reason: it is the name that becomes shorter when both have no room.

    Offending Element has the tag anyway, so the keyword alone comes before the tag alone.
    """
    names = (attribute_name(tag), keyword_for_tag(tag), _number(tag))
    texts = [f"{name} {reason}" for name in names if name]
    fitting = (text for text in texts if len(text) <= MAX_COMMENT_CHARACTERS)
    return next(fitting, texts[-1])


def _number(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
