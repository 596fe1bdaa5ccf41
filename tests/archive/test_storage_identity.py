"""An index and its storage know each other: nothing is done with the storage of another archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pacs.archive import settler
from pacs.archive.archive import Archive
from pacs.archive.check import Finding, Options, check
from pacs.archive.mounted import accept_storage, learn_storage, require_own_storage
from pacs.archive.redo import Redo
from pacs.archive.reindex import reindex
from pacs.archive.store import store
from pacs.errors import StorageUnavailable
from pacs.index.index import Index
from pacs.model.instances import Origin
from pacs.server import Server
from pacs.storage.filesystem import FilesystemStorage
from tests.archive.holdings import (
    EXPLICIT,
    findings,
    keep,
    make_slice,
    spool,
    stored_locations,
)
from tests.factories import part10
from tests.serving import settings


@pytest.fixture
def other(archive: Archive, database_url: str, tmp_path: Path) -> Iterator[Archive]:
    """A second process on the same index, whose settings name another storage."""
    learn_storage(archive.storage, archive.index)
    storage = FilesystemStorage(tmp_path / "elsewhere")
    with closing(Index.open(database_url, upgrade=False)) as index:
        other = Archive(storage, index, Redo(storage, index))
        yield other
        other.redo.close()
        storage.spool.close()


def store_unsettled(archive: Archive, number: int = 1) -> None:
    store(archive, spool(archive, part10(make_slice(number))), Origin("CT1", EXPLICIT))


WORK: list[Callable[[Archive], object]] = [
    lambda archive: archive.redo.recover(),
    lambda archive: list(check(archive, Options())),
    lambda archive: list(check(archive, Options(repair=True))),
    lambda archive: list(reindex(archive)),
]


@pytest.mark.parametrize("has_identity", [True, False], ids=["of-another", "without"])
@pytest.mark.parametrize("work", WORK, ids=["recover", "check", "repair", "reindex"])
def test_another_storage_gets_nothing_and_the_index_loses_nothing(
    archive: Archive,
    other: Archive,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Archive], object],
    has_identity: bool,
) -> None:
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 3600)
    if has_identity:
        other.storage.make_identity()
    # With a file, it is no unmounted volume either.
    other.storage.put(spool(other, part10(make_slice(7))))
    before = stored_locations(other)
    store_unsettled(archive)

    with pytest.raises(StorageUnavailable, match="pacs db accept-storage"):
        work(other)

    assert stored_locations(other) == before
    assert archive.index.redo.locations() == stored_locations(archive)
    assert findings(archive) == {Finding.SOUND: 1}


def test_copies_are_not_written_into_a_storage_that_took_the_place_of_ours(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settler, "_GATHER_SECONDS", 3600)
    learn_storage(archive.storage, archive.index)
    store_unsettled(archive)
    archive.storage.root.rename(tmp_path / "away")
    FilesystemStorage(archive.storage.root).make_identity()

    with pytest.raises(StorageUnavailable, match="belongs to another index"):
        archive.redo.flush()

    assert stored_locations(archive) == []
    assert len(archive.index.redo.locations()) == 1
    shutil.rmtree(archive.storage.root)
    (tmp_path / "away").rename(archive.storage.root)
    archive.redo.flush()
    assert findings(archive) == {Finding.SOUND: 1}


def test_copy_of_a_storage_is_the_same_storage(archive: Archive, tmp_path: Path) -> None:
    learn_storage(archive.storage, archive.index)
    keep(archive, make_slice())
    shutil.copytree(archive.storage.root, tmp_path / "backup")

    require_own_storage(FilesystemStorage(tmp_path / "backup"), archive.index)


def test_archive_of_an_earlier_release_is_identified_when_it_is_served(
    archive: Archive, database_url: str, tmp_path: Path
) -> None:
    keep(archive, make_slice())
    assert (archive.storage.identity(), archive.index.storage_identity()) == (None, None)
    server = Server(
        settings(tmp_path, database_url=database_url, storage_url=str(archive.storage.root))
    )

    server.start()
    server.stop()

    identity = archive.storage.identity()
    assert identity is not None
    assert archive.index.storage_identity() == identity


def test_server_does_not_start_on_another_storage(
    archive: Archive, other: Archive, database_url: str, tmp_path: Path
) -> None:
    keep(archive, make_slice())
    other.storage.make_identity()
    server = Server(
        settings(tmp_path, database_url=database_url, storage_url=str(other.storage.root))
    )

    with pytest.raises(StorageUnavailable, match="belongs to another index: is storage_url right"):
        server.start()


def test_another_storage_can_be_accepted(archive: Archive, other: Archive) -> None:
    accept_storage(other.storage, other.index)

    require_own_storage(other.storage, other.index)
    with pytest.raises(StorageUnavailable):
        require_own_storage(archive.storage, archive.index)


def test_empty_mount_point_is_not_accepted(archive: Archive, other: Archive) -> None:
    keep(archive, make_slice())

    with pytest.raises(StorageUnavailable, match="mounted"):
        accept_storage(other.storage, other.index)

    assert other.storage.identity() is None
    require_own_storage(archive.storage, archive.index)


def test_identity_is_made_once_whoever_comes_first(tmp_path: Path) -> None:
    first, second = FilesystemStorage(tmp_path / "s"), FilesystemStorage(tmp_path / "s")

    identity = first.make_identity()

    assert second.make_identity() == identity == first.identity()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["storage-id"]


def test_identity_file_that_a_power_loss_left_empty_is_written_again(tmp_path: Path) -> None:
    storage = FilesystemStorage(tmp_path)
    (tmp_path / "storage-id").touch()
    assert storage.identity() is None

    identity = storage.make_identity()

    assert storage.identity() == identity
