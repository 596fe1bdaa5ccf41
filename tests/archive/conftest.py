"""An archive of the test's own: real files, a real index, on both backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.archive.archive import Archive
from pacs.archive.redo import Redo
from pacs.index.index import Index
from pacs.storage.filesystem import FilesystemStorage


@pytest.fixture
def archive(index: Index, tmp_path: Path) -> Iterator[Archive]:
    """An empty archive that replaces duplicates."""
    storage = FilesystemStorage(tmp_path / "storage")
    archive = Archive(storage, index, Redo(storage, index))
    yield archive
    archive.redo.close()
    storage.spool.close()
