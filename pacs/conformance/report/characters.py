"""The characters that a document may hold; a peer may send any."""

from __future__ import annotations

import re

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def writable(text: str) -> str:
    """The text with a question mark for what XML 1.0 and UTF-8 have no place for."""
    return _FORBIDDEN.sub("?", text)
