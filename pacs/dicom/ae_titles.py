"""AE titles (VR AE; PS3.5 6.2)."""

from __future__ import annotations

import re

# Characters of the default repertoire without backslash and control characters.
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")


def normalised_ae_title(text: str) -> str | None:
    """The title without the spaces around it, which are not significant; None if it is not an AE title."""
    title = text.strip(" ")
    return title if _AE_TITLE.fullmatch(title) else None
