"""What an Error Comment (0000,0902) says of an Attribute, within its 64 characters (PS3.7 C, VR LO)."""

from __future__ import annotations

from typing import NoReturn

from pydicom.datadict import keyword_for_tag

from pacs.errors import InvalidIdentifier

#: Error Comment is LO: at most 64 characters.
MAX_COMMENT_CHARACTERS = 64


def attribute_name(tag: int) -> str:
    """Keyword and tag of an Attribute, such as ``PatientID (0010,0020)``."""
    return f"{keyword_for_tag(tag)} {_number(tag)}".strip()


def about(tag: int, reason: str) -> str:
    """The Attribute, then the reason: it is the name that becomes shorter when both have no room.

    The tag stays: it is what Offending Element and an implementer's table have.
    """
    text = f"{attribute_name(tag)} {reason}"
    return text if len(text) <= MAX_COMMENT_CHARACTERS else f"{_number(tag)} {reason}"


def refuse(tag: int, reason: str) -> NoReturn:
    """Refuse an Identifier because of one Attribute.

    Raises:
        InvalidIdentifier: always; it names the Attribute first, because peers see 64 characters.
    """
    raise InvalidIdentifier(about(tag, reason), offending=(int(tag),))


def _number(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
