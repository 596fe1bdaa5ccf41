"""The address of a remote AE, as it is written on a command line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pacs.dicom.ae_titles import normalised_ae_title
from pacs.errors import InvalidSetting

_PEER = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>\d{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Peer:
    """The address of a remote AE."""

    title: str
    host: str
    port: int
    tls: bool = False

    @classmethod
    def parse(cls, text: str, *, tls: bool = False) -> Peer:
        """Read ``TITLE@HOST:PORT``.

        Raises:
            InvalidSetting: it is not of that form.
        """
        match = _PEER.match(text)
        title = normalised_ae_title(match["title"]) if match else None
        if match is None or title is None or not 0 < int(match["port"]) < 65_536:
            raise InvalidSetting(f"expected TITLE@HOST:PORT, got {text!r}")
        return cls(title, match["host"].strip("[]"), int(match["port"]), tls)

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"
