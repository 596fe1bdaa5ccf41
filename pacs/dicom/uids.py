"""What is taken for a UID, and how one is shown (PS3.5 6.2, 9.1).

The Standard allows digits and dots, 64 characters in all. Files in the field have longer ones, hexadecimal ones,
UUIDs and ones with blanks, and archives beside this one keep them: what is refused here is lost. So a UID is what can
be told from a list of UIDs (no backslash) and printed (no control characters). It names nothing in a file system.
"""

from __future__ import annotations

import re

#: Twice what PS3.5 6.2 allows.
MAX_UID_CHARACTERS = 128
#: What a command set has room for: many implementations, DCMTK among them, abort for a longer one.
_MAX_COMMAND_CHARACTERS = 64

_UID = re.compile(rf"[!-\[\]-~](?:[ -\[\]-~]{{0,{MAX_UID_CHARACTERS - 2}}}[!-\[\]-~])?")
# Leading zeros and empty components are common and harmless.
_REGULAR_UID = re.compile(r"[0-9][0-9.]{0,63}")


def is_uid(text: str) -> bool:
    """Whether this names an entity here: 1 to 128 printable ASCII characters, no backslash, no space at either end."""
    return _UID.fullmatch(text) is not None


def is_regular_uid(text: str) -> bool:
    """Whether this is digits and dots, at most 64: what every peer takes, though PS3.5 9.1 asks for more."""
    return _REGULAR_UID.fullmatch(text) is not None


def command_uid(text: str) -> str:
    """The UID as a command set names it: cut to what every peer reads there, as DCMTK does when it sends one."""
    return text if len(text) <= _MAX_COMMAND_CHARACTERS else text[:_MAX_COMMAND_CHARACTERS].rstrip()


def shown_uid(text: str) -> str:
    """A UID for a log line, a terminal or an Error Comment; in quotation marks if it is not a regular one."""
    return text if is_regular_uid(text) else ascii(text)


def uid_text(value: bytes) -> str:
    """The text of one UID as encoded, without its padding; which bytes it has is for ``is_uid`` to judge."""
    return value.decode("latin_1").strip(" \0")
