"""An SQLite index whose file is deleted or replaced under a running archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacs.errors import IndexUnavailable
from pacs.index.index import Index
from pacs.model.instances import DuplicatePolicy
from tests.index.conftest import MakeRecord


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the index."""
    return tmp_path / "index.sqlite"


@pytest.fixture
def index(path: Path, make_record: MakeRecord) -> Iterator[Index]:
    """An index with one instance, which both pools have a connection to."""
    with closing(Index.open(f"sqlite:///{path}")) as opened:
        opened.ingest(make_record(), DuplicatePolicy.KEEP)
        assert opened.stats().instances == 1
        yield opened


def test_nothing_is_written_to_a_file_that_was_deleted(
    index: Index, path: Path, make_record: MakeRecord
) -> None:
    path.unlink()

    with pytest.raises(IndexUnavailable, match="is gone") as caught:
        index.ingest(make_record(), DuplicatePolicy.KEEP)

    assert not caught.value.may_have_committed
    with pytest.raises(IndexUnavailable, match="is gone"):
        index.stats()
    assert not path.exists()


def test_no_new_connection_makes_an_empty_file_in_place_of_a_deleted_one(
    index: Index, path: Path
) -> None:
    # A reader that is busy makes the pool open another connection.
    with index._engine.read():
        path.unlink()
        with pytest.raises(IndexUnavailable, match="is gone"):
            index.stats()

    assert not path.exists()


def test_a_file_that_took_the_place_of_the_first_is_not_used(
    index: Index, path: Path, make_record: MakeRecord
) -> None:
    shutil.copyfile(path, path.with_name("other"))
    path.with_name("other").replace(path)

    with pytest.raises(IndexUnavailable, match="was replaced"):
        index.stats()
    with pytest.raises(IndexUnavailable, match="was replaced"):
        index.ingest(make_record(), DuplicatePolicy.KEEP)


def test_a_file_that_is_put_back_is_used_again(
    index: Index, path: Path, make_record: MakeRecord
) -> None:
    away = path.with_name("away")
    path.rename(away)
    with pytest.raises(IndexUnavailable, match="is gone"):
        index.stats()

    away.rename(path)

    index.ingest(make_record(), DuplicatePolicy.KEEP)
    assert index.stats().instances == 2
