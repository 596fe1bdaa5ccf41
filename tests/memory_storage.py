"""A storage that is no file system: the bytes are in memory, the location of an instance is a number.

What tests the ``Storage`` Protocol: the archive works over this one as over files.
"""

from __future__ import annotations

import io
import itertools
import secrets
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pacs.errors import PacsError, StorageUnavailable
from pacs.storage.base import Spooled, StoredFile
from pacs.storage.spool import Spool


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    stored_at: datetime


class MemoryStorage:
    """Keeps instances as long as the process lives; safe to share between threads."""

    def __init__(self, directory: Path) -> None:
        """Receive data sets, and keep logs, below ``directory``."""
        self.spool = Spool(directory / "received")
        self.log_directory = directory / "logs"
        self.folders = (directory,)
        self.description = "memory"
        self.objects: dict[str, _Object] = {}
        self.aside: dict[str, _Object] = {}
        #: What was placed and not settled.
        self.unsettled: set[str] = set()
        self._identity: str | None = None
        self._numbers = itertools.count(1)
        self._guard = threading.Lock()

    def identity(self) -> str | None:
        return self._identity

    def make_identity(self) -> str:
        self._identity = self._identity or secrets.token_hex(16)
        return self._identity

    def put(self, spooled: Spooled) -> str:
        location = self.place(spooled)
        self.unsettled.discard(location)
        return location

    def place(self, spooled: Spooled) -> str:
        with spooled.open() as stream:
            content = stream.read()
        location = self.new_location()
        self.place_content(location, content)
        self.spool.discard(spooled)
        return location

    def new_location(self) -> str:
        with self._guard:
            return f"object/{next(self._numbers):012}"

    def place_content(self, location: str, content: bytes) -> None:
        self.unsettled.add(location)
        self.objects[self._known(location)] = _Object(content, datetime.now(UTC))

    def settle(self, locations: Iterable[str]) -> list[str]:
        settled = list(locations)
        self.unsettled.difference_update(settled)
        return [location for location in settled if location not in self.objects]

    def restore(self, location: str, content: bytes) -> bool:
        before = self.objects.get(self._known(location))
        self.place_content(location, content)
        self.unsettled.discard(location)
        return before is None or before.content != content

    def open(self, location: str) -> BinaryIO:
        try:
            return io.BytesIO(self.objects[self._known(location)].content)
        except KeyError:
            raise _gone(location) from FileNotFoundError(location)

    def remove(self, location: str) -> None:
        self.objects.pop(self._known(location), None)

    def has(self, location: str) -> bool:
        return self._known(location) in self.objects

    def size(self, location: str) -> int | None:
        found = self.objects.get(self._known(location))
        return None if found is None else len(found.content)

    def set_aside(self, location: str) -> None:
        try:
            self.aside[location] = self.objects.pop(self._known(location))
        except KeyError:
            raise _gone(location) from FileNotFoundError(location)

    def stored_file(self, location: str) -> StoredFile | None:
        found = self.objects.get(self._known(location))
        return found and StoredFile(location, len(found.content), found.stored_at)

    def files(self) -> Iterator[StoredFile]:
        for location in sorted(self.objects):
            if (stored := self.stored_file(location)) is not None:
                yield stored

    def _known(self, location: str) -> str:
        # A location of the file system would be a sign that somebody made one up.
        if not location.startswith("object/"):
            raise StorageUnavailable(f"{location!r} is not a location of this storage")
        return location


def _gone(location: str) -> PacsError:
    return StorageUnavailable(f"Cannot read {location}: it is gone")
